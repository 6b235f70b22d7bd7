#include "frontends/torch/forward.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/TensorImpl.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string_view>

#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/far_tensor.h"
#include "frontends/torch/graph_recording.h"
#include "frontends/torch/inline_vector.h"
#include "frontends/torch/layers.h"
#include "frontends/torch/meta.h"
#include "frontends/torch/outputs.h"
#include "frontends/torch/plan.h"
#include "frontends/torch/plan_guess.h"
#include "frontends/torch/plan_key.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {
namespace {

// The plans of one device. They live for ever.
struct DevicePlans {
  client::PlanTable<Plan*> table;
  std::mutex write;
  std::vector<Plan*> by_number;
};

constinit std::array<std::atomic<DevicePlans*>, kDevicesMax> g_plans{};
constinit PlanGuesses<const Plan> g_guesses;  // of all devices; only plans that were kKnown once

[[gnu::noinline]] DevicePlans& make_plans(std::atomic<DevicePlans*>& mine) {
  auto* made = new DevicePlans();
  DevicePlans* plans = nullptr;
  if (mine.compare_exchange_strong(plans, made)) return *made;
  delete made;
  return *plans;
}

inline DevicePlans& plans_of(c10::DeviceIndex device) {
  auto& mine = g_plans[static_cast<size_t>(device)];
  auto* plans = mine.load(std::memory_order_acquire);
  return plans != nullptr ? *plans : make_plans(mine);
}

// Hot: a call whose plan is known. bench/op_latency "plan hit". Memory is counted before anything is recorded, so that
// a call that finds no room never runs.
[[gnu::always_inline]] inline void record(const Plan& plan, const CallParts& call, client::Queue& queue,
                                          Making& fresh) {
  PlanHistory::add(&plan);
  InlineVector<Slot, 24> slots;
  const auto storages = call.storages();
  Slot* named = slots.append(storages.size() + plan.creates);
  for (const StorageRef* ref : storages) *named++ = ref->slot;
  if (plan.creates == 0) {
    check(queue.call(plan.id, {slots.data(), slots.size()}, call.scalars()));
  } else {
    bool admitted;
    check(queue.call_making(plan.id, {slots.data(), slots.size()}, call.scalars(), fresh, &admitted));
    if (!admitted) [[unlikely]]
      call_again(queue, plan.id, call.device(), {slots.data(), slots.size()}, call.scalars(), fresh);
  }
  if (any_graph_recording()) [[unlikely]]
    note_call(plan, slots.span(), call.scalars());
}

// The same, and its outputs: all that is allocated.
[[gnu::always_inline]] inline void run(const Plan& plan, const Operator& op, const CallParts& call,
                                       client::Queue& queue, torch::jit::Stack* stack) {
  Making fresh(queue, call.device(), plan.needs);
  record(plan, call, queue, fresh);
  if (plan.shares_storages) [[unlikely]] {
    AskedStorages shared;
    for (size_t i = 0; i < plan.creates; ++i) shared.storages.push_back(fresh.take(i));
    return return_outputs(plan.outputs, op, call, shared, stack);
  }
  return_outputs(plan.outputs, op, call, fresh, stack);
}

// Slots for the outputs of an asked call; those that got no output go back.
class AskedSlots {
 public:
  AskedSlots(client::Queue& queue, size_t count) : queue_(queue) {
    for (size_t i = 0; i < count; ++i) slots_.push_back(queue.new_slot());
  }
  ~AskedSlots() {
    for (const Slot slot : slots_) {
      if (!slot.none()) queue_.free_slot(slot);
    }
  }
  AskedSlots(const AskedSlots&) = delete;
  AskedSlots& operator=(const AskedSlots&) = delete;

  const auto& all() const { return slots_; }
  Slot take(size_t index) {
    TORCH_CHECK(index < slots_.size() && !slots_[index].none(), "the worker's report names a slot that is none");
    return std::exchange(slots_[index], Slot{});
  }

