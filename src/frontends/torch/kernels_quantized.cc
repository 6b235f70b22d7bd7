#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/quantized/AffineQuantizer.h>
#include <ATen/ops/_empty_affine_quantized.h>
#include <ATen/ops/_empty_per_channel_affine_quantized.h>
#include <ATen/ops/empty.h>
#include <ATen/quantized/QTensorImpl.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "frontends/torch/kernels_made_of.h"
#include "frontends/torch/op_table.h"
#include "frontends/torch/quantized.h"

// The kernels of quantized tensors: PyTorch's own where one function is for every device, these, or the worker's.

namespace waldo::torch_frontend {
namespace {

using at::Tensor;
using c10::DispatchKey;

// PyTorch's functions for the CPU that are CUDA's too, or read nothing themselves.
const std::unordered_set<std::string> kForEveryDevice = {
    "aten::as_strided",
    "aten::_reshape_alias",
    "aten::view",
    "aten::unfold",
    "aten::squeeze",
    "aten::squeeze.dim",
    "aten::squeeze.dims",
    "aten::unsqueeze",
    "aten::empty.memory_format",
    "aten::empty_strided",
    "aten::empty_like",
    "aten::empty_quantized",
    "aten::_empty_affine_quantized",
    "aten::_empty_per_channel_affine_quantized",
    "aten::set_.source_Storage_storage_offset",
    "aten::dequantize.self",
    "aten::dequantize.tensors",
    "aten::qscheme",
    "aten::q_scale",
    "aten::q_zero_point",
    "aten::q_per_channel_scales",
    "aten::q_per_channel_zero_points",
    "aten::q_per_channel_axis",
};
const std::unordered_set<std::string> kMakers = {
    "aten::quantize_per_tensor",         "aten::quantize_per_tensor.tensor_qparams",
    "aten::quantize_per_tensor.tensors", "aten::quantize_per_tensor_dynamic",
    "aten::quantize_per_channel",
};
const std::unordered_set<std::string> kByHand = {"aten::int_repr", "aten::clone", "aten::resize_", "aten::copy_"};

// These take plain tensors and packed weights.
const std::unordered_set<std::string> kOfPlain = {
    "aten::quantized_lstm.input",
    "aten::quantized_lstm.data",
    "aten::quantized_gru.input",
    "aten::quantized_gru.data",
    "quantized::linear_dynamic",
    "quantized::linear_relu_dynamic",
    "quantized::linear_dynamic_fp16",
    "quantized::linear_relu_dynamic_fp16",
    "quantized::conv1d_dynamic",
    "quantized::conv2d_dynamic",
    "quantized::conv3d_dynamic",
    "quantized::conv_transpose1d_dynamic",
    "quantized::conv_transpose2d_dynamic",
    "quantized::conv_transpose3d_dynamic",
    "quantized::quantized_lstm_cell_dynamic",
    "quantized::quantized_gru_cell_dynamic",
    "quantized::quantized_rnn_relu_cell_dynamic",
    "quantized::quantized_rnn_tanh_cell_dynamic",
};

class FarKernel final : public c10::OperatorKernel {
 public:
  explicit FarKernel(const c10::OperatorHandle& handle) : op_(handle) {}
  void operator()(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack* stack) {
    call_quantized(op_, stack);
  }

