// A CUDA build of PyTorch brings kernels for `cuda` of its own. They are registered before ours, which then answer
// first; this is for those that we have none for: an operator that is composite in a CPU build becomes so again, any
// other refuses.
//
// Threads: while registering, one; the audit, any.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace waldo::torch_frontend {

// Before libtorch_cuda is loaded: what a CPU build would do for each operator. Never called in a CPU build.
void note_kernels_before_cuda();

// Is there a kernel for just this key, libtorch_cuda's apart?
bool has_kernel_but_cudas(const c10::OperatorHandle& handle, c10::DispatchKey key);

// After all of ours are registered: covers what libtorch_cuda brought since and we have nothing for. Does nothing in a
// CPU build.
void cover_foreign_kernels();

// Operators that we forward and whose kernel is not ours (any more); in a CUDA build also those that a tensor of ours
// would reach and whose kernel is neither ours nor a CPU build's: "aten::x CUDA: registered at …". Empty is what it has
// to be.
std::vector<std::string> foreign_kernels();

}  // namespace waldo::torch_frontend
