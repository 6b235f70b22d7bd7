// What torch.profiler measured on a worker: begin and end of one operator by the worker's clock, in nanoseconds.
// PyTorch keeps their difference alone; a timeline wants both (python/waldo/_torch/profiling.py).
#pragma once

#include <cstdint>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

struct ProfiledInterval {
  int device = 0;
  int64_t begin_ns = 0, end_ns = 0;
};
// The one that PyTorch last asked for on this thread: after KinetoEvent::cuda_elapsed_us(), that event's.
WALDO_TORCH_API ProfiledInterval last_profiled_interval();

}  // namespace waldo::torch_frontend
