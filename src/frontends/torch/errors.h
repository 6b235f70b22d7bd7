// Status -> the exception a CUDA user expects. The only place where the torch front end translates.
#pragma once

#include "base/status.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

// kDevice by its error class: torch.OutOfMemoryError, IndexError, ValueError, TypeError, NotImplementedError,
// LinAlgError, AcceleratorError, else RuntimeError. kLost: waldo.DeviceLostError (a torch.AcceleratorError).
// kCancelled: the exception of the signal's handler, mostly KeyboardInterrupt. kUnsupported: NotImplementedError.
// kInvalid and all others: RuntimeError.
[[noreturn]] WALDO_TORCH_API void throw_status(const Status& status);

inline void check(const Status& status) {
  if (!status.ok()) [[unlikely]]
    throw_status(status);
}

// `torch.cuda.X is not available on a Waldo device: why`, as NotImplementedError.
[[noreturn]] WALDO_TORCH_API void throw_not_available(const char* what, const char* why);

}  // namespace waldo::torch_frontend
