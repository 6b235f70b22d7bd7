#include "frontends/torch/meta.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include <exception>

#include "frontends/torch/layers.h"
#include "frontends/torch/meta_rules.h"

namespace waldo::torch_frontend {
namespace {

// The call's tensors as meta tensors: one meta storage per storage of ours, so that aliases stay aliases.
class MetaCall {
 public:
  MetaCall(const Operator& op, const c10::IValue* arguments, const CallKey& key) : key_(key) {
    storages_.resize(key.storages().size());
    for (size_t i = 0; i < op.arguments.size(); ++i) {
      const c10::IValue& value = arguments[i];
      const auto argument = static_cast<uint16_t>(i);
      switch (op.arguments[i]) {
        case ArgumentClass::kTensor:
          stack_.push_back(value.isNone() ? value : c10::IValue(rebuilt(value.toTensor(), {argument, -1})));
          break;
        case ArgumentClass::kTensorList:
          stack_.push_back(value.isNone() ? value : rebuilt_list(value, argument));
          break;
        case ArgumentClass::kDevice:
          stack_.push_back(value.isNone() ? value : c10::IValue(c10::Device(c10::DeviceType::Meta)));
          break;
        case ArgumentClass::kGenerator:
          stack_.emplace_back();  // no Meta kernel draws
          break;
        default:
          stack_.push_back(value);
      }
    }
  }

  void run(const Operator& op) {
    at::AutoDispatchBelowADInplaceOrView below;
    op.meta->callBoxed(op.handle, c10::DispatchKeySet(c10::DispatchKey::Meta), &stack_);
  }

  std::vector<Resize> resizes() const {
    std::vector<Resize> found;
    for (const auto& entry : tensors_) {
      if (entry.meta.sizes() == entry.sizes && entry.meta.strides() == entry.strides) continue;
      found.push_back({entry.place, entry.meta.sizes().vec(), entry.meta.strides().vec()});
    }
    return found;
  }

  // False when an output is nothing we could make.
  bool outputs(std::vector<OutputPlan>* all) {
    for (const auto& value : stack_) {
      all->emplace_back();
      if (!output(value, &all->back())) return false;
    }
    return true;
  }

 private:
  struct Given {
    at::Tensor meta;
    const c10::TensorImpl* given;
    std::vector<int64_t> sizes, strides;  // as given
    TensorPlace place;
  };

  at::Tensor rebuilt(const at::Tensor& tensor, TensorPlace place) {
    if (!tensor.defined()) return tensor;
    const StorageRef* ref = storage_ref(*tensor.unsafeGetTensorImpl());
    if (ref == nullptr) return tensor;  // a number in a CPU tensor
    for (const auto& entry : tensors_) {
      if (entry.given == tensor.unsafeGetTensorImpl()) return entry.meta;  // out= may be an input too
    }
    auto& storage = storages_[key_.storage_index(ref)];
    if (!storage) {
      auto* allocator = c10::GetAllocator(c10::DeviceType::Meta);
      storage =
          c10::Storage(c10::Storage::use_byte_size_t(), ref->bytes, allocator->allocate(ref->bytes), allocator, true);
    }
    auto impl = c10::make_intrusive<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::Meta),
                                                     tensor.dtype());
    impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    if (tensor.is_conj()) impl->_set_conj(true);
    if (tensor.is_neg()) impl->_set_neg(true);
    at::Tensor meta(std::move(impl));
    tensors_.push_back({meta, tensor.unsafeGetTensorImpl(), tensor.sizes().vec(), tensor.strides().vec(), place});
    return meta;
  }

  c10::IValue rebuilt_list(const c10::IValue& value, uint16_t argument) {
    auto copy = value.toList().copy();
    for (size_t i = 0; i < copy.size(); ++i) {
      const c10::IValue element = copy.get(i);
      if (element.isNone()) continue;
      copy.set(i, rebuilt(element.toTensor(), {argument, static_cast<int32_t>(i)}));
    }
    return copy;
  }

