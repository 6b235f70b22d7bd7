// What the user sees of a link that is gone: nothing for 2 s, then one line, which goes away again. On a terminal that
// line counts the seconds and is erased; elsewhere one line says that it began and one that it ended.
//
// Threads: one at a time.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace waldo::client {

class ContactBanner {
 public:
  // Where the text goes; empty: nowhere. `is_terminal` says which of the two forms.
  struct Sink {
    std::function<void(std::string_view text)> write;
    bool is_terminal = false;
  };
  static Sink standard_error();  // nothing with a log level above warning

  ContactBanner(std::string target, Sink sink) : target_(std::move(target)), sink_(std::move(sink)) {}

  void no_contact(Duration since_heard);  // as often as you like
  void back();

  static constexpr std::chrono::seconds kShownAfter{2};

 private:
  const std::string target_;
  const Sink sink_;
  bool shown_ = false;
  int64_t seconds_ = 0;  // as shown, or as it was last
};

}  // namespace waldo::client
