// What a recorded call made, on its way to the program: storages taken under the queue's lock, tensors over them, and
// the operator's results put together as its plan foretold.
//
// Owns:    nothing past the call.
// Threads: one; all of it lives on the stack of the call.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include <span>
#include <utility>
#include <vector>

#include "client/session.h"
#include "frontends/torch/allocation_history.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/far_tensor.h"
#include "frontends/torch/inline_vector.h"
#include "frontends/torch/memory_pool.h"
#include "frontends/torch/plan.h"
#include "frontends/torch/plan_key.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

at::Tensor make_tensor_slow(c10::Storage&& storage, const OutputPlan& plan);  // of any device

[[gnu::always_inline]] inline at::Tensor make_tensor(c10::Storage&& storage, const OutputPlan& plan) {
  if (!plan.prototype) [[unlikely]]
    return make_tensor_slow(std::move(storage), plan);
  return at::Tensor(c10::make_intrusive<FarTensorImpl>(std::move(storage), *plan.prototype));
}

// Works out, once per plan, what make_tensor() copies.
void make_prototypes(std::vector<OutputPlan>& outputs, c10::DeviceIndex device);

// The storages that a recorded call makes, taken under the queue's lock together with their slots
// (Recorder::try_call_making), and given back unless outputs take them.
class Making {
 public:
  Making(client::Queue& queue, c10::DeviceIndex device, const std::vector<StorageNeed>& needs)
      : queue_(queue), pool_(MemoryPool::of(device)), needs_(needs) {}
  [[gnu::always_inline]] ~Making() {
    for (StorageRef* ref : refs_) {
      if (ref != nullptr) [[unlikely]]
        give_back(ref);
    }
  }
  Making(const Making&) = delete;
  Making& operator=(const Making&) = delete;

  [[gnu::always_inline]] bool admit() {
    for (const StorageNeed& need : needs_) {
      StorageRef* ref = pool_.take(need);
      if (ref == nullptr) [[unlikely]]
        return refuse(need);
      ref->queue = &queue_;
      ref->slot = Slot{};
      refs_.push_back(ref);
    }
    return true;
  }
  void* name(size_t i, Slot slot) {
    refs_[i]->slot = slot;
    return refs_[i];
  }

  uint64_t refused() const { return refused_; }  // bytes that there was no room for
  [[gnu::always_inline]] c10::Storage take(size_t i) {
    StorageRef* ref = std::exchange(refs_[i], nullptr);
    return c10::Storage(c10::make_intrusive<FarStorageImpl>(ref->bytes, data_of(ref)));
  }

 private:
  [[gnu::noinline]] bool refuse(const StorageNeed& need) {
    refused_ = need.bytes;
    for (StorageRef* taken : refs_.span()) pool_.give_back_watched(taken);
    refs_.drop_last(refs_.size());
    return false;
  }
  [[gnu::noinline]] void give_back(StorageRef* ref) noexcept {
    if (!ref->slot.none()) return delete_storage_ref(ref);
    queue_.locked([&](client::SlotTable&) { pool_.give_back_watched(ref); });
  }

  client::Queue& queue_;
  MemoryPool& pool_;
  const std::vector<StorageNeed>& needs_;
  InlineVector<StorageRef*, 8> refs_;
  uint64_t refused_ = 0;
};

// Another type, so that the hot call of the queue keeps its one caller and is inlined there: 25 instructions.
template <typename Made>
struct MadeAgain {
  Made& fresh;
  bool admit() { return fresh.admit(); }
  void* name(size_t i, Slot slot) { return fresh.name(i, slot); }
};

// Once more, if the call was refused for want of frames only (allocation_history.h).
template <typename Made>
[[gnu::noinline]] void call_again(client::Queue& queue, PlanId plan, c10::DeviceIndex device, std::span<Slot> slots,
                                  std::span<const std::byte> scalars, Made& fresh) {
  const AllocationContext context;
  bool admitted = false;
  MadeAgain<Made> again{fresh};
  if (context.worth_another_try()) check(queue.call_making(plan, slots, scalars, again, &admitted));
  if (!admitted) throw_out_of_memory(device, fresh.refused());
}

