#include <ATen/core/Tensor.h>
#include <ATen/ops/_nested_view_from_buffer.h>
#include <ATen/ops/_transform_bias_rescale_qkv.h>
#include <ATen/ops/native_layer_norm.h>
#include <torch/library.h>

#include <tuple>

#include "frontends/torch/kernels_made_of.h"

// The operators on nested tensors whose function for both CPU and CUDA reads values itself. Others that
// torch.nn.TransformerEncoder needs for a padding mask are shared (op_table.inc).

namespace waldo::torch_frontend {
namespace {

using at::Tensor;
using Three = std::tuple<Tensor, Tensor, Tensor>;

// Parts may differ in sizes that are not normalised only: their buffer is one matrix of rows.
Three layer_norm(const Tensor& self, at::IntArrayRef normalized, const std::optional<Tensor>& weight,
                 const std::optional<Tensor>& bias, double eps) {
  std::vector<int64_t> size = {-1};
  size.insert(size.end(), normalized.begin(), normalized.end());
  const auto [rows, mean, rstd] = at::native_layer_norm(self.values().reshape(size), normalized, weight, bias, eps);
  return {at::_nested_view_from_buffer(rows.reshape({-1}), self._nested_tensor_size(), self._nested_tensor_strides(),
                                       self._nested_tensor_storage_offsets()),
          mean.reshape({-1}), rstd.reshape({-1})};
}

Three transform_bias_rescale_qkv(const Tensor& qkv, const Tensor& bias, int64_t heads) {
  return at::_transform_bias_rescale_qkv(qkv.to_padded_tensor(0.0), bias, heads);
}

}  // namespace

void register_nested_kernels() {
  auto& nested = library_of(c10::DispatchKey::NestedTensorCUDA);
  nested.impl("native_layer_norm", TORCH_FN(layer_norm));
  nested.impl("_transform_bias_rescale_qkv", TORCH_FN(transform_bias_rescale_qkv));
}

}  // namespace waldo::torch_frontend
