// Our own bugs stop the process that has them, in release builds too, with file, line and condition.
#pragma once

namespace waldo {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}  // namespace waldo

#define WALDO_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::waldo::check_failed(__FILE__, __LINE__, #condition))
