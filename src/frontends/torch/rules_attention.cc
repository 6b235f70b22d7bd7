// Rules for the fused forms of scaled_dot_product_attention, which no C++ Meta kernel of PyTorch tells. Sizes, layouts
// and dtypes are those of torch/_meta_registrations.py.
#include <ATen/ExpandUtils.h>

#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

constexpr int64_t kRowsAtOnce = 32;  // mem-efficient attention rounds the rows of its logsumexp up to these

bool fits(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  return query.dim() == 4 && key.dim() == 4 && value.dim() == 4 && query.size(0) == key.size(0) &&
         query.size(0) == value.size(0) && key.size(2) == value.size(2) && query.size(3) == key.size(3) &&
         query.numel() > 0 && key.numel() > 0 && value.numel() > 0;
}

// [batch, heads, rows, width], of which the rows lie in memory before the heads.
void rows_first(RuleOutputs& make, const at::Tensor& like, int64_t width) {
  const int64_t heads = like.size(1), rows = like.size(2);
  make.strided(like.scalar_type(), {like.size(0), heads, rows, width}, {rows * heads * width, width, heads * width, 1});
}

// As empty_like() does it: in the tensor's order of dimensions, without its gaps.
void in_order_of(RuleOutputs& make, const at::Tensor& tensor) {
  make.strided(tensor.scalar_type(), tensor.sizes(), at::infer_dense_strides(tensor.sizes(), tensor.strides()));
}

// (query, key, value, dropout_p, is_causal, return_debug_mask, scale)
bool flash(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &query = tensor_at(a, 0), &key = tensor_at(a, 1), &value = tensor_at(a, 2);
  if (!fits(query, key, value) || a[5].toBool()) return false;
  in_order_of(make, query);
  make.contiguous(at::kFloat, {query.size(0), query.size(1), query.size(2)});
  make.undefined();
  make.undefined();
  make.integer(query.size(2));
  make.integer(key.size(2));
  make.contiguous(at::kUInt64, {2});
  make.contiguous(at::kUInt64, {});
  make.contiguous(query.scalar_type(), {0});
  return true;
}

// (grad_out, query, key, value, …)
bool flash_backward(const c10::IValue* a, RuleOutputs& make) {
  if (!fits(tensor_at(a, 1), tensor_at(a, 2), tensor_at(a, 3))) return false;
  for (const size_t i : {1, 2, 3}) in_order_of(make, tensor_at(a, i));
  return true;
}

// (query, key, value, attn_bias, compute_log_sumexp, dropout_p, is_causal, scale)
bool efficient(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& query = tensor_at(a, 0);
  if (!fits(query, tensor_at(a, 1), tensor_at(a, 2))) return false;
  const int64_t rows = (query.size(2) + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce;
  rows_first(make, query, tensor_at(a, 2).size(3));
  make.contiguous(at::kFloat, {query.size(0), query.size(1), a[4].toBool() ? rows : 0});
  make.contiguous(at::kLong, {});
  make.contiguous(at::kLong, {});
  return true;
}

// (grad_out, query, key, value, attn_bias, out, logsumexp, seed, offset, dropout_p, grad_input_mask, is_causal, scale)
bool efficient_backward(const c10::IValue* a, RuleOutputs& make) {
  if (!fits(tensor_at(a, 1), tensor_at(a, 2), tensor_at(a, 3))) return false;
  if (a[10].toListRef()[3].toBool() && present(a[4])) return false;  // of the bias too: rare, and asked
  for (const size_t i : {1, 2, 3}) rows_first(make, tensor_at(a, i), tensor_at(a, i).size(3));
  make.undefined();
  return true;
}

}  // namespace

void add_attention_rules(RuleTable& rules) {
  rules.insert({
      {"aten::_scaled_dot_product_flash_attention", &flash},
      {"aten::_scaled_dot_product_flash_attention_backward", &flash_backward},
      {"aten::_scaled_dot_product_efficient_attention", &efficient},
      {"aten::_scaled_dot_product_efficient_attention_backward", &efficient_backward},
  });
}

}  // namespace waldo::torch_frontend
