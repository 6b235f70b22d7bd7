// Where devices are, as the user writes it: `local`, a host name for ssh, `unix:PATH`.
#pragma once

#include <string>

#include "base/status.h"

namespace waldo::apps {

struct Target {
  enum class Kind : uint8_t { kLocal, kSsh, kUnix };
  Kind kind = Kind::kLocal;
  std::string text = "local";  // as written
  std::string where;           // host or path
};

// kInvalid says what is wrong and what to write instead. kUnsupported: tcp targets, not in this version.
Result<Target> parse_target(const std::string& text);

}  // namespace waldo::apps
