// Pinned host memory. There is no driver here to pin pages for; such memory is ordinary, page-aligned, and remembered,
// so that pin_memory() and is_pinned() answer as they do beside a GPU.
#pragma once

#include <c10/core/Allocator.h>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

c10::Allocator* pinned_allocator();
bool is_pinned(const void* address);
struct PinnedStats {
  int64_t count = 0, bytes = 0, bytes_peak = 0, count_total = 0, bytes_total = 0;
};
WALDO_TORCH_API PinnedStats pinned_stats();

}  // namespace waldo::torch_frontend