  bool output(const c10::IValue& value, OutputPlan* plan) {
    using Kind = wire::OutputKind;
    if (value.isNone()) {
      plan->kind = Kind::kNone;
    } else if (value.isTensor()) {
      return tensor(value.toTensor(), plan);
    } else if (value.isTensorList()) {
      plan->kind = Kind::kList;
      for (const c10::IValue& element : value.toListRef()) {
        plan->list.emplace_back();
        if (!output(element, &plan->list.back())) return false;
      }
    } else if (value.isInt()) {
      plan->kind = Kind::kInt;
      plan->integer = value.toInt();
    } else if (value.isBool()) {
      plan->kind = Kind::kBool;
      plan->integer = value.toBool() ? 1 : 0;
      plan->number = value.toBool() ? 1 : 0;
    } else if (value.isDouble()) {
      plan->kind = Kind::kFloat;
      plan->number = value.toDouble();
    } else {
      return false;
    }
    return true;
  }

  bool tensor(const at::Tensor& out, OutputPlan* plan) {
    if (!out.defined()) {
      plan->kind = wire::OutputKind::kNone;
      return true;
    }
    for (const auto& entry : tensors_) {
      if (!entry.meta.is_same(out)) continue;
      plan->kind = wire::OutputKind::kArgument;
      plan->place = entry.place;
      return true;
    }
    if (!out.is_meta() || out.layout() != at::kStrided || out._is_zerotensor()) return false;
    plan->dtype = out.scalar_type();
    plan->sizes.assign(out.sizes().begin(), out.sizes().end());
    plan->strides.assign(out.strides().begin(), out.strides().end());
    plan->contiguous = out.is_contiguous() && plain_strides(out);
    plan->conj = out.is_conj();
    plan->neg = out.is_neg();
    plan->offset = out.storage_offset();
    for (size_t i = 0; i < storages_.size(); ++i) {
      if (!storages_[i] || !storages_[i].is_alias_of(out.storage())) continue;
      plan->kind = wire::OutputKind::kViewOf;
      plan->slot = static_cast<uint16_t>(i);
      return true;
    }
    for (const auto* other : fresh_) {
      if (other == out.storage().unsafeGetStorageImpl()) return false;  // two outputs on one new storage
    }
    fresh_.push_back(out.storage().unsafeGetStorageImpl());
    plan->kind = wire::OutputKind::kNew;
    plan->slot = static_cast<uint16_t>(fresh_.size() - 1);
    plan->storage_bytes = at::detail::computeStorageNbytes(out.sizes(), out.strides(), out.dtype().itemsize(),
                                                           static_cast<size_t>(plan->offset));
    return true;
  }

  // Does set_sizes_contiguous() give just these strides?
  static bool plain_strides(const at::Tensor& out) {
    int64_t expected = 1;
    for (int64_t i = out.dim(); i-- > 0;) {
      if (out.stride(i) != expected) return false;
      expected *= std::max<int64_t>(out.size(i), 1);
    }
    return true;
  }

  const CallKey& key_;
  std::vector<c10::Storage> storages_;
  std::vector<Given> tensors_;
  std::vector<const c10::StorageImpl*> fresh_;
  torch::jit::Stack stack_;
};

}  // namespace

std::optional<Foretold> foretell(const Operator& op, const c10::IValue* arguments, const CallKey& key) {
  Foretold told;
  if (const Rule rule = rule_for(op.name())) {
    RuleOutputs outputs(&told);
    if (rule(arguments, outputs)) {
      count_layer(op.name(), Layer::kRule);
      return told;
    }
    told = {};
  }
  if (op.foresight == Foresight::kLearn) return std::nullopt;
  if (op.meta) {
    try {
      MetaCall call(op, arguments, key);
      call.run(op);
      told.resizes = call.resizes();
      if (!told.resizes.empty() || call.outputs(&told.outputs)) {
        count_layer(op.name(), Layer::kMeta);
        return told;
      }
    } catch (const std::exception&) {
      // The worker's own error is the better one.
    }
    return std::nullopt;
  }
  if (outputs_are_arguments(op, arguments, &told.outputs)) {
    count_layer(op.name(), Layer::kArguments);
    return told;
  }
  return std::nullopt;
}

}  // namespace waldo::torch_frontend
