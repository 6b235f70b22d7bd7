// The fused forms of attention, which only CUDA has, on a CPU. Where the CPU has a fused kernel of its own it computes
// them, as it would for a program without CUDA; everything else is written out in float (double for double), with the
// formulas of FlashAttention-2 (Dao 2023, equations of section 2): S = scale·QKᵀ + bias, P = softmax(S),
// dS = P∘(dP − rowsum(dP∘P)).
//
// Dropout draws its seed from the device's generator and its mask from a generator of that seed, so that the backward
// draws the same again; the mask is not the one that CUDA's Philox would draw.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_safe_softmax.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "server/backends/torch/substitutes.h"

namespace waldo::torch_backend {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kRowsAtOnce = 32;  // the logsumexp of mem-efficient attention has a multiple of these

// query [batch, heads, rows, width]; key, value [batch, heads or a divisor of them, columns, width].
struct Attention {
  Tensor query, key, value;
  OptionalTensor bias;  // broadcasts to [batch, heads, rows, columns]; bool: where to attend
  bool is_causal = false;
  std::optional<double> scale;
  double dropout = 0;
  int64_t seed = 0;

  int64_t heads_per_key() const { return key.size(1) == 0 ? 1 : query.size(1) / key.size(1); }
  double factor() const { return scale.value_or(1 / std::sqrt(static_cast<double>(query.size(-1)))); }
};

struct Forward {
  Tensor out, logsumexp;  // like query with value's width; float [batch, heads, rows]
};
struct Backward {
  Tensor query, key, value, bias;
};

bool defined(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

Tensor wide(const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

// Each head of key or value for every head of the query that shares it.
Tensor for_all_heads(const Tensor& tensor, const Attention& call) {
  return call.heads_per_key() == 1 ? tensor : tensor.repeat_interleave(call.heads_per_key(), 1);
}
Tensor summed_over_sharing(const Tensor& grad, const Tensor& like, int64_t sharing) {
  return sharing == 1 ? grad : grad.unflatten(1, {like.size(1), sharing}).sum(2);
}

void check(const Attention& call) {
  TORCH_CHECK(call.query.dim() == 4 && call.key.dim() == 4 && call.value.dim() == 4,
              "attention: query, key and value must have 4 dimensions");
  TORCH_CHECK(call.key.size(1) > 0 && call.query.size(1) % call.key.size(1) == 0 &&
                  call.key.size(1) == call.value.size(1) && call.query.size(0) == call.key.size(0) &&
                  call.query.size(0) == call.value.size(0) && call.key.size(2) == call.value.size(2) &&
                  call.query.size(3) == call.key.size(3),
              "attention: sizes of query ", call.query.sizes(), ", key ", call.key.sizes(), " and value ",
              call.value.sizes(), " do not fit together");
}

bool cpu_has_a_kernel(const Attention& call) {
  return call.dropout == 0 && call.query.size(3) == call.value.size(3) && call.query.size(2) > 0 &&
         call.key.size(2) > 0 && call.query.stride(-1) == 1 && call.key.stride(-1) == 1 && call.value.stride(-1) == 1 &&
         (!defined(call.bias) || call.bias->dim() == 2 || call.bias->dim() == 4);
}

Tensor kept(const Attention& call) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(call.seed));
  const auto sizes = {call.query.size(0), call.query.size(1), call.query.size(2), call.key.size(2)};
  Tensor mask = at::empty(sizes, wide(call.query).options());
  return mask.bernoulli_(1 - call.dropout, generator).div_(1 - call.dropout);
}

Tensor scores(const Attention& call, const Tensor& query, const Tensor& key) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  Tensor result = at::matmul(query, key.transpose(-2, -1)).mul_(call.factor());
  if (defined(call.bias)) {
    result = call.bias->scalar_type() == at::kBool ? result.masked_fill_(call.bias->logical_not(), kNever)
                                                   : result.add_(wide(*call.bias));
  }
  if (call.is_causal) {
    const Tensor seen = at::ones({query.size(2), key.size(2)}, query.options().dtype(at::kBool)).tril_();
    result.masked_fill_(seen.logical_not_(), kNever);
  }
  return result;
}

Forward forward(const Attention& call) {
  check(call);
  if (cpu_has_a_kernel(call)) {
    auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(call.query, call.key, call.value, 0,
                                                                            call.is_causal, call.bias, call.scale);
    return {std::move(out), logsumexp.to(at::kFloat).contiguous()};
  }
  const Tensor key = for_all_heads(call.key, call), value = for_all_heads(call.value, call);
  const Tensor all = scores(call, wide(call.query), wide(key));
  Tensor weights = at::_safe_softmax(all, -1);
  if (call.dropout > 0) weights = weights * kept(call);
  return {at::matmul(weights, wide(value)).to(call.query.scalar_type()), at::logsumexp(all, {-1}).to(at::kFloat)};
}

