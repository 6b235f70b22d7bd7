// Kernels for operators of the commonest signatures, such as (Tensor, Tensor, Scalar) -> Tensor, that take their
// arguments as PyTorch has them. Boxing a call (a stack of IValues, a reference counted for each tensor, and the
// outputs back out of it) costs as much again as recording it; these lend the arguments and count nothing. They are
// forward() in all else, and call it for whatever is not a known plan with one plain output.
#pragma once

#include <torch/library.h>

#include <optional>

#include "frontends/torch/op_table.h"

namespace waldo::torch_frontend {

// None: this operator's signature has no typed kernel. The kernel lives as long as the process.
std::optional<torch::CppFunction> make_typed_kernel(const c10::OperatorHandle& handle);

}  // namespace waldo::torch_frontend
