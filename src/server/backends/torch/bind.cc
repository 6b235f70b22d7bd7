#include <ATen/core/List.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cstring>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/queue.h"

namespace waldo::torch_backend {
namespace {

using Kind = Step::Kind;

template <typename T>
T scalar_at(std::span<const std::byte> scalars, size_t at) {  // the plan has checked the size
  T value;
  std::memcpy(&value, scalars.data() + at, sizeof(T));
  return value;
}

at::Scalar scalar_of(std::span<const std::byte> scalars, wire::ScalarTag tag, size_t& at) {
  const size_t here = at;
  at += tag == wire::ScalarTag::kComplex ? 16 : 8;
  switch (tag) {
    case wire::ScalarTag::kInt:
      return scalar_at<int64_t>(scalars, here);
    case wire::ScalarTag::kBool:
      return scalar_at<int64_t>(scalars, here) != 0;
    case wire::ScalarTag::kFloat:
      return scalar_at<double>(scalars, here);
    case wire::ScalarTag::kComplex:
      return c10::complex<double>(scalar_at<double>(scalars, here), scalar_at<double>(scalars, here + 8));
  }
  return {};
}

}  // namespace

// Hot: once per call; see bench/backend_call. Tensors last built over a slot are reused, so that most arguments cost a
// pointer comparison and a reference count.
Status TorchQueue::bind(Call& call) {
  stack_.reserve(call.plan.steps.size());
  bound_.assign(call.plan.tensors.size(), nullptr);
  for (const Step& step : call.plan.steps) {
    if (step.kind == Kind::kConstant) {
      stack_.push_back(step.constant);
    } else if (step.kind == Kind::kTensor) {
      Status failure;
      const at::Tensor* tensor = tensor_for(call, call.plan.tensors[step.first], failure);
      if (tensor == nullptr) [[unlikely]]
        return failure;
      bound_[step.first] = tensor->unsafeGetTensorImpl();
      stack_.emplace_back(*tensor);
    } else {
      WALDO_TRY(bind_step(call, step));
    }
  }
  return Status();
}

Status TorchQueue::bind_step(Call& call, const Step& step) {
  switch (step.kind) {
    case Kind::kConstant:
    case Kind::kTensor:
      break;
    case Kind::kTensorList: {
      c10::List<at::Tensor> list;
      list.reserve(step.count);
      for (uint32_t t = step.first; t < step.first + step.count; ++t) {
        Status failure;
        const at::Tensor* tensor = tensor_for(call, call.plan.tensors[t], failure);
        if (tensor == nullptr) return failure;
        bound_[t] = tensor->unsafeGetTensorImpl();
        list.push_back(*tensor);
      }
      stack_.emplace_back(std::move(list));
      return Status();
    }
    case Kind::kOptionalTensorList: {
      c10::List<std::optional<at::Tensor>> list;
      list.reserve(step.count);
      for (uint32_t t = step.first; t < step.first + step.count; ++t) {
        if (call.plan.tensors[t].none) {
          list.push_back(std::nullopt);
          continue;
        }
        Status failure;
        const at::Tensor* tensor = tensor_for(call, call.plan.tensors[t], failure);
        if (tensor == nullptr) return failure;
        bound_[t] = tensor->unsafeGetTensorImpl();
        list.push_back(*tensor);
      }
      stack_.emplace_back(std::move(list));
      return Status();
    }
    case Kind::kInt:
      stack_.emplace_back(scalar_at<int64_t>(call.scalars, step.at));
      return Status();
    case Kind::kFloat:
      stack_.emplace_back(scalar_at<double>(call.scalars, step.at));
      return Status();
    case Kind::kScalar: {
      size_t at = step.at;
      stack_.emplace_back(scalar_of(call.scalars, step.tags[0], at));
      return Status();
    }
    case Kind::kIntList: {
      c10::List<int64_t> list;
      list.reserve(step.count);
      for (uint32_t i = 0; i < step.count; ++i) list.push_back(scalar_at<int64_t>(call.scalars, step.at + 8 * i));
      stack_.emplace_back(std::move(list));
      return Status();
    }
    case Kind::kFloatList: {
      c10::List<double> list;
      list.reserve(step.count);
      for (uint32_t i = 0; i < step.count; ++i) list.push_back(scalar_at<double>(call.scalars, step.at + 8 * i));
      stack_.emplace_back(std::move(list));
      return Status();
    }
    case Kind::kScalarList: {
      c10::List<at::Scalar> list;
      list.reserve(step.tags.size());
      size_t at = step.at;
      for (const wire::ScalarTag tag : step.tags) list.push_back(scalar_of(call.scalars, tag, at));
      stack_.emplace_back(std::move(list));
      return Status();
    }
    case Kind::kGenerator: {
      const at::Generator* generator = generators_.find(step.first);
      if (generator == nullptr)
        return Status(StatusKind::kInvalid, fmt::format("there is no generator {}", step.first));
      stack_.emplace_back(*generator);
      return Status();
    }
  }
  return Status(StatusKind::kInternal, "a step that nobody wrote");
}

SlotEntry* TorchQueue::find(Slot slot) const {
  if (slot.queue() == queue_) return slots_.find(slot.index());
  if (slot.queue().raw >= shared_->queue_count) return nullptr;
  return shared_->slots[slot.queue().raw].find(slot.index());
}

Result<SlotEntry*> TorchQueue::value_in(Slot slot) const {
  SlotEntry* entry = find(slot);
  if (entry != nullptr && entry->has_value()) return entry;
  if (entry != nullptr && entry->error != nullptr) {
    const Status& why = *entry->error;
    return device_error(static_cast<wire::ErrorClass>(why.detail().error_class),
                        fmt::format("uses a value that was never made: {}{}{}", why.detail().op,
                                    why.detail().op.empty() ? "" : ": ", why.text()),
                        why.detail().op);
  }
  return Status(StatusKind::kInvalid, fmt::format("slot {} of queue {} holds nothing", slot.index(), slot.queue().raw));
}

const at::Tensor* TorchQueue::tensor_for(Call& call, const TensorUse& use, Status& failure) {
  if (use.by_value) return value_tensor(call, use);
  const Slot slot = call.slots[use.slot];
  const int64_t offset =
      use.dynamic_offset ? scalar_at<int64_t>(call.scalars, static_cast<size_t>(use.offset)) : use.offset;
  SlotEntry* entry = find(slot);
  if (entry != nullptr && slot.queue() == queue_) [[likely]] {
    for (const SlotEntry::Built& built : entry->built) {
      if (built.geometry == use.geometry && built.offset == offset) [[likely]]
        return &built.tensor;
    }
  }
  Result<SlotEntry*> value = value_in(slot);
  if (!value.ok()) {
    failure = value.status();
    return nullptr;
  }
  return build_tensor(call, use, *value.value(), slot, offset, failure);
}

const at::Tensor* TorchQueue::build_tensor(Call& call, const TensorUse& use, SlotEntry& entry, Slot slot,
                                           int64_t offset, Status& failure) {
  const std::optional<uint64_t> bytes = use.geometry->bytes_at(offset);
  if (!bytes.has_value() || *bytes > entry.storage.nbytes()) {
    failure = Status(StatusKind::kInvalid,
                     fmt::format("a tensor at offset {} needs {} bytes of slot {}, which has {}", offset,
                                 bytes.value_or(UINT64_MAX), slot.index(), entry.storage.nbytes()));
    return nullptr;
  }
  at::Tensor tensor = make_tensor(entry.storage, *use.geometry, offset, keys_for(entry.storage));
  if (use.to_cpu && !device_.is_cpu()) tensor = tensor.cpu();
  if (slot.queue() != queue_ || use.to_cpu) {  // another queue's cache is not ours to change
    kept_.push_back(std::move(tensor));
    return &kept_.back();
  }
  SlotEntry::Built& built = entry.built[entry.next_built];
  entry.next_built ^= 1;
  // A tensor this call has bound already stays alive through the stack; `bound_` only compares addresses.
  built = SlotEntry::Built{use.geometry, offset, std::move(tensor)};
  static_cast<void>(call);
  return &built.tensor;
}

const at::Tensor* TorchQueue::value_tensor(Call& call, const TensorUse& use) {
  ValueTensor& value = call.plan.values[use.slot];
  const std::byte* bytes = call.scalars.data() + use.offset;
  const bool reusable =
      value.tensor.defined() && value.tensor.use_count() == 1 && value.tensor.storage().use_count() == 1;
  if (reusable && std::memcmp(value.value.data(), bytes, value.value.size()) == 0) return &value.tensor;
  if (!reusable) {
    value.tensor = at::empty({}, at::TensorOptions().dtype(use.geometry->dtype));
    if (use.geometry->wrapped_number) value.tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  std::memcpy(value.value.data(), bytes, value.value.size());
  if (use.geometry->dtype == c10::ScalarType::Bool) {
    *static_cast<bool*>(value.tensor.mutable_data_ptr()) = value.value[0] != std::byte{0};
  } else {
    std::memcpy(value.tensor.mutable_data_ptr(), bytes, use.geometry->item_bytes);
  }
  return &value.tensor;
}

c10::DispatchKeySet TorchQueue::keys_for(const c10::Storage& storage) const {
  if (device_.is_cpu() || !storage.device().is_cpu()) return device_.new_tensor_keys();
  return c10::DispatchKeySet(c10::DispatchKey::CPU);
}

}  // namespace waldo::torch_backend