 private:
  client::Queue& queue_;
  InlineVector<Slot, 8> slots_;
};

// What an asked call resized on the worker (out=) gets the same size here. True when anything did.
bool adopt_sizes(const std::vector<wire::Output>& outputs, const std::vector<TensorPlace>& places,
                 const c10::IValue* arguments) {
  bool changed = false;
  for (const auto& output : outputs) {
    if (output.kind == wire::OutputKind::kList) changed |= adopt_sizes(output.list, places, arguments);
    if (output.kind != wire::OutputKind::kArgument || output.tensor_index >= places.size()) continue;
    const at::Tensor& tensor = places[output.tensor_index].in(arguments);
    auto* impl = tensor.unsafeGetTensorImpl();
    if (storage_ref(*impl) == nullptr || (impl->sizes() == c10::IntArrayRef(output.tensor.sizes) &&
                                          impl->strides() == c10::IntArrayRef(output.tensor.strides))) {
      continue;
    }
    auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
    if (output.storage_bytes > storage->nbytes()) resize_storage(*storage, output.storage_bytes);
    impl->set_sizes_and_strides(output.tensor.sizes, output.tensor.strides);
    changed = true;
  }
  return changed;
}

struct Asked {
  std::vector<OutputPlan> outputs;
  bool resized = false;
};

// One round trip: runs the call, makes its outputs from what the worker says, returns what it said.
Asked ask(const Plan& plan, const Operator& op, const CallParts& call, client::Queue& queue, torch::jit::Stack* stack) {
  const c10::IValue* arguments = stack->data() + stack->size() - op.arguments.size();
  note_unfit("asks what an operator makes");
  AskedSlots asked(queue, plan.creates);
  InlineVector<Slot, 24> slots;
  for (const StorageRef* ref : call.storages()) slots.push_back(ref->slot);
  for (const Slot slot : asked.all()) slots.push_back(slot);
  Buffer answer;
  {
    WaitScope wait;
    if (Status status = queue.ask(plan.id, {slots.data(), slots.size()}, call.scalars(), &answer); !status.ok()) {
      throw_status(status);
    }
  }
  const auto report = wire::decode_report(answer);
  if (!report.ok()) throw_status(report.status());
  const auto places = tensor_places(op, arguments);
  const auto reads = static_cast<uint16_t>(call.storages().size());
  Asked result;
  result.outputs = from_wire(report->outputs, reads, places);
  TORCH_CHECK(result.outputs.size() == op.return_count, op.name(), ": the worker reported ", result.outputs.size(),
              " outputs");
  AskedStorages fresh;
  std::vector<uint64_t> create_bytes;
  collect_create_bytes(result.outputs, &create_bytes);
  for (size_t i = 0; i < create_bytes.size(); ++i) {
    fresh.storages.push_back(make_storage(queue, call.device(), create_bytes[i], asked.take(i)));
  }
  result.resized = adopt_sizes(report->outputs, places, arguments);
  return_outputs(result.outputs, op, call, fresh, stack);
  return result;
}

// `creates_asked`: how many slots a plan gets whose outputs are not known. An error when the protocol cannot carry such
// a call: what the worker would take for a malformed body must not be sent, it would end the session.
Result<Plan*> define(client::Queue& queue, const CallKey& key, const wire::PlanBody& body, Plan::Mode mode,
                     uint16_t reads, uint16_t creates_asked, std::vector<OutputPlan> outputs) {
  const Buffer encoded = wire::encode(body);
  if (const auto decoded = wire::decode_plan_body(encoded); !decoded.ok()) return decoded.status();
  auto plan = std::make_unique<Plan>();
  plan->mode = mode;
  plan->device = key.device();
  if (mode == Plan::Mode::kKnown) plan->key.assign(key.words().begin(), key.words().end());
  plan->reads = reads;
  plan->outputs = std::move(outputs);
  std::vector<uint64_t> create_bytes;
  plan->shares_storages = collect_create_bytes(plan->outputs, &create_bytes) > create_bytes.size();
  plan->creates = mode == Plan::Mode::kKnown ? static_cast<uint16_t>(create_bytes.size()) : creates_asked;
  for (const uint64_t bytes : create_bytes) plan->needs.emplace_back(bytes);
  make_prototypes(plan->outputs, key.device());
  plan->id = queue.define_plan(reads, plan->creates, encoded);
  if (plan->id == client::kNoPlan) return Status(StatusKind::kUnsupported, "too many or too large arguments");
  return plan.release();
}

Plan* define_or_throw(const Operator& op, Result<Plan*> defined) {
  TORCH_CHECK_NOT_IMPLEMENTED(defined.ok(), op.name(), ": a call that cannot be sent to a Waldo device (",
                              defined.status().text(), ")");
  return *defined;
}

void remember(DevicePlans& plans, client::PlanKey hash, Plan* plan) {
  const std::scoped_lock lock(plans.write);
  if (plan->mode != Plan::Mode::kResize) {
    if (plans.by_number.size() <= plan->id.raw) plans.by_number.resize(plan->id.raw + 1u, nullptr);
    plans.by_number[plan->id.raw] = plan;
  }
  plans.table.insert(hash, plan);  // when another thread was faster, its plan stays and ours serves this one call
}

void replace(DevicePlans& plans, Plan* old, Plan* plan) {
  const std::scoped_lock lock(plans.write);
  if (plans.by_number.size() <= plan->id.raw) plans.by_number.resize(plan->id.raw + 1u, nullptr);
  plans.by_number[plan->id.raw] = plan;
  old->newer.store(plan, std::memory_order_release);
  old->mode.store(Plan::Mode::kReplaced, std::memory_order_release);
}

// Plans whose outputs the worker had to change, as it told since the last look: asked for once more. A plan that is
// wrong again with what the worker itself had said is asked for every time.
void take_conformed(DevicePlans& plans, client::Queue& queue) {
  PlanId id;
  while (queue.take_conformed(&id)) {
    const std::scoped_lock lock(plans.write);
    if (id.raw >= plans.by_number.size() || plans.by_number[id.raw] == nullptr) continue;
    Plan* plan = plans.by_number[id.raw];
    auto known = Plan::Mode::kKnown;
    plan->mode.compare_exchange_strong(known, Plan::Mode::kConformed, std::memory_order_acq_rel);
    if (plan->op != nullptr) count_layer(plan->op->name(), Layer::kConformed);
  }
}

Plan* make_plan(const Operator& op, const c10::IValue* arguments, const CallKey& key, client::Queue& queue) {
  const auto reads = static_cast<uint16_t>(key.storages().size());
  const bool asks_always = op.foresight == Foresight::kAsk || (op.masks_ask && key.has_mask());
  std::optional<Foretold> told;
  if (!asks_always) told = foretell(op, arguments, key);
  if (told && !told->resizes.empty()) {
    auto* plan = new Plan();
    plan->mode = Plan::Mode::kResize;
    plan->resizes = std::move(told->resizes);
    return plan;
  }
  auto body = describe_call(op, arguments, key);
  if (!told) {
    count_layer(op.name(), asks_always ? Layer::kAsked : Layer::kLearned);
    const auto mode = asks_always ? Plan::Mode::kAsk : Plan::Mode::kLearn;
    return define_or_throw(op, define(queue, key, body, mode, reads, creates_max(op, arguments), {}));
  }
  body.outputs = to_wire(told->outputs, reads, tensor_places(op, arguments));
  Plan* plan = define_or_throw(op, define(queue, key, body, Plan::Mode::kKnown, reads, 0, std::move(told->outputs)));
  plan->op = &op;
  return plan;
}

void apply_resizes(const std::vector<Resize>& resizes, const c10::IValue* arguments) {
  for (const auto& resize : resizes) {
    auto* impl = resize.place.in(arguments).unsafeGetTensorImpl();
    auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
    const uint64_t bytes = at::detail::computeStorageNbytes(resize.sizes, resize.strides, impl->dtype().itemsize(),
                                                            static_cast<size_t>(impl->storage_offset()));
    if (bytes > storage->nbytes()) resize_storage(*storage, bytes);
    impl->set_sizes_and_strides(resize.sizes, resize.strides);
  }
}

// Index and length tensors that are on the CPU, where CUDA's kernels take them: copied to the device first.
void upload_arguments(const Operator& op, torch::jit::Stack* stack, c10::DeviceIndex device) {
  c10::IValue* arguments = stack->data() + stack->size() - op.arguments.size();
  const auto wanted = [](const c10::IValue& value, int64_t dims_min) {
    return value.isTensor() && value.toTensor().defined() && value.toTensor().is_cpu() &&
           value.toTensor().dim() >= dims_min;  // alone, one without dimensions is a number
  };
  const auto uploaded = [&](const at::Tensor& tensor) {
    at::Tensor there = at::empty_like(tensor, tensor.options().device(c10::Device(c10::DeviceType::CUDA, device)),
                                      at::MemoryFormat::Contiguous);
    there.copy_(tensor);
    return there;
  };
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    if (wanted(arguments[i], 1)) arguments[i] = uploaded(arguments[i].toTensor());
    if (op.arguments[i] != ArgumentClass::kTensorList || arguments[i].isNone()) continue;
    auto list = arguments[i].toList().copy();
    for (size_t j = 0; j < list.size(); ++j) {
      const c10::IValue element = list.get(j);
      if (wanted(element, 0)) list.set(j, uploaded(element.toTensor()));
    }
    arguments[i] = list;
  }
}