Backward backward(const Attention& call, const Tensor& grad_out, const Tensor& out, const Tensor& logsumexp,
                  bool bias_too) {
  check(call);
  if (cpu_has_a_kernel(call) && !bias_too) {
    const Tensor rows_first = logsumexp.transpose(1, 2).contiguous().transpose(1, 2).to(
        call.query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, call.query, call.key, call.value, out, rows_first, 0, call.is_causal, call.bias, call.scale);
    return {std::move(dq), std::move(dk), std::move(dv), {}};
  }
  const int64_t sharing = call.heads_per_key();
  const Tensor key = for_all_heads(call.key, call), value = for_all_heads(call.value, call);
  const Tensor q = wide(call.query), k = wide(key), v = wide(value), grad = wide(grad_out);
  const Tensor weights = at::_safe_softmax(scores(call, q, k), -1);
  Tensor used = weights, grad_weights = at::matmul(grad, v.transpose(-2, -1));
  if (call.dropout > 0) {
    const Tensor mask = kept(call);
    used = weights * mask;
    grad_weights = grad_weights * mask;
  }
  const Tensor grad_scores = weights * (grad_weights - (grad_weights * weights).sum(-1, /*keepdim=*/true));
  const auto type = call.query.scalar_type();
  Backward result;
  result.query = at::matmul(grad_scores, k).mul_(call.factor()).to(type);
  result.key =
      summed_over_sharing(at::matmul(grad_scores.transpose(-2, -1), q), call.key, sharing).mul(call.factor()).to(type);
  result.value = summed_over_sharing(at::matmul(used.transpose(-2, -1), grad), call.value, sharing).to(type);
  if (bias_too) result.bias = at::sum_to(grad_scores, call.bias->sizes()).to(call.bias->scalar_type());
  return result;
}

// The layouts in which CUDA returns its results: a client foretells them.
Tensor rows_before_heads(const Tensor& tensor) {
  const Tensor swapped = tensor.transpose(1, 2);
  return swapped.is_contiguous() ? tensor : swapped.contiguous().transpose(1, 2);
}
Tensor in_order_of(const Tensor& like, const Tensor& tensor) {
  Tensor result = at::empty_like(like, tensor.options());
  if (result.strides() == tensor.strides()) return tensor;
  return result.copy_(tensor);
}

int64_t drawn_seed(double dropout) {
  return dropout > 0 ? at::empty({}, at::kLong).random_().item<int64_t>() : 0;  // NOLINT: on the CPU, no wait
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor> flash(
    const Tensor& query, const Tensor& key, const Tensor& value, double dropout, bool is_causal, bool debug_mask,
    std::optional<double> scale) {
  TORCH_CHECK_NOT_IMPLEMENTED(!debug_mask, "attention: return_debug_mask is not available on a CPU worker");
  const Attention call{query, key, value, std::nullopt, is_causal, scale, dropout, drawn_seed(dropout)};
  Forward result = forward(call);
  const auto counter = at::dtype(at::kUInt64);
  const Tensor state = at::full({2}, call.seed, at::kLong).view(at::kUInt64);
  return {in_order_of(query, result.out),
          std::move(result.logsumexp),
          Tensor(),
          Tensor(),
          query.sym_size(2),
          key.sym_size(2),
          state,
          at::zeros({}, counter),
          at::empty({0}, query.options())};
}

std::tuple<Tensor, Tensor, Tensor> flash_backward(const Tensor& grad_out, const Tensor& query, const Tensor& key,
                                                  const Tensor& value, const Tensor& out, const Tensor& logsumexp,
                                                  const Tensor& /*cum_seq_q*/, const Tensor& /*cum_seq_k*/,
                                                  c10::SymInt /*max_q*/, c10::SymInt /*max_k*/, double dropout,
                                                  bool is_causal, const Tensor& rng_state, const Tensor& /*unused*/,
                                                  std::optional<double> scale) {
  Attention call{query, key, value, std::nullopt, is_causal, scale, dropout, 0};
  if (dropout > 0) call.seed = rng_state.view(at::kLong)[0].item<int64_t>();
  const Backward grads = backward(call, grad_out, out, logsumexp, false);
  return {in_order_of(query, grads.query), in_order_of(key, grads.key), in_order_of(value, grads.value)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient(const Tensor& query, const Tensor& key, const Tensor& value,
                                                     const OptionalTensor& bias, bool wants_logsumexp, double dropout,
                                                     bool is_causal, std::optional<double> scale) {
  const Attention call{query, key, value, bias, is_causal, scale, dropout, drawn_seed(dropout)};
  const Forward result = forward(call);
  const int64_t rows = query.size(2);
  const int64_t kept_rows = wants_logsumexp ? (rows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce : 0;
  Tensor logsumexp = at::full({query.size(0), query.size(1), kept_rows}, std::numeric_limits<float>::infinity(),
                              query.options().dtype(at::kFloat));
  if (wants_logsumexp) logsumexp.narrow(2, 0, rows).copy_(result.logsumexp);
  return {rows_before_heads(result.out), std::move(logsumexp), at::full({}, call.seed, at::kLong),
          at::zeros({}, at::kLong)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient_backward(
    const Tensor& grad_out, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& bias,
    const Tensor& out, const Tensor& logsumexp, const Tensor& seed, const Tensor& /*offset*/, double dropout,
    std::array<bool, 4> wanted, bool is_causal, std::optional<double> scale) {
  if (!grad_out.defined()) return {};
  Attention call{query, key, value, bias, is_causal, scale, dropout, 0};
  if (dropout > 0) call.seed = seed.item<int64_t>();
  TORCH_CHECK(logsumexp.size(-1) >= query.size(2), "attention: a backward needs the logsumexp of its forward");
  Backward grads = backward(call, grad_out, out, logsumexp.narrow(2, 0, query.size(2)), wanted[3] && bias.defined());
  return {rows_before_heads(grads.query), rows_before_heads(grads.key), rows_before_heads(grads.value),
          std::move(grads.bias)};
}

}  // namespace

void add_attention(torch::Library& cpu) {
  cpu.impl("_scaled_dot_product_flash_attention", flash);
  cpu.impl("_scaled_dot_product_flash_attention_backward", flash_backward);
  cpu.impl("_scaled_dot_product_efficient_attention", efficient);
  cpu.impl("_scaled_dot_product_efficient_attention_backward", efficient_backward);
}

}  // namespace waldo::torch_backend