// By number of creation, for the rarer cases.
struct AskedStorages {
  c10::SmallVector<c10::Storage, 4> storages;
  c10::Storage take(size_t i) { return storages[i]; }  // several outputs may share one
};

template <typename Storages>
c10::IValue make_output(const OutputPlan& plan, const c10::IValue* arguments, const CallParts& call, Storages& fresh) {
  using Kind = wire::OutputKind;
  switch (plan.kind) {
    case Kind::kNew:
    case Kind::kCpuNew:
      return make_tensor(fresh.take(plan.slot), plan);
    case Kind::kArgument:
      return plan.place.element < 0 ? arguments[plan.place.argument] : c10::IValue(plan.place.in(arguments));
    case Kind::kViewOf: {
      const StorageRef* ref = call.storages()[plan.slot];
      const auto view = [&](const at::Tensor& of) {
        c10::Storage storage = of.storage();
        // A copy between devices is known to both; the prototype is of one.
        return ref->device.index() == call.device() ? make_tensor(std::move(storage), plan)
                                                    : make_tensor_slow(std::move(storage), plan);
      };
      // Any of the arguments over that storage lends it.
      for (size_t i = 0;; ++i) {
        const auto lends = [&](const c10::IValue& value) {
          return value.isTensor() && value.toTensor().defined() && storage_ref(*value.unsafeToTensorImpl()) == ref;
        };
        if (lends(arguments[i])) return view(arguments[i].toTensor());
        if (!arguments[i].isList()) continue;
        for (const auto& element : arguments[i].toListRef()) {
          if (lends(element)) return view(element.toTensor());
        }
      }
    }
    case Kind::kInt:
      return plan.integer;
    case Kind::kFloat:
      return plan.number;
    case Kind::kBool:
      return plan.integer != 0 || plan.number != 0;
    case Kind::kList: {
      c10::List<at::Tensor> list;
      list.reserve(plan.list.size());
      for (const auto& element : plan.list) {
        const c10::IValue value = make_output(element, arguments, call, fresh);
        list.push_back(value.isNone() ? at::Tensor() : value.toTensor());
      }
      return list;
    }
    case Kind::kNone:
      break;
  }
  return at::Tensor();  // an output that is not defined, as a kernel returns it
}

// Sizes of the storages that outputs make, by their slot's number; one may have no output of its own. Returns how many
// outputs are new: more than storages when some share one.
size_t collect_create_bytes(const std::vector<OutputPlan>& outputs, std::vector<uint64_t>* bytes);

inline void pop(torch::jit::Stack* stack, size_t count) {
  for (; count != 0; --count) stack->pop_back();
}

template <typename Storages>
void return_outputs(const std::vector<OutputPlan>& outputs, const Operator& op, const CallParts& call, Storages& fresh,
                    torch::jit::Stack* stack) {
  const size_t count = op.arguments.size();
  c10::IValue* arguments = stack->data() + stack->size() - count;
  if (outputs.size() == 1) [[likely]] {
    const OutputPlan& only = outputs[0];
    if (only.kind == wire::OutputKind::kArgument && only.place.argument == 0 && only.place.element < 0) {
      return pop(stack, count - 1);  // in place: it lies where it has to
    }
    if (only.kind == wire::OutputKind::kNew && count != 0) [[likely]] {
      arguments[0] = make_tensor(fresh.take(only.slot), only);
      return pop(stack, count - 1);
    }
    c10::IValue value = make_output(only, arguments, call, fresh);
    if (count == 0) [[unlikely]] {
      stack->push_back(std::move(value));
      return;
    }
    arguments[0] = std::move(value);
    return pop(stack, count - 1);
  }
  c10::SmallVector<c10::IValue, 8> values;
  for (const auto& output : outputs) values.push_back(make_output(output, arguments, call, fresh));
  torch::jit::drop(*stack, count);
  for (auto& value : values) stack->push_back(std::move(value));
}

}  // namespace waldo::torch_frontend
