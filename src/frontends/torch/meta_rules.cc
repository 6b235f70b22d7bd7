#include "frontends/torch/meta_rules.h"

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <unordered_map>

#include "frontends/torch/device.h"

namespace waldo::torch_frontend {
namespace {

using Outputs = std::vector<OutputPlan>;
using Sizes = c10::SmallVector<int64_t, 5>;

// Builds the outputs of one rule; each takes the next created slot.
class Maker {
 public:
  explicit Maker(Outputs* outputs) : outputs_(*outputs) {}

  void contiguous(at::ScalarType dtype, c10::IntArrayRef sizes) {
    std::vector<int64_t> strides(sizes.size());
    int64_t stride = 1;
    for (size_t i = sizes.size(); i-- > 0;) {
      strides[i] = stride;
      stride *= std::max<int64_t>(sizes[i], 1);
    }
    add(dtype, sizes, strides, true);
  }
  void in_format(at::ScalarType dtype, c10::IntArrayRef sizes, at::MemoryFormat format) {
    if (format == at::MemoryFormat::ChannelsLast) {
      add(dtype, sizes, c10::get_channels_last_strides_2d(sizes), false);
    } else if (format == at::MemoryFormat::ChannelsLast3d) {
      add(dtype, sizes, c10::get_channels_last_strides_3d(sizes), false);
    } else {
      contiguous(dtype, sizes);
    }
  }
  void like(const at::Tensor& tensor, at::ScalarType dtype) {
    if (tensor.is_contiguous()) {
      contiguous(dtype, tensor.sizes());
    } else {
      add(dtype, tensor.sizes(), tensor.strides(), false);
    }
  }
  void like(const at::Tensor& tensor) { like(tensor, tensor.scalar_type()); }
  void undefined() { outputs_.emplace_back(); }

 private:
  void add(at::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides, bool is_contiguous) {
    OutputPlan plan;
    plan.kind = wire::OutputKind::kNew;
    plan.dtype = dtype;
    plan.slot = next_++;
    plan.contiguous = is_contiguous;
    plan.sizes.assign(sizes.begin(), sizes.end());
    plan.strides.assign(strides.begin(), strides.end());
    uint64_t elements = 1;
    for (const int64_t size : sizes) elements *= static_cast<uint64_t>(size);
    plan.storage_bytes = elements * c10::elementSize(dtype);
    outputs_.push_back(std::move(plan));
  }

