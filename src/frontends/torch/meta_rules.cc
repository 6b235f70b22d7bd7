#include "frontends/torch/meta_rules.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace waldo::torch_frontend {
namespace {

bool index_select(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const int64_t dim = a[1].toInt();
  if (self.dim() == 0 || dim < -self.dim() || dim >= self.dim() || tensor_at(a, 2).dim() > 1) return false;
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[static_cast<size_t>(dim < 0 ? dim + self.dim() : dim)] = tensor_at(a, 2).numel();
  make.contiguous(self.scalar_type(), sizes);
  return true;
}

int64_t along(const c10::IValue& list, size_t i) {
  const auto values = list.toListRef();
  return values[values.size() == 1 ? 0 : i].toInt();
}

bool convolution(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 0), &weight = tensor_at(a, 1);
  const int64_t dim = input.dim();
  const bool transposed = a[6].toBool();
  const int64_t groups = a[8].toInt();
  if (dim < 4 || dim != weight.dim() || groups < 1) return false;  // 1-d runs as 2-d, in a layout of its own
  if (weight.size(transposed ? 0 : 1) * (transposed ? 1 : groups) != input.size(1))
    return false;  // an error: the worker says it
  if (present(a[2]) && tensor_at(a, 2).numel() != (transposed ? weight.size(1) * groups : weight.size(0))) return false;
  Sizes sizes{input.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  for (int64_t i = 2; i < dim; ++i) {
    const auto at = static_cast<size_t>(i - 2);
    const int64_t stride = along(a[3], at), padding = along(a[4], at), kernel = along(a[5], at) * (weight.size(i) - 1);
    if (stride < 1) return false;
    const int64_t size = transposed ? (input.size(i) - 1) * stride - 2 * padding + kernel + 1 + along(a[7], at)
                                    : (input.size(i) + 2 * padding - kernel - 1) / stride + 1;
    if (size < 1 || input.size(i) + 2 * padding < kernel + 1) return false;
    sizes.push_back(size);
  }
  const auto format = format_of(input) != at::MemoryFormat::Contiguous ? format_of(input) : format_of(weight);
  make.in_format(input.scalar_type(), sizes, format);
  return true;
}

bool convolution_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &input = tensor_at(a, 1), &weight = tensor_at(a, 2);
  // 1-d runs as 2-d; what is contiguous comes back so.
  if (input.dim() < 4 && !(input.dim() == 3 && all_contiguous({grad, input, weight}))) return false;
  const auto mask = a[10].toListRef();
  const auto format = format_of(input) != at::MemoryFormat::Contiguous ? format_of(input) : format_of(weight);
  mask[0].toBool() ? make.in_format(input.scalar_type(), input.sizes(), format) : make.undefined();
  mask[1].toBool() ? make.in_format(weight.scalar_type(), weight.sizes(), format) : make.undefined();
  mask[2].toBool() ? make.contiguous(grad.scalar_type(), {grad.size(1)}) : make.undefined();
  return true;
}

bool native_layer_norm(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  const size_t normalized = a[1].toListRef().size(), dim = static_cast<size_t>(input.dim());
  if (normalized == 0 || normalized > dim) return false;
  for (size_t i = 0; i < normalized; ++i) {
    if (a[1].toListRef()[i].toInt() != input.sizes()[dim - normalized + i]) return false;
  }
  Sizes statistics(input.sizes().begin(), input.sizes().end());
  std::fill(statistics.end() - static_cast<ptrdiff_t>(normalized), statistics.end(), 1);
  make.contiguous(input.scalar_type(), input.sizes());
  make.contiguous(statistics_dtype(input, a[2]), statistics);
  make.contiguous(statistics_dtype(input, a[2]), statistics);
  return true;
}

// Gradients of input, weight and bias, by mask.
bool native_layer_norm_backward(const c10::IValue* a, RuleOutputs& make) {
  const auto mask = a[7].toListRef();
  mask[0].toBool() ? make.contiguous(tensor_at(a, 1).scalar_type(), tensor_at(a, 1).sizes()) : make.undefined();
  for (const size_t i : {5, 6}) {
    if (mask[i - 4].toBool() && !present(a[i])) return false;
    mask[i - 4].toBool() ? make.contiguous(tensor_at(a, i).scalar_type(), tensor_at(a, i).sizes()) : make.undefined();
  }
  return true;
}

bool native_dropout(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  if (!plain(input)) return false;
  make.like(input);
  make.like(input, at::kBool);
  return true;
}

bool embedding_dense_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& grad = tensor_at(a, 0);
  if (grad.dim() == 0) return false;
  make.contiguous(grad.scalar_type(), {a[2].toInt(), grad.size(-1)});
  return true;
}

}  // namespace

void add_rules(RuleTable& rules) {
  rules.insert({
      {"aten::index_select", &index_select},
      {"aten::convolution", &convolution},
      {"aten::convolution_backward", &convolution_backward},
      {"aten::native_layer_norm", &native_layer_norm},
      {"aten::native_layer_norm_backward", &native_layer_norm_backward},
      {"aten::native_dropout", &native_dropout},
      {"aten::embedding_dense_backward", &embedding_dense_backward},
  });
}

Rule rule_for(std::string_view op) {
  static const auto* rules = [] {
    auto* table = new RuleTable();
    add_rules(*table);
    add_pointwise_rules(*table);
    add_norm_rules(*table);
    add_reduction_rules(*table);
    add_attention_rules(*table);
    add_shape_rules(*table);
    return table;
  }();
  const auto found = rules->find(op);
  return found == rules->end() ? nullptr : found->second;
}

bool outputs_are_arguments(const Operator& op, const c10::IValue* arguments, std::vector<OutputPlan>* outputs) {
  const auto& schema = op.handle.schema();
  if (!schema.name().ends_with('_')) return false;
  for (const auto& returned : schema.returns()) {
    const auto* alias = returned.alias_info();
    if (alias == nullptr || !alias->isWrite()) return false;
    size_t found = schema.arguments().size();
    for (size_t i = 0; i < schema.arguments().size(); ++i) {
      const auto* given = schema.arguments()[i].alias_info();
      if (given != nullptr && given->isWrite() && given->beforeSets() == alias->beforeSets()) found = i;
    }
    if (found == schema.arguments().size() || op.arguments[found] != ArgumentClass::kTensor ||
        !present(arguments[found])) {
      return false;
    }
    OutputPlan plan;
    plan.kind = wire::OutputKind::kArgument;
    plan.place = {static_cast<uint16_t>(found), -1};
    outputs->push_back(std::move(plan));
  }
  return std::any_of(op.written.begin(), op.written.end(), [](bool written) { return written; });
}

}  // namespace waldo::torch_frontend
