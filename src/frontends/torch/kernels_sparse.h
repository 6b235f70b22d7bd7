// What the kernels of sparse tensors share: kernels_sparse.cc (COO) and kernels_compressed.cc (CSR, CSC, BSR, BSC).
//
// Threads: any; calls an operator of wire::kOwnOperators, which is forwarded like each other one.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace waldo::torch_frontend {

using TensorPair = std::tuple<at::Tensor, at::Tensor>;

// One of wire::kOwnOperators, found by its name.
template <typename Result, typename... Arguments>
Result own(const char* name, const Arguments&... arguments) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("waldo::") + name).c_str(), "");
  torch::jit::Stack stack;
  (stack.emplace_back(arguments), ...);
  handle.callBoxed(&stack);
  if constexpr (std::is_same_v<Result, TensorPair>) {
    return {stack[0].toTensor(), stack[1].toTensor()};
  } else if constexpr (std::is_same_v<Result, std::vector<at::Tensor>>) {
    return stack[0].toTensorVector();
  } else {
    return std::move(stack[0]).toTensor();
  }
}

inline at::Tensor& into_dense(at::Tensor& out, const at::Tensor& made) {
  out.resize_(made.sizes());
  return out.copy_(made);
}

// addmm of matrices of which any may be sparse: in the layout of `self`.
std::vector<at::Tensor> any_addmm(const at::Tensor& self, const at::Tensor& left, const at::Tensor& right,
                                  const at::Scalar& beta, const at::Scalar& alpha);

void register_compressed_kernels();

}  // namespace waldo::torch_frontend