// Where a call's plan is looked for, and in which place it is guessed next time.
struct Search {
  client::PlanKey hash;
  PlanGuesses<const Plan>::Place& guess;
};
void forward_with(Plan* plan, const Operator& op, const CallKey& key, Search search, client::Queue& queue,
                  torch::jit::Stack* stack, int depth);

void forward_at_depth(const Operator& op, torch::jit::Stack* stack, int depth) {
  auto& guess = g_guesses.place(op.id);
  const CallKey key(op, stack->data() + stack->size() - op.arguments.size());
  if (key.detour() != CallKey::Detour::kNone) [[unlikely]] {
    if (key.detour() == CallKey::Detour::kOneByOne)
      return op.one_by_one->callBoxed(op.handle, c10::DispatchKeySet(c10::DispatchKey::CUDA), stack);
    upload_arguments(op, stack, key.device());
    return forward_at_depth(op, stack, depth + 1);
  }
  client::Queue& queue = queue_for(c10::Device(c10::DeviceType::CUDA, key.device()));
  DevicePlans& plans = plans_of(key.device());
  if (queue.any_conformed()) take_conformed(plans, queue);
  if (op.flags != FlagCheck::kNone) send_flags_if_changed(op.flags, queue, key.device());
  const Search search{key.hash(), guess};
  forward_with(plans.table.find(search.hash), op, key, search, queue, stack, depth);
}