 private:
  const Operator op_;
};

// Weights are packed here, and sent by what uses them: their form depends on the processor.
class PackKernel final : public c10::OperatorKernel {
 public:
  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
    const size_t count = op.schema().arguments().size();
    for (size_t i = stack->size() - count; i < stack->size(); ++i) {
      c10::IValue& value = (*stack)[i];
      if (value.isTensor() && value.toTensor().defined()) value = value.toTensor().cpu();
    }
    op.callBoxed(stack);
  }
};

// Where a call makes its tensors: on the device it names, else on that of its first tensor.
c10::OptionalDeviceGuard guard_of(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  std::optional<c10::Device> found;
  for (size_t i = stack.size() - op.schema().arguments().size(); i < stack.size(); ++i) {
    const c10::IValue& value = stack[i];
    if (value.isDevice()) {
      found = value.toDevice();
      break;
    }
    if (!found && value.isTensor() && value.toTensor().defined()) found = value.toTensor().device();
    if (!found && value.isTensorList() && !value.toTensorList().empty()) found = value.toTensorList().get(0).device();
  }
  return found && found->is_cuda() && found->has_index() ? c10::OptionalDeviceGuard(*found)
                                                         : c10::OptionalDeviceGuard();
}

class SameKernel final : public c10::OperatorKernel {
 public:
  explicit SameKernel(c10::SafeKernelFunction kernel) : kernel_(std::move(kernel)) {}
  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    const auto guard = guard_of(op, *stack);
    kernel_.callBoxed(op, keys, stack);
  }

 private:
  const c10::SafeKernelFunction kernel_;
};

const Operator& operator_named(const char* name, const char* overload) {
  return *new Operator(c10::Dispatcher::singleton().findSchemaOrThrow(name, overload));
}

// `target` is a tensor that was just made, and its values are these.
void adopt(const Tensor& target, const Tensor& made) {
  const Tensor plain = target.is_quantized() ? integers_of(target) : target;
  if (target.storage().use_count() <= 2 && made.strides() == plain.strides() && made.storage_offset() == 0 &&
      target.storage_offset() == 0 && made.sizes() == plain.sizes()) {  // `target` and `plain`
    target.unsafeGetTensorImpl()->set_storage_keep_dtype(made.storage());
  } else {
    Tensor(plain).copy_(made);
  }
}

void quantize_per_tensor(const Tensor& from, Tensor& to, double scale, int64_t zero_point) {
  static const auto& op = operator_named("aten::quantize_per_tensor", "");
  const auto dtype = static_cast<int64_t>(to.scalar_type());
  adopt(to, call_known(op, {from, scale, zero_point, dtype}, {scale, zero_point, to.scalar_type()}));
}
void quantize_packed(const Tensor& from, Tensor& to, float scale, float zero_point) {
  quantize_per_tensor(from, to, scale, static_cast<int64_t>(zero_point));
}
void quantize_per_channel(const Tensor& from, Tensor& to, const Tensor& scales, const Tensor& zero_points,
                          int64_t axis) {
  static const auto& op = operator_named("aten::quantize_per_channel", "");
  adopt(to, call_known(op,
                       {from, scales.to(from.device()), zero_points.to(from.device()), axis,
                        static_cast<int64_t>(to.scalar_type())},
                       {kByChannel, axis, to.scalar_type()}));
}

void dequantize(const Tensor& from, Tensor& to) {
  static const auto& op = operator_named("aten::dequantize", "self");
  adopt(to, call_known(op, {from}, {}));
}
void dequantize_per_tensor(const Tensor& from, Tensor& to, double, int64_t) { dequantize(from, to); }
void dequantize_packed(const Tensor& from, Tensor& to, float, float) { dequantize(from, to); }
void dequantize_per_channel(const Tensor& from, Tensor& to, const Tensor&, const Tensor&, int64_t) {
  dequantize(from, to);
}

Tensor int_repr(const Tensor& self) {
  const Tensor integers = integers_of(self);
  if (!is_packed(self.scalar_type())) {
    Tensor made = at::empty(self.sizes(), integers.options().memory_format(self.suggest_memory_format()));
    return made.copy_(integers);
  }
  const int64_t per_byte = self.scalar_type() == at::kQUInt4x2 ? 2 : 4;
  return integers.narrow(0, 0, (self.numel() + per_byte - 1) / per_byte).clone();
}

