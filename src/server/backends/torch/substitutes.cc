#include "server/backends/torch/substitutes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid_backward.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/unsafe_chunk.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

namespace waldo::torch_backend {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Tensor with_bias(const Tensor& gates, const OptionalTensor& bias) {
  return bias.has_value() && bias->defined() ? gates + *bias : gates;
}

// The fused recurrent cells, step by step as libtorch's CPU path takes them, so that a program's LSTM and GRU come out
// as on the CPU. The workspace keeps the gates after their activation, as CUDA's does; only the backward reads it.

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& cx,
                                             const OptionalTensor& input_bias, const OptionalTensor& hidden_bias) {
  Tensor gates = with_bias(hidden_gates, hidden_bias) + with_bias(input_gates, input_bias);
  std::vector<Tensor> chunks = gates.unsafe_chunk(4, 1);
  const Tensor in = chunks[0].sigmoid_(), forget = chunks[1].sigmoid_();
  const Tensor cell = chunks[2].tanh_(), out = chunks[3].sigmoid_();
  Tensor cy = (forget * cx).add_(in * cell);
  Tensor hy = out * cy.tanh();
  return {std::move(hy), std::move(cy), std::move(gates)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const OptionalTensor& grad_hy, const OptionalTensor& grad_cy,
                                                      const Tensor& cx, const Tensor& cy, const Tensor& workspace,
                                                      bool has_bias) {
  const bool has_hy = grad_hy.has_value() && grad_hy->defined();
  const bool has_cy = grad_cy.has_value() && grad_cy->defined();
  if (!has_hy && !has_cy) return {};
  const std::vector<Tensor> chunks = workspace.unsafe_chunk(4, 1);
  const Tensor &in = chunks[0], &forget = chunks[1], &cell = chunks[2], &out = chunks[3];
  const Tensor tanh_cy = cy.tanh();
  Tensor grad_out, grad_c;
  if (has_hy) {
    grad_out = at::sigmoid_backward(*grad_hy * tanh_cy, out);
    grad_c = at::tanh_backward(*grad_hy * out, tanh_cy);
    if (has_cy) grad_c = grad_c + *grad_cy;
  } else {
    grad_out = at::zeros_like(out);
    grad_c = *grad_cy;
  }
  Tensor grad_gates = at::cat({at::sigmoid_backward(grad_c * cell, in), at::sigmoid_backward(grad_c * cx, forget),
                               at::tanh_backward(grad_c * in, cell), grad_out},
                              1);
  Tensor grad_bias = has_bias ? grad_gates.sum(0, /*keepdim=*/false) : Tensor();
  return {std::move(grad_gates), grad_c * forget, std::move(grad_bias)};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& hx,
                                    const OptionalTensor& input_bias, const OptionalTensor& hidden_bias) {
  const std::vector<Tensor> input = with_bias(input_gates, input_bias).unsafe_chunk(3, 1);
  const std::vector<Tensor> hidden = with_bias(hidden_gates, hidden_bias).unsafe_chunk(3, 1);
  const Tensor reset = (hidden[0] + input[0]).sigmoid_();
  const Tensor update = (hidden[1] + input[1]).sigmoid_();
  const Tensor fresh = (input[2] + hidden[2] * reset).tanh_();
  Tensor hy = (hx - fresh).mul_(update).add_(fresh);
  return {std::move(hy), at::cat({reset, update, fresh, hx, hidden[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad_hy, const Tensor& workspace,
                                                                     bool has_bias) {
  const std::vector<Tensor> chunks = workspace.unsafe_chunk(5, 1);
  const Tensor &reset = chunks[0], &update = chunks[1], &fresh = chunks[2], &hx = chunks[3], &hidden = chunks[4];
  const Tensor grad_difference = grad_hy * update;
  const Tensor grad_update = at::sigmoid_backward(grad_hy * (hx - fresh), update);
  const Tensor grad_fresh = at::tanh_backward(grad_hy + (-grad_difference), fresh);
  const Tensor grad_reset = at::sigmoid_backward(grad_fresh * hidden, reset);
  Tensor grad_input = at::cat({grad_reset, grad_update, grad_fresh}, 1);
  Tensor grad_hidden = at::cat({grad_reset, grad_update, grad_fresh * reset}, 1);
  Tensor input_bias = has_bias ? grad_input.sum(0, /*keepdim=*/false) : Tensor();
  Tensor hidden_bias = has_bias ? grad_hidden.sum(0, /*keepdim=*/false) : Tensor();
  return {std::move(grad_input), std::move(grad_hidden), grad_difference, std::move(input_bias),
          std::move(hidden_bias)};
}

// Dropout's older forms. `keep` is the probability to keep an element.

std::tuple<Tensor, Tensor> fused_dropout(const Tensor& self, double keep, std::optional<at::Generator> generator) {
  Tensor mask = at::empty_like(self, self.options().dtype(c10::ScalarType::Byte));
  mask.bernoulli_(keep, std::move(generator));
  return {self * mask * (1.0 / keep), mask};
}

Tensor masked_scale(const Tensor& self, const Tensor& mask, double scale) { return self * mask * scale; }

// Depthwise convolutions called by their own names.

Tensor conv_depthwise(const Tensor& self, const Tensor& weight, at::SymIntArrayRef, const OptionalTensor& bias,
                      at::SymIntArrayRef stride, at::SymIntArrayRef padding, at::SymIntArrayRef dilation) {
  const std::vector<c10::SymInt> no_output_padding(stride.size(), 0);
  return at::convolution_symint(self, weight, bias, stride, padding, dilation, /*transposed=*/false, no_output_padding,
                                self.sym_size(1));
}

// Products of narrow floats whose result is wanted wide: the accumulation is wide anyway.

Tensor mm_wide(const Tensor& self, const Tensor& other, c10::ScalarType dtype) {
  return at::mm(self.to(dtype), other.to(dtype));
}
Tensor bmm_wide(const Tensor& self, const Tensor& other, c10::ScalarType dtype) {
  return at::bmm(self.to(dtype), other.to(dtype));
}
Tensor addmm_wide(const Tensor& self, const Tensor& a, const Tensor& b, c10::ScalarType dtype, const at::Scalar& beta,
                  const at::Scalar& alpha) {
  return at::addmm(self.to(dtype), a.to(dtype), b.to(dtype), beta, alpha);
}
Tensor baddbmm_wide(const Tensor& self, const Tensor& a, const Tensor& b, c10::ScalarType dtype, const at::Scalar& beta,
                    const at::Scalar& alpha) {
  return at::baddbmm(self.to(dtype), a.to(dtype), b.to(dtype), beta, alpha);
}

Tensor& mm_wide_out(const Tensor& self, const Tensor& other, c10::ScalarType dtype, Tensor& out) {
  return at::mm_out(out, self.to(dtype), other.to(dtype));
}
Tensor& bmm_wide_out(const Tensor& self, const Tensor& other, c10::ScalarType dtype, Tensor& out) {
  return at::bmm_out(out, self.to(dtype), other.to(dtype));
}
Tensor& addmm_wide_out(const Tensor& self, const Tensor& a, const Tensor& b, c10::ScalarType dtype,
                       const at::Scalar& beta, const at::Scalar& alpha, Tensor& out) {
  return at::addmm_out(out, self.to(dtype), a.to(dtype), b.to(dtype), beta, alpha);
}
Tensor& baddbmm_wide_out(const Tensor& self, const Tensor& a, const Tensor& b, c10::ScalarType dtype,
                         const at::Scalar& beta, const at::Scalar& alpha, Tensor& out) {
  return at::baddbmm_out(out, self.to(dtype), a.to(dtype), b.to(dtype), beta, alpha);
}

// The parts of SyncBatchNorm. Statistics are float for half inputs, as on CUDA; channels are dimension 1.

c10::ScalarType wide_type(const Tensor& tensor) {
  const c10::ScalarType type = tensor.scalar_type();
  return type == c10::ScalarType::Half || type == c10::ScalarType::BFloat16 ? c10::ScalarType::Float : type;
}

std::vector<int64_t> all_but_channels(const Tensor& tensor) {
  std::vector<int64_t> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (d != 1) dims.push_back(d);
  }
  return dims;
}

Tensor per_channel(const Tensor& values, const Tensor& like) {
  std::vector<int64_t> shape(static_cast<size_t>(like.dim()), 1);
  shape[1] = -1;
  return values.reshape(shape);
}

std::tuple<Tensor, Tensor> batch_norm_stats(const Tensor& input, double eps) {
  auto [var, mean] = at::var_mean(input.to(wide_type(input)), all_but_channels(input), /*unbiased=*/false);
  return {std::move(mean), at::rsqrt(var + eps)};
}

Tensor batch_norm_elemt(const Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
                        const Tensor& mean, const Tensor& invstd, double /*eps*/) {
  Tensor out = (input.to(mean.scalar_type()) - per_channel(mean, input)) * per_channel(invstd, input);
  if (weight.has_value() && weight->defined()) out = out * per_channel(*weight, input);
  if (bias.has_value() && bias->defined()) out = out + per_channel(*bias, input);
  return out.to(input.scalar_type());
}

std::tuple<Tensor, Tensor> batch_norm_gather(const Tensor& /*input*/, const Tensor& mean, const Tensor& invstd,
                                             const OptionalTensor& running_mean, const OptionalTensor& running_var,
                                             double momentum, double eps, const Tensor& counts) {
  const Tensor n = counts.to(mean.scalar_type()).reshape({-1, 1});  // mean, invstd: one row per rank
  const Tensor total = n.sum();
  const Tensor all_mean = (mean * n).sum(0) / total;
  const Tensor var = invstd.pow(-2) - eps;
  const Tensor all_var = ((var + (mean - all_mean).pow(2)) * n).sum(0) / total;
  if (running_mean.has_value() && running_mean->defined()) {
    running_mean->mul_(1 - momentum).add_(all_mean.to(running_mean->scalar_type()), momentum);
  }
  if (running_var.has_value() && running_var->defined()) {
    running_var->mul_(1 - momentum).add_((all_var * (total / (total - 1))).to(running_var->scalar_type()), momentum);
  }
  return {all_mean, at::rsqrt(all_var + eps)};
}

std::tuple<Tensor, Tensor> batch_norm_gather_one_count(const Tensor& input, const Tensor& mean, const Tensor& invstd,
                                                       const OptionalTensor& running_mean,
                                                       const OptionalTensor& running_var, double momentum, double eps,
                                                       int64_t count) {
  const Tensor counts = at::zeros_like(mean.select(1, 0)).add_(count);
  return batch_norm_gather(input, mean, invstd, running_mean, running_var, momentum, eps, counts);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward_reduce(const Tensor& grad_out, const Tensor& input,
                                                                      const Tensor& mean, const Tensor& invstd,
                                                                      const OptionalTensor& weight, bool input_g,
                                                                      bool weight_g, bool bias_g) {
  const Tensor grad = grad_out.to(mean.scalar_type());
  const std::vector<int64_t> dims = all_but_channels(input);
  Tensor sum_dy = grad.sum(dims);
  Tensor sum_dy_xmu = (grad * (input.to(mean.scalar_type()) - per_channel(mean, input))).sum(dims);
  const bool affine = weight.has_value() && weight->defined();
  const c10::ScalarType type = affine ? weight->scalar_type() : mean.scalar_type();
  Tensor grad_weight = weight_g ? (sum_dy_xmu * invstd).to(type) : Tensor();
  Tensor grad_bias = bias_g ? sum_dy.clone().to(type) : Tensor();
  if (!input_g) return {Tensor(), Tensor(), std::move(grad_weight), std::move(grad_bias)};
  return {std::move(sum_dy), std::move(sum_dy_xmu), std::move(grad_weight), std::move(grad_bias)};
}

Tensor batch_norm_backward_elemt(const Tensor& grad_out, const Tensor& input, const Tensor& mean, const Tensor& invstd,
                                 const OptionalTensor& weight, const Tensor& sum_dy, const Tensor& sum_dy_xmu,
                                 const Tensor& count) {
  const c10::ScalarType type = mean.scalar_type();
  const Tensor total = count.sum().to(type);
  const Tensor mean_dy = per_channel(sum_dy / total, input);
  const Tensor slope = per_channel(sum_dy_xmu / total * invstd * invstd, input);
  Tensor factor = invstd;
  if (weight.has_value() && weight->defined()) factor = invstd * *weight;
  const Tensor centred = input.to(type) - per_channel(mean, input);
  return ((grad_out.to(type) - mean_dy - centred * slope) * per_channel(factor, input)).to(input.scalar_type());
}

bool never_cudnn_ctc(const Tensor&, const Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t) { return false; }
bool never_cudnn_ctc_tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t) { return false; }

}  // namespace

void register_substitutes() {
  static const auto* const library = [] {
    auto* cpu = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
    cpu->impl("_thnn_fused_lstm_cell", lstm_cell);
    cpu->impl("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward);
    cpu->impl("_thnn_fused_gru_cell", gru_cell);
    cpu->impl("_thnn_fused_gru_cell_backward", gru_cell_backward);
    cpu->impl("_fused_dropout", fused_dropout);
    cpu->impl("_masked_scale", masked_scale);
    cpu->impl("_conv_depthwise2d", conv_depthwise);
    cpu->impl("conv_depthwise3d", conv_depthwise);
    cpu->impl("mm.dtype", mm_wide);
    cpu->impl("bmm.dtype", bmm_wide);
    cpu->impl("addmm.dtype", addmm_wide);
    cpu->impl("baddbmm.dtype", baddbmm_wide);
    cpu->impl("mm.dtype_out", mm_wide_out);
    cpu->impl("bmm.dtype_out", bmm_wide_out);
    cpu->impl("addmm.dtype_out", addmm_wide_out);
    cpu->impl("baddbmm.dtype_out", baddbmm_wide_out);
    cpu->impl("batch_norm_stats", batch_norm_stats);
    cpu->impl("batch_norm_elemt", batch_norm_elemt);
    cpu->impl("batch_norm_gather_stats", batch_norm_gather_one_count);
    cpu->impl("batch_norm_gather_stats_with_counts", batch_norm_gather);
    cpu->impl("batch_norm_backward_reduce", batch_norm_backward_reduce);
    cpu->impl("batch_norm_backward_elemt", batch_norm_backward_elemt);
    cpu->impl("_use_cudnn_ctc_loss", never_cudnn_ctc);
    cpu->impl("_use_cudnn_ctc_loss.Tensor", never_cudnn_ctc_tensor);
    cpu->impl("_use_miopen_ctc_loss", never_cudnn_ctc);
    cpu->impl("_use_miopen_ctc_loss.Tensor", never_cudnn_ctc_tensor);
    add_attention(*cpu);
    return cpu;  // never freed: our libraries are never unloaded
  }();
  static_cast<void>(library);
}

}  // namespace waldo::torch_backend