// Hot. The plan that a call of `op` with these arguments needs, if it was guessed: then `call` has what it names, and
// the worker the flags that it runs under. Null: nothing was done.
[[gnu::always_inline]] inline const Plan* guessed_plan(const Operator& op, const c10::IValue* arguments,
                                                       CallParts& call, client::Queue** queue) {
  const Plan* plan = g_guesses.place(op.id).load(std::memory_order_acquire);
  if (plan == nullptr || plan->mode.load(std::memory_order_acquire) != Plan::Mode::kKnown) [[unlikely]]
    return nullptr;
  if (!call.matches(op, arguments, plan->key.data()) || call.device() != plan->device) [[unlikely]]
    return nullptr;
  *queue = &queue_for(c10::Device(c10::DeviceType::CUDA, plan->device));
  if ((*queue)->any_conformed()) [[unlikely]]
    return nullptr;
  if (op.flags != FlagCheck::kNone) send_flags_if_changed(op.flags, **queue, plan->device);
  return plan;
}

[[gnu::always_inline]] inline bool forward_guessed(const Operator& op, torch::jit::Stack* stack) {
  CallParts call;
  client::Queue* queue;
  const Plan* plan = guessed_plan(op, stack->data() + stack->size() - op.arguments.size(), call, &queue);
  if (plan == nullptr) [[unlikely]]
    return false;
  run(*plan, op, call, *queue, stack);
  return true;
}

