#include "client/contact.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

#include "base/log.h"

namespace waldo::client {

ContactBanner::Sink ContactBanner::standard_error() {
  if (log_level() > LogLevel::kWarning) return {};
  const auto write = [](std::string_view text) {
    [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, text.data(), text.size());
  };
  return {write, ::isatty(STDERR_FILENO) == 1};
}

void ContactBanner::no_contact(Duration since_heard) {
  if (!sink_.write || since_heard < kShownAfter) return;
  const int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(since_heard).count();
  const bool first = !shown_;
  if (!first && seconds == seconds_) return;
  shown_ = true;
  seconds_ = seconds;
  if (!first && !sink_.is_terminal) return;
  const std::string text = fmt::format("waldo: {}: no contact for {} s, retrying", target_, seconds);
  sink_.write(sink_.is_terminal ? "\r\033[K" + text : text + "\n");
}

void ContactBanner::back() {
  if (!shown_) return;
  shown_ = false;
  sink_.write(sink_.is_terminal ? "\r\033[K" : fmt::format("waldo: {}: contact again after {} s\n", target_, seconds_));
}

}  // namespace waldo::client
