// The start of the front end: everything that PyTorch must find, registered in one stated order.
#pragma once

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

// From the forwarding part (meta.cc, forward.cc). Called once each, in this order, before `import torch` runs its
// Python.
void snapshot_meta_kernels();  // PyTorch's C++ Meta kernels, before Python ones hide them
void register_kernels();       // the boxed kernel for every operator, then the hand-written ones, then the stubs

void register_hooks();  // CUDAHooksInterface; must come before the first at::detail::getCUDAHooks()
bool hooks_are_ours();  // makes the hooks object if there is none yet
void register_guard();
void register_allocator();
void register_timer();  // DDP's reducer timer
void register_profiler();

}  // namespace waldo::torch_frontend

// Registers everything; safe to repeat. Returns null, or one line that says what is wrong (then nothing of ours is
// used). `python_torch_loaded`: nonzero when `torch` is already imported, which is too late.
extern "C" WALDO_TORCH_API const char* waldo_torch_register(int python_torch_loaded);
extern "C" WALDO_TORCH_API const char* waldo_torch_built_for();  // "2.13.0"

// Only for a CUDA build of PyTorch: called before libtorch_cuda is loaded, which must be before waldo_torch_register().
extern "C" WALDO_TORCH_API void waldo_torch_before_cuda();
// One line per operator that would run on a GPU of this machine instead of a worker (takeover.h). Valid until the next
// call.
extern "C" WALDO_TORCH_API const char* waldo_torch_foreign_kernels();
