#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace waldo {

void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "waldo: bug at %s:%d: %s does not hold\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace waldo