Tensor& copy(Tensor& self, const Tensor& src, bool non_blocking) {
  if (self.is_same(src)) return self;
  TORCH_CHECK(self.is_quantized(),
              "Copying from quantized Tensor to non-quantized Tensor is not allowed, please use dequantize to get a "
              "float Tensor from a quantized Tensor");
  if (!src.is_quantized()) {
    TORCH_CHECK(src.scalar_type() == at::kFloat, "Quantized copy only works with kFloat as source Tensor");
    TORCH_CHECK((self.is_contiguous() && src.is_contiguous()) || (self.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                                                                  src.is_contiguous(at::MemoryFormat::ChannelsLast)),
                "Quantized copy only works with contiguous and NHWC Tensors");
    TORCH_CHECK(self.sizes().equals(src.sizes()), "Quantized copy only works with Tensors with the same shape");
    const Tensor quantized = at::get_qtensorimpl(self)->quantizer()->quantize(src.to(self.device()));
    integers_of(self).copy_(integers_of(quantized), non_blocking);
    return self;
  }
  TORCH_CHECK(self.qscheme() == src.qscheme(), "Quantized Copy only works with same qscheme");
  TORCH_CHECK(self.scalar_type() == src.scalar_type());
  at::set_quantizer_(self, at::get_qtensorimpl(src)->quantizer());
  integers_of(self).copy_(integers_of(src), non_blocking);
  return self;
}

Tensor clone(const Tensor& self, std::optional<at::MemoryFormat> wanted) {
  auto format = wanted.value_or(at::MemoryFormat::Contiguous);
  if (format == at::MemoryFormat::Preserve) format = self.suggest_memory_format();
  const auto scheme = self.qscheme();
  TORCH_CHECK(scheme == at::kPerTensorAffine || scheme == at::kPerChannelAffine,
              "clone for quantized Tensor only works for PerTensorAffine and PerChannelAffine qscheme right now");
  Tensor made = scheme == at::kPerTensorAffine
                    ? at::_empty_affine_quantized(self.sizes(), self.options().memory_format(format), self.q_scale(),
                                                  self.q_zero_point(), std::nullopt)
                    : at::_empty_per_channel_affine_quantized(
                          self.sizes(), self.q_per_channel_scales(), self.q_per_channel_zero_points(),
                          self.q_per_channel_axis(), self.options().memory_format(format), std::nullopt);
  return made.copy_(self);
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(self.qscheme() == at::kPerTensorAffine, "Can only resize quantized tensors with per-tensor schemes!");
  TORCH_CHECK_NOT_IMPLEMENTED(!is_packed(self.scalar_type()), "resize_ of a ", self.scalar_type(),
                              " tensor is not available on a Waldo device");
  const Tensor integers = integers_of(self);
  integers.resize_(size, format);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(integers.sizes(), integers.strides(), integers.storage_offset());
  return self;
}

Tensor made_per_tensor(const Tensor& self, double scale, int64_t zero_point) {
  const Tensor made = at::_empty_affine_quantized(
      self.sizes(), self.options().dtype(c10::toQIntType(self.scalar_type())), scale, zero_point);
  integers_of(made).copy_(self);
  return made;
}
Tensor made_per_channel(const Tensor& self, const Tensor& scales, const Tensor& zero_points, int64_t axis) {
  const Tensor made = at::_empty_per_channel_affine_quantized(
      self.sizes(), scales, zero_points, axis, self.options().dtype(c10::toQIntType(self.scalar_type())));
  integers_of(made).copy_(self);
  return made;
}

// Never freed, as ours are never unloaded.
torch::Library& library_of(const std::string& name_space, DispatchKey key) {
  static auto* libraries = new std::unordered_map<std::string, std::unique_ptr<torch::Library>>();
  auto& library = (*libraries)[name_space + c10::toString(key)];
  if (!library) library = std::make_unique<torch::Library>(torch::Library::IMPL, name_space, key, __FILE__, __LINE__);
  return *library;
}