void forward_with(Plan* plan, const Operator& op, const CallKey& key, Search search, client::Queue& queue,
                  torch::jit::Stack* stack, int depth) {
  TORCH_CHECK(depth < 4, op.name(), ": out= tensors keep changing their size");
  DevicePlans& plans = plans_of(key.device());
  const c10::IValue* arguments = stack->data() + stack->size() - op.arguments.size();
  while (plan != nullptr && plan->mode == Plan::Mode::kReplaced) plan = plan->newer.load(std::memory_order_acquire);
  if (plan == nullptr) {
    plan = make_plan(op, arguments, key, queue);
    remember(plans, search.hash, plan);
  }
  const Plan::Mode mode = plan->mode.load(std::memory_order_acquire);
  switch (mode) {
    case Plan::Mode::kReplaced:  // just now, by another thread
      return forward_with(plan, op, key, search, queue, stack, depth);
    case Plan::Mode::kKnown:
      search.guess.store(plan, std::memory_order_release);
      return run(*plan, op, key, queue, stack);
    case Plan::Mode::kAsk:
      ask(*plan, op, key, queue, stack);
      return;
    case Plan::Mode::kResize:
      apply_resizes(plan->resizes, arguments);
      return forward_at_depth(op, stack, depth + 1);
    case Plan::Mode::kConformed: {
      // Asked from now on: a second conform after learning means that the layout follows values.
      auto ask_body = describe_call(op, arguments, key);
      const auto again_mode = plan->learned ? Plan::Mode::kAsk : Plan::Mode::kLearn;
      Plan* again =
          define_or_throw(op, define(queue, key, ask_body, again_mode, plan->reads, creates_max(op, arguments), {}));
      replace(plans, plan, again);
      return forward_with(again, op, key, search, queue, stack, depth);
    }
    case Plan::Mode::kLearn:
      break;
  }
  // The description needs the arguments, which the call takes off the stack.
  auto body = describe_call(op, arguments, key);
  const auto places = tensor_places(op, arguments);
  Asked asked = ask(*plan, op, key, queue, stack);
  if (asked.resized) return;  // with its new size the out= tensor has another key next time
  body.outputs = to_wire(asked.outputs, plan->reads, places);
  const auto known = define(queue, key, body, Plan::Mode::kKnown, plan->reads, 0, std::move(asked.outputs));
  if (!known.ok()) return;  // asked again next time
  (*known)->learned = true;
  replace(plans, plan, *known);
}

}  // namespace

// -1: not looked at yet. A function's static would cost every call a call.
constinit std::atomic<int8_t> g_launch_blocking{-1};

bool launch_blocking() {
  int8_t blocking = g_launch_blocking.load(std::memory_order_relaxed);
  if (blocking < 0) {
    const char* value = std::getenv("CUDA_LAUNCH_BLOCKING");
    blocking = value != nullptr && std::string_view(value) != "0" && *value != '\0';
    g_launch_blocking.store(blocking, std::memory_order_relaxed);
  }
  return blocking != 0;
}

namespace {

[[gnu::always_inline]] inline void wait_if_blocking() {
  if (g_launch_blocking.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    if (launch_blocking()) synchronize_device(-1);
  }
}

}  // namespace

void forward(const Operator& op, torch::jit::Stack* stack) {
  if (!forward_guessed(op, stack)) [[unlikely]]
    forward_at_depth(op, stack, 0);
  wait_if_blocking();
}

bool forward_making_one(const Operator& op, const c10::IValue* arguments, at::Tensor* made) {
  CallParts call;
  client::Queue* queue;
  const Plan* plan = guessed_plan(op, arguments, call, &queue);
  if (plan == nullptr || plan->outputs.size() != 1 || plan->outputs[0].kind != wire::OutputKind::kNew) [[unlikely]]
    return false;
  Making fresh(*queue, call.device(), plan->needs);
  record(*plan, call, *queue, fresh);
  *made = make_tensor(fresh.take(plan->outputs[0].slot), plan->outputs[0]);
  wait_if_blocking();
  return true;
}

bool forward_in_place(const Operator& op, const c10::IValue* arguments) {
  CallParts call;
  client::Queue* queue;
  const Plan* plan = guessed_plan(op, arguments, call, &queue);
  if (plan == nullptr || plan->creates != 0 || plan->outputs.size() != 1) [[unlikely]]
    return false;
  const OutputPlan& only = plan->outputs[0];
  if (only.kind != wire::OutputKind::kArgument || only.place.argument != 0 || only.place.element >= 0) [[unlikely]]
    return false;
  Making none(*queue, call.device(), plan->needs);
  record(*plan, call, *queue, none);
  wait_if_blocking();
  return true;
}

}  // namespace waldo::torch_frontend
