#include "base/os/entropy.h"

#include <algorithm>
#if defined(__linux__) || defined(__APPLE__)
#include <sys/random.h>
#endif
#include <unistd.h>

#include "base/check.h"

namespace waldo::os {

void fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), 256);  // getentropy's own maximum
    WALDO_CHECK(::getentropy(bytes.data(), size) == 0);
    bytes = bytes.subspan(size);
  }
}

std::string random_name() {
  constexpr char kDigits[] = "0123456789abcdef";
  std::byte bytes[16];
  fill_random(bytes);
  std::string name;
  for (const std::byte byte : bytes) {
    name += kDigits[std::to_integer<unsigned>(byte >> 4)];
    name += kDigits[std::to_integer<unsigned>(byte & std::byte{15})];
  }
  return name;
}

}  // namespace waldo::os