  Outputs& outputs_;
  uint16_t next_ = 0;
};

const at::Tensor& tensor_at(const c10::IValue* arguments, size_t i) { return arguments[i].toTensor(); }
bool present(const c10::IValue& value) { return value.isTensor() && value.toTensor().defined(); }

// Dense and in the order of a memory format: what empty_like() keeps as it is.
bool plain(const at::Tensor& tensor) { return tensor.is_non_overlapping_and_dense(); }

at::MemoryFormat format_of(const at::Tensor& tensor) { return tensor.suggest_memory_format(); }

bool index_select(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor& self = tensor_at(a, 0);
  const int64_t dim = a[1].toInt();
  if (self.dim() == 0 || dim < -self.dim() || dim >= self.dim() || tensor_at(a, 2).dim() > 1) return false;
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[static_cast<size_t>(dim < 0 ? dim + self.dim() : dim)] = tensor_at(a, 2).numel();
  Maker(outputs).contiguous(self.scalar_type(), sizes);
  return true;
}

int64_t along(const c10::IValue& list, size_t i) {
  const auto values = list.toListRef();
  return values[values.size() == 1 ? 0 : i].toInt();
}

bool convolution(const c10::IValue* a, Outputs* outputs) {
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
  Maker(outputs).in_format(input.scalar_type(), sizes, format);
  return true;
}

bool convolution_backward(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor &grad = tensor_at(a, 0), &input = tensor_at(a, 1), &weight = tensor_at(a, 2);
  if (input.dim() < 4) return false;
  const auto mask = a[10].toListRef();
  auto format = format_of(input) != at::MemoryFormat::Contiguous ? format_of(input) : format_of(weight);
  Maker make(outputs);
  mask[0].toBool() ? make.in_format(input.scalar_type(), input.sizes(), format) : make.undefined();
  mask[1].toBool() ? make.in_format(weight.scalar_type(), weight.sizes(), format) : make.undefined();
  mask[2].toBool() ? make.contiguous(grad.scalar_type(), {grad.size(1)}) : make.undefined();
  return true;
}

// What the statistics of a norm are kept in: CUDA in float for the small types, the CPU only beside float weights.
at::ScalarType statistics_dtype(const at::Tensor& input, const c10::IValue& weight) {
  const auto dtype = input.scalar_type();
  if (dtype != at::kHalf && dtype != at::kBFloat16) return dtype;
  const bool mixed = present(weight) && weight.toTensor().scalar_type() == at::kFloat;
  return mixed || device_info(input.device().index()).kind != "cpu" ? at::kFloat : dtype;
}

bool native_layer_norm(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor& input = tensor_at(a, 0);
  const size_t normalized = a[1].toListRef().size(), dim = static_cast<size_t>(input.dim());
  if (normalized == 0 || normalized > dim) return false;
  for (size_t i = 0; i < normalized; ++i) {
    if (a[1].toListRef()[i].toInt() != input.sizes()[dim - normalized + i]) return false;
  }
  Sizes statistics(input.sizes().begin(), input.sizes().end());
  std::fill(statistics.end() - static_cast<ptrdiff_t>(normalized), statistics.end(), 1);
  Maker make(outputs);
  make.contiguous(input.scalar_type(), input.sizes());
  make.contiguous(statistics_dtype(input, a[2]), statistics);
  make.contiguous(statistics_dtype(input, a[2]), statistics);
  return true;
}

// Gradients of input, weight and bias, by mask.
bool native_layer_norm_backward(const c10::IValue* a, Outputs* outputs) {
  const auto mask = a[7].toListRef();
  Maker make(outputs);
  mask[0].toBool() ? make.contiguous(tensor_at(a, 1).scalar_type(), tensor_at(a, 1).sizes()) : make.undefined();
  for (const size_t i : {5, 6}) {
    if (mask[i - 4].toBool() && !present(a[i])) return false;
    mask[i - 4].toBool() ? make.contiguous(tensor_at(a, i).scalar_type(), tensor_at(a, i).sizes()) : make.undefined();
  }
  return true;
}

bool native_dropout(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor& input = tensor_at(a, 0);
  if (!plain(input)) return false;
  Maker make(outputs);
  make.like(input);
  make.like(input, at::kBool);
  return true;
}

bool native_dropout_backward(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor &grad = tensor_at(a, 0), &mask = tensor_at(a, 1);
  if (!grad.is_contiguous() || !mask.is_contiguous() || grad.sizes() != mask.sizes()) return false;
  Maker(outputs).contiguous(grad.scalar_type(), grad.sizes());
  return true;
}

bool embedding_dense_backward(const c10::IValue* a, Outputs* outputs) {
  const at::Tensor& grad = tensor_at(a, 0);
  if (grad.dim() == 0) return false;
  Maker(outputs).contiguous(grad.scalar_type(), {a[2].toInt(), grad.size(-1)});
  return true;
}

bool where(const c10::IValue* a, Outputs* outputs) {
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor& tensor = tensor_at(a, i);
    if (!tensor.is_contiguous()) return false;
    if (tensor.dim() > 8) return false;
    const auto larger = std::max<size_t>(sizes.size(), static_cast<size_t>(tensor.dim()));
    for (size_t d = 0; d < std::min<size_t>(sizes.size(), static_cast<size_t>(tensor.dim())); ++d) {
      const int64_t mine = sizes[sizes.size() - 1 - d], other = tensor.size(tensor.dim() - 1 - static_cast<int64_t>(d));
      if (mine != other && mine != 1 && other != 1) return false;
    }
    sizes = larger == 0 ? sizes : at::infer_size(sizes, tensor.sizes());
  }
  const auto dtype = tensor_at(a, 1).scalar_type();
  if (tensor_at(a, 0).scalar_type() != at::kBool || dtype != tensor_at(a, 2).scalar_type()) return false;
  Maker(outputs).contiguous(dtype, sizes);
  return true;
}

}  // namespace

Rule rule_for(std::string_view op) {
  static const auto* rules = new std::unordered_map<std::string_view, Rule>{
      {"aten::index_select", &index_select},
      {"aten::convolution", &convolution},
      {"aten::convolution_backward", &convolution_backward},
      {"aten::native_layer_norm", &native_layer_norm},
      {"aten::native_layer_norm_backward", &native_layer_norm_backward},
      {"aten::native_dropout", &native_dropout},
      {"aten::native_dropout_backward", &native_dropout_backward},
      {"aten::embedding_dense_backward", &embedding_dense_backward},
      {"aten::where.self", &where},
  };
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
