// Operators that only CUDA has and that ordinary training uses, computed on a CPU that poses as cuda.
#pragma once

#include <torch/library.h>

namespace waldo::torch_backend {

// Registers them with libtorch's dispatcher for the CPU, once per process. Only names without a CPU kernel: nothing of
// libtorch's own is replaced. Throws what libtorch throws.
void register_substitutes();

void add_attention(torch::Library& cpu);  // substitutes_attention.cc; part of the above

}  // namespace waldo::torch_backend