template <typename Kernel, typename... Arguments>
void put(const c10::OperatorHandle& handle, DispatchKey key, Arguments&&... arguments) {
  const auto& name = handle.operator_name();
  const size_t colons = name.name.find("::");
  std::string own = name.name.substr(colons + 2);
  if (!name.overload_name.empty()) own += "." + name.overload_name;
  library_of(name.name.substr(0, colons), key)
      .impl(own.c_str(), torch::CppFunction::makeFromBoxedKernel(c10::BoxedKernel::makeFromFunctor(
                             std::make_unique<Kernel>(std::forward<Arguments>(arguments)...))));
}

void put_kernel(const c10::OperatorHandle& handle) {
  const auto& operator_name = handle.operator_name();
  std::string name = operator_name.name;
  if (!operator_name.overload_name.empty()) name += "." + operator_name.overload_name;
  const bool packs = name.find("prepack") != std::string::npos;
  if (kMakers.contains(name) && handle.hasKernelForDispatchKey(DispatchKey::CPU))
    put<SameKernel>(handle, DispatchKey::CUDA, handle.getComputedKernelForDispatchKey(DispatchKey::CPU));
  if (kOfPlain.contains(name) && handle.hasKernelForDispatchKey(DispatchKey::CPU))
    put<FarKernel>(handle, DispatchKey::CUDA, handle);
  if (name.starts_with("quantized::linear_prepack") && handle.hasKernelForDispatchKey(DispatchKey::CPU))
    put<PackKernel>(handle, DispatchKey::CUDA);
  if (!handle.hasKernelForDispatchKey(DispatchKey::QuantizedCPU) || kByHand.contains(name)) return;
  if (kForEveryDevice.contains(name)) {
    put<SameKernel>(handle, DispatchKey::QuantizedCUDA,
                    handle.getComputedKernelForDispatchKey(DispatchKey::QuantizedCPU));
  } else if (packs) {
    put<PackKernel>(handle, DispatchKey::QuantizedCUDA);
  } else {
    put<FarKernel>(handle, DispatchKey::QuantizedCUDA, handle);
  }
}

}  // namespace

void register_quantized_kernels() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const bool ours = name.name.starts_with("aten::") || name.name.starts_with("quantized::") ||
                      name.name.starts_with("_quantized::");
    if (const auto handle = dispatcher.findSchema(name); ours && handle) put_kernel(*handle);
  }
  auto& quantized = library_of(DispatchKey::QuantizedCUDA);
  quantized.impl("int_repr", TORCH_FN(int_repr));
  quantized.impl("copy_", TORCH_FN(copy));
  quantized.impl("clone", TORCH_FN(clone));
  quantized.impl("resize_", TORCH_FN(resize));
  auto& plain = library_of(DispatchKey::CUDA);
  plain.impl("_make_per_tensor_quantized_tensor", TORCH_FN(made_per_tensor));
  plain.impl("_make_per_channel_quantized_tensor", TORCH_FN(made_per_channel));
  at::native::quantize_tensor_per_tensor_affine_stub.set_cuda_dispatch_ptr(&quantize_per_tensor);
  at::native::quantize_tensor_per_channel_affine_stub.set_cuda_dispatch_ptr(&quantize_per_channel);
  at::native::quantize_tensor_per_channel_float_qparams_stub.set_cuda_dispatch_ptr(&quantize_per_channel);
  at::native::quantize_tensor_per_tensor_affine_sub_byte_stub.set_cuda_dispatch_ptr(&quantize_packed);
  at::native::dequantize_tensor_per_tensor_affine_stub.set_cuda_dispatch_ptr(&dequantize_per_tensor);
  at::native::dequantize_tensor_per_channel_affine_stub.set_cuda_dispatch_ptr(&dequantize_per_channel);
  at::native::dequantize_tensor_per_channel_float_qparams_stub.set_cuda_dispatch_ptr(&dequantize_per_channel);
  at::native::dequantize_tensor_per_tensor_affine_sub_byte_stub.set_cuda_dispatch_ptr(&dequantize_packed);
}

}  // namespace waldo::torch_frontend
