// What libFuzzer gives, as bytes in memory of their exact size, so that ASan sees a read past the end.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace waldo::fuzz {

inline Buffer input(const uint8_t* data, size_t size) {
  return to_buffer({reinterpret_cast<const std::byte*>(data), size});
}

}  // namespace waldo::fuzz
