// How much memory a device has, and has left.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

struct MemoryInfo {
  uint64_t free = 0, total = 0;
};
// Asks the worker: one wait. Throws as any read.
WALDO_TORCH_API MemoryInfo memory_info(c10::DeviceIndex device);

}  // namespace waldo::torch_frontend
