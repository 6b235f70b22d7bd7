// The operators of wire/own_operators.h: sparse tensors are put together from the plain ones, PyTorch's own kernel of
// the worker's device runs, and its result is taken apart again. What the parts say is checked before any kernel runs.
//
// Threads: registered once, by the thread that makes the first backend.
#pragma once

namespace waldo::torch_backend {

void register_sparse();

}  // namespace waldo::torch_backend
