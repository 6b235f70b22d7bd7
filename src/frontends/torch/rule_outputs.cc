#include "frontends/torch/rule_outputs.h"

#include <ATen/EmptyTensor.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/strides.h>

#include <exception>

#include "frontends/torch/device.h"

namespace waldo::torch_frontend {
namespace {

// PyTorch's own answer, from tensors without data. Undefined when the sizes do not fit, or there are no elements.
at::Tensor iterated(std::initializer_list<at::Tensor> operands) {
  try {
    const at::AutoDispatchBelowADInplaceOrView below;
    at::TensorIteratorConfig config;
    config.set_check_mem_overlap(false).check_all_same_dtype(false).declare_static_dtype_and_device(
        at::kFloat, c10::Device(c10::DeviceType::Meta));
    config.add_owned_output(at::Tensor());
    for (const at::Tensor& operand : operands) {
      if (operand.numel() == 0) return {};  // keeps strides that nothing needs
      config.add_owned_const_input(at::detail::empty_strided_meta(operand.sizes(), operand.strides(), at::kFloat));
    }
    return config.build().output();
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace

void RuleOutputs::add(at::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides, bool is_contiguous) {
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
  told_.outputs.push_back(std::move(plan));
}

void RuleOutputs::contiguous(at::ScalarType dtype, c10::IntArrayRef sizes) {
  add(dtype, sizes, c10::contiguous_strides(sizes), true);
}

void RuleOutputs::strided(at::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  add(dtype, sizes, strides, strides == c10::IntArrayRef(c10::contiguous_strides(sizes)));
}

void RuleOutputs::integer(int64_t value) {
  OutputPlan plan;
  plan.kind = wire::OutputKind::kInt;
  plan.integer = value;
  told_.outputs.push_back(std::move(plan));
}

void RuleOutputs::in_format(at::ScalarType dtype, c10::IntArrayRef sizes, at::MemoryFormat format) {
  if (format == at::MemoryFormat::ChannelsLast) {
    add(dtype, sizes, c10::get_channels_last_strides_2d(sizes), false);
  } else if (format == at::MemoryFormat::ChannelsLast3d) {
    add(dtype, sizes, c10::get_channels_last_strides_3d(sizes), false);
  } else {
    contiguous(dtype, sizes);
  }
}

void RuleOutputs::like(const at::Tensor& tensor, at::ScalarType dtype) {
  if (tensor.is_contiguous()) {
    contiguous(dtype, tensor.sizes());
  } else {
    add(dtype, tensor.sizes(), tensor.strides(), false);
  }
}

bool RuleOutputs::pointwise(at::ScalarType dtype, std::initializer_list<at::Tensor> operands) {
  const at::Tensor made = iterated(operands);
  if (!made.defined()) return false;
  const bool plain_strides = made.strides() == c10::IntArrayRef(c10::contiguous_strides(made.sizes()));
  add(dtype, made.sizes(), made.strides(), plain_strides);
  return true;
}

bool RuleOutputs::into_strided(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype,
                               c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  const at::Tensor& out = tensor_at(arguments, place);
  if (out.scalar_type() != dtype) return false;
  if (out.sizes() != sizes) {
    if (out.numel() != 0) return false;
    told_.resizes.push_back({{place, -1}, sizes.vec(), strides.vec()});
  }
  OutputPlan plan;
  plan.kind = wire::OutputKind::kArgument;
  plan.place = {place, -1};
  told_.outputs.push_back(std::move(plan));
  return true;
}

bool RuleOutputs::into(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype, c10::IntArrayRef sizes) {
  return into_strided(arguments, place, dtype, sizes, c10::contiguous_strides(sizes));
}

bool RuleOutputs::pointwise_into(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype,
                                 std::initializer_list<at::Tensor> operands) {
  const at::Tensor made = iterated(operands);
  return made.defined() && into_strided(arguments, place, dtype, made.sizes(), made.strides());
}

bool named_dimensions(const c10::IValue& dims, int64_t dim, std::vector<bool>* chosen) {
  chosen->assign(static_cast<size_t>(dim), false);
  if (dims.isNone() || dims.toListRef().empty()) {
    chosen->assign(static_cast<size_t>(dim), true);
    return true;
  }
  for (const c10::IValue& value : dims.toListRef()) {
    const int64_t at = value.toInt() < 0 ? value.toInt() + dim : value.toInt();
    if (at < 0 || at >= dim || (*chosen)[static_cast<size_t>(at)]) return false;
    (*chosen)[static_cast<size_t>(at)] = true;
  }
  return true;
}

bool on_cpu_worker(const at::Tensor& tensor) { return device_info(tensor.device().index()).kind == "cpu"; }

at::ScalarType statistics_dtype(const at::Tensor& input, const c10::IValue& weight) {
  const auto dtype = input.scalar_type();
  if (dtype != at::kHalf && dtype != at::kBFloat16) return dtype;
  const bool mixed = present(weight) && weight.toTensor().scalar_type() == at::kFloat;
  return mixed || !on_cpu_worker(input) ? at::kFloat : dtype;
}

}  // namespace waldo::torch_frontend
