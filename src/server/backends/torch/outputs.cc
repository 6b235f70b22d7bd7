#include <ATen/core/List.h>
#include <ATen/ops/clone.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/queue.h"

namespace waldo::torch_backend {
namespace {

using wire::ErrorClass;
using wire::OutputKind;

std::string sizes_text(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

// Only this tensor holds the storage, and only we hold the tensor: it is no argument, no view, no other output.
bool unshared(const at::Tensor& tensor) { return tensor.use_count() == 1 && tensor.storage().use_count() == 1; }

// A prediction that the device did not keep. The client asks for such a plan from then on, as after a conform.
Status mismatch(std::string_view op, bool* conformed, std::string text) {
  *conformed = true;
  return device_error(ErrorClass::kRuntime, fmt::format("{}: {}", op, text), op);
}

}  // namespace

Status TorchQueue::take_outputs(Call& call) {
  const Plan& plan = call.plan;
  if (stack_.size() != plan.outputs.size()) {
    return Status(StatusKind::kInvalid, fmt::format("{}: the plan has {} outputs, the operator {}", plan.name,
                                                    plan.outputs.size(), stack_.size()));
  }
  for (size_t i = 0; i < stack_.size(); ++i) WALDO_TRY(take_output(call, plan.outputs[i], std::move(stack_[i]), i));
  return check_written(call, /*asked=*/false);
}

Status TorchQueue::take_output(Call& call, const OutputPlan& predicted, c10::IValue&& real, size_t number) {
  const std::string_view op = call.plan.name;
  switch (predicted.kind) {
    case OutputKind::kNone:
      return Status();  // the client did not want it
    case OutputKind::kNew:
    case OutputKind::kCpuNew:
      if (!real.isTensor()) return mismatch(op, call.conformed, fmt::format("output {} is no tensor", number));
      return take_new(call, predicted, std::move(real).toTensor(), number);
    case OutputKind::kArgument:
      return check_argument(call, predicted, real, number);
    case OutputKind::kViewOf:
      if (!real.isTensor()) return mismatch(op, call.conformed, fmt::format("output {} is no tensor", number));
      return check_view(call, predicted, real.toTensor(), number);
    case OutputKind::kInt:
      if (real.isInt() && real.toInt() == predicted.integer) return Status();
      return mismatch(op, call.conformed, fmt::format("output {} was predicted to be {}", number, predicted.integer));
    case OutputKind::kBool:
      if (real.isBool() && real.toBool() == (predicted.integer != 0 || predicted.number != 0)) return Status();
      return mismatch(op, call.conformed, fmt::format("output {} is not the predicted truth value", number));
    case OutputKind::kFloat:
      if (real.isDouble() && real.toDouble() == predicted.number) return Status();
      return mismatch(op, call.conformed, fmt::format("output {} was predicted to be {}", number, predicted.number));
    case OutputKind::kList: {
      if (!real.isTensorList()) return mismatch(op, call.conformed, fmt::format("output {} is no list", number));
      std::vector<at::Tensor> tensors = real.toTensorVector();
      real = c10::IValue();  // the list's own references would look like sharing
      if (tensors.size() != predicted.list.size()) {
        return mismatch(
            op, call.conformed,
            fmt::format("output {} has {} tensors, predicted were {}", number, tensors.size(), predicted.list.size()));
      }
      for (size_t i = 0; i < tensors.size(); ++i) {
        WALDO_TRY(take_output(call, predicted.list[i], c10::IValue(std::move(tensors[i])), number));
      }
      return Status();
    }
  }
  return Status(StatusKind::kInternal, "an output of a kind that nobody wrote");
}

// Hot: once per new tensor. The first condition holds nearly always.
Status TorchQueue::take_new(Call& call, const OutputPlan& predicted, at::Tensor tensor, size_t number) {
  const Geometry& geometry = *predicted.geometry;
  const Slot slot = call.slots[predicted.slot];
  if (!tensor.defined()) {
    return mismatch(call.plan.name, call.conformed,
                    fmt::format("output {} was predicted, the device made none", number));
  }
  if (tensor.key_set() != device_.plain_tensor_keys()) [[unlikely]]
    WALDO_TRY(ordinary(call, tensor));
  if (!geometry.same_sizes(tensor)) [[unlikely]] {
    return mismatch(call.plan.name, call.conformed,
                    fmt::format("the plan predicted sizes {} for output {}, the device made {}",
                                sizes_text(geometry.sizes), number, sizes_text(tensor.sizes())));
  }
  const bool as_predicted = tensor.scalar_type() == geometry.dtype && geometry.same_layout(tensor) &&
                            tensor.storage_offset() == predicted.offset &&
                            tensor.storage().nbytes() >= predicted.storage_bytes && !geometry.conj && !geometry.neg;
  if (as_predicted && unshared(tensor)) [[likely]] {
    made_.push_back(Made{slot, std::move(tensor), &geometry});
    return Status();
  }
  if (geometry.conj || geometry.neg) {
    return mismatch(call.plan.name, call.conformed, fmt::format("output {} was predicted to be lazy", number));
  }
  if (!as_predicted) *call.conformed = true;
  const c10::Storage storage = device_.allocate(predicted.storage_bytes);
  at::Tensor conformed = make_tensor(storage, geometry, predicted.offset, keys_for(storage));
  conformed.copy_(tensor);
  made_.push_back(Made{slot, std::move(conformed), &geometry});
  return Status();
}

Status TorchQueue::ordinary(Call& call, at::Tensor& tensor) const {
  const std::string_view op = call.plan.name;
  const auto unsupported = [&](std::string_view what) {
    StatusDetail detail;
    detail.error_class = static_cast<uint16_t>(ErrorClass::kNotImplemented);
    detail.op = std::string(op);
    return Status(StatusKind::kUnsupported, fmt::format("{}: the worker cannot keep a {} result", op, what),
                  std::move(detail));
  };
  if (tensor.layout() != c10::Layout::Strided || tensor.is_mkldnn()) return unsupported("sparse or opaque");
  if (tensor.is_quantized() || !dtype_of(tensor.scalar_type()).has_value()) return unsupported("quantized");
  if (tensor.is_nested() || !tensor.has_storage()) return unsupported("nested");
  if (tensor._is_zerotensor()) return unsupported("memoryless");
  if (!tensor.device().is_cpu() && tensor.device() != device_.device()) return unsupported("foreign device's");
  if (tensor.is_conj()) tensor = tensor.resolve_conj();
  if (tensor.is_neg()) tensor = tensor.resolve_neg();
  if (tensor.numel() > 0 && tensor.storage().data() == nullptr) return unsupported("memoryless");
  return Status();
}

Status TorchQueue::check_argument(Call& call, const OutputPlan& predicted, const c10::IValue& real, size_t number) {
  const at::Tensor* tensor = real.isTensor() ? &real.toTensor() : nullptr;
  if (tensor != nullptr && tensor->unsafeGetTensorImpl() == bound_[predicted.tensor_index]) return Status();
  return mismatch(call.plan.name, call.conformed,
                  fmt::format("output {} was predicted to be an argument, and is not", number));
}

Status TorchQueue::check_view(Call& call, const OutputPlan& predicted, const at::Tensor& real, size_t number) {
  const Geometry& geometry = *predicted.geometry;
  const SlotEntry* entry = find(call.slots[predicted.slot]);
  if (entry != nullptr && real.defined() && real.has_storage() && real.storage().is_alias_of(entry->storage) &&
      geometry.same_sizes(real) && geometry.same_layout(real) && real.scalar_type() == geometry.dtype &&
      real.storage_offset() == predicted.offset && real.is_conj() == geometry.conj && real.is_neg() == geometry.neg) {
    return Status();
  }
  return mismatch(call.plan.name, call.conformed,
                  fmt::format("output {} was predicted to be a view of an argument, and is not that one", number));
}

// An operator may give an out= (or in-place) argument other sizes. The tensors kept for its slot must not keep those,
// and a client that did not ask must not go on with the old ones.
Status TorchQueue::check_written(Call& call, bool asked) {
  for (const Step& step : call.plan.steps) {
    if (!step.written || (step.kind != Step::Kind::kTensor && !step.out)) continue;
    const uint32_t count = step.kind == Step::Kind::kTensor ? 1 : step.count;
    for (uint32_t t = step.first; t < step.first + count; ++t) {
      const TensorUse& use = call.plan.tensors[t];
      if (use.none || use.by_value) continue;
      const Slot slot = call.slots[use.slot];
      SlotEntry* entry = find(slot);
      if (entry == nullptr || slot.queue() != queue_) continue;
      if (step.out && entry->storage.nbytes() != entry->counted_bytes) count_bytes(*entry);
      for (SlotEntry::Built& built : entry->built) {
        if (built.geometry != use.geometry || built.tensor.unsafeGetTensorImpl() != bound_[t]) continue;
        const Geometry& geometry = *use.geometry;
        if (geometry.same_sizes(built.tensor) && built.tensor.strides() == at::IntArrayRef(geometry.strides) &&
            built.tensor.storage_offset() == built.offset && built.tensor.storage().is_alias_of(entry->storage)) {
          continue;
        }
        const std::string real = sizes_text(built.tensor.sizes());
        const bool resized = !geometry.same_sizes(built.tensor);
        entry->forget_built();
        if (resized && !asked) {
          return mismatch(call.plan.name, call.conformed,
                          fmt::format("the plan predicted sizes {} for an out argument, the device made {}",
                                      sizes_text(geometry.sizes), real));
        }
      }
    }
  }
  return Status();
}

Status TorchQueue::report_outputs(Call& call, wire::Report& report) {
  created_count_ = 0;
  report.outputs.resize(stack_.size());
  for (size_t i = 0; i < stack_.size(); ++i) {
    WALDO_TRY(report_output(call, std::move(stack_[i]), report.outputs[i]));
  }
  return check_written(call, /*asked=*/true);
}

Status TorchQueue::report_output(Call& call, c10::IValue&& real, wire::Output& output) {
  if (real.isNone()) return Status();
  if (real.isTensor()) return report_tensor(call, std::move(real).toTensor(), output);
  if (real.isInt()) {
    output.kind = OutputKind::kInt;
    output.integer = real.toInt();
    output.number = static_cast<double>(output.integer);
    return Status();
  }
  if (real.isBool()) {
    output.kind = OutputKind::kBool;
    output.integer = real.toBool() ? 1 : 0;
    output.number = static_cast<double>(output.integer);
    return Status();
  }
  if (real.isDouble()) {
    output.kind = OutputKind::kFloat;
    output.number = real.toDouble();
    return Status();
  }
  if (real.isTensorList()) {
    output.kind = OutputKind::kList;
    std::vector<at::Tensor> tensors = real.toTensorVector();
    real = c10::IValue();
    output.list.resize(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      WALDO_TRY(report_tensor(call, std::move(tensors[i]), output.list[i]));
    }
    return Status();
  }
  return Status(StatusKind::kUnsupported,
                fmt::format("{}: a result of type {} does not travel", call.plan.name, real.tagKind()));
}

Status TorchQueue::report_tensor(Call& call, at::Tensor tensor, wire::Output& output) {
  if (!tensor.defined()) return Status();
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  uint32_t index = 0;  // counts the tensors that are there
  for (size_t t = 0; t < call.plan.tensors.size(); ++t) {
    if (call.plan.tensors[t].none) continue;
    if (bound_[t] == impl) {
      output.kind = OutputKind::kArgument;
      output.tensor_index = static_cast<uint16_t>(index);
      output.tensor = describe(tensor);
      output.storage_bytes = tensor.storage().nbytes();
      return Status();
    }
    ++index;
  }
  if (tensor.has_storage()) {
    for (uint16_t s = 0; s < call.plan.reads; ++s) {
      const SlotEntry* entry = find(call.slots[s]);
      if (entry == nullptr || !entry->has_value() || !tensor.storage().is_alias_of(entry->storage)) continue;
      output.kind = OutputKind::kViewOf;
      output.slot = s;
      output.tensor = describe(tensor);
      return Status();
    }
  }
  WALDO_TRY(ordinary(call, tensor));
  if (!unshared(tensor) || tensor.storage_offset() != 0) tensor = tensor.clone();
  if (created_count_ >= call.plan.creates) {
    return Status(StatusKind::kInvalid,
                  fmt::format("{}: makes more than the {} slots of the plan", call.plan.name, call.plan.creates));
  }
  const auto slot = static_cast<uint16_t>(call.plan.reads + created_count_++);
  output.kind = tensor.device().is_cpu() && !device_.is_cpu() ? OutputKind::kCpuNew : OutputKind::kNew;
  output.slot = slot;
  output.storage_bytes = tensor.storage().nbytes();
  output.tensor = describe(tensor);
  made_.push_back(Made{call.slots[slot], std::move(tensor), nullptr});
  return Status();
}

// Every output has passed; now they take their slots.
void TorchQueue::commit() {
  for (Made& made : made_) {
    SlotEntry& entry = slots_.ensure(made.slot.index());
    clear(entry);
    entry.storage = made.tensor.storage();
    count_bytes(entry);
    // A tensor whose strides differ from the prediction where it does not matter is built anew when first used.
    if (made.geometry != nullptr && made.tensor.strides() == at::IntArrayRef(made.geometry->strides) &&
        made.tensor.key_set() == device_.plain_tensor_keys() &&
        made.tensor.unsafeGetTensorImpl()->is_wrapped_number() == made.geometry->wrapped_number) {
      const int64_t offset = made.tensor.storage_offset();
      entry.built[0] = SlotEntry::Built{made.geometry, offset, std::move(made.tensor)};
      entry.next_built = 1;
    }
  }
  made_.clear();
}

}  // namespace waldo::torch_backend
