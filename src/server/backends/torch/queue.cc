#include "server/backends/torch/queue.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <utility>

#include "server/backends/torch/errors.h"
#include "wire/graph_body.h"

namespace waldo::torch_backend {
namespace {

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

// Leaves nothing of a call behind, however it ends: stacks and lists hold references to tensors.
template <typename Clean>
struct AtEnd {
  explicit AtEnd(Clean clean) : clean_(std::move(clean)) {}
  ~AtEnd() { clean_(); }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;
  Clean clean_;
};

constexpr uint64_t kShortAnswerBytes = 4096;

// For callers that want to wait: begin(done) begins what calls `done` from another thread.
template <typename Begin>
Status wait_for_answer(const Begin& begin) {
  std::promise<Status> answer;
  WALDO_TRY(begin([&](Status status) { answer.set_value(std::move(status)); }));
  return answer.get_future().get();
}

c10::Device device_of(const Shared& shared, QueueId queue) {
  return shared.cuda ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(queue.raw)) : c10::Device(c10::kCPU);
}

}  // namespace

TorchQueue::TorchQueue(std::shared_ptr<Shared> shared, QueueId queue)
    : shared_(std::move(shared)),
      queue_(queue),
      device_(device_of(*shared_, queue)),
      slots_(shared_->slots[queue.raw]),
      memory_(shared_->memory[queue.raw]),
      generators_(device_, queue, shared_->queue_count > 1) {
  if (memory_.cap == 0) memory_.cap = device_.total_bytes();
}

// The slots' values go with Shared: another queue may still be reading them.
TorchQueue::~TorchQueue() = default;

Status TorchQueue::define(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> body) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    if (plan.raw >= limits::plan_count_max) return invalid("a plan number past the maximum");
    if (wire::is_graph_body(body)) return define_graph(plan, reads, creates, body);
    Result<wire::PlanBody> decoded = wire::decode_plan_body(body);
    if (!decoded.ok()) return decoded.status();
    Result<Plan> prepared =
        prepare(decoded.value(), reads, creates, geometries_, generators_, device_, shared_->queue_count);
    if (!prepared.ok()) return prepared.status();
    keep_plan(plan, std::move(prepared).value());
    return Status();
  });
}

Status TorchQueue::define_graph(PlanId number, uint16_t reads, uint16_t creates, std::span<const std::byte> body) {
  const Result<wire::GraphBody> decoded = wire::decode_graph_body(body);
  if (!decoded.ok()) return decoded.status();
  const auto arity = [this](PlanId plan) -> std::optional<GraphArity> {
    if (plan.raw >= plans_.size() || plans_[plan.raw] == nullptr || plans_[plan.raw]->graph) return std::nullopt;
    return GraphArity{plans_[plan.raw]->reads, plans_[plan.raw]->creates};
  };
  Result<Graph> graph = prepare(decoded.value(), size_t{reads} + creates, arity);
  if (!graph.ok()) return graph.status();
  Plan plan;
  plan.name = fmt::format("a graph of {} calls", graph->steps.size());
  plan.reads = reads;
  plan.creates = creates;
  plan.unusable = invalid("a graph in a graph");  // a step's plan may have been defined anew
  plan.graph = std::make_unique<const Graph>(std::move(graph).value());
  keep_plan(number, std::move(plan));
  return Status();
}

void TorchQueue::keep_plan(PlanId number, Plan plan) {
  if (number.raw >= plans_.size()) plans_.resize(std::max<size_t>(number.raw + size_t{1}, plans_.size() * 2));
  plans_[number.raw] = std::make_unique<Plan>(std::move(plan));
}

Status TorchQueue::call(PlanId number, std::span<const Slot> slots, std::span<const std::byte> scalars, bool* conformed,
                        Buffer* report) {
  bool ignored = false;
  if (conformed == nullptr) conformed = &ignored;
  *conformed = false;
  if (number.raw >= plans_.size() || plans_[number.raw] == nullptr || !plans_[number.raw]->graph) [[likely]]
    return call_plan(number, slots, scalars, conformed, report);
  const Plan& plan = *plans_[number.raw];
  if (slots.size() != size_t{plan.reads} + plan.creates || !scalars.empty() || report != nullptr)
    return invalid(fmt::format("{}: a call that is not one of a graph", plan.name));
  return run_graph(*plan.graph, slots, conformed);
}

Status TorchQueue::call_plan(PlanId number, std::span<const Slot> slots, std::span<const std::byte> scalars,
                             bool* conformed, Buffer* report) {
  if (number.raw >= plans_.size() || plans_[number.raw] == nullptr)
    return invalid("a call of a plan that is not defined");
  Plan& plan = *plans_[number.raw];
  if (slots.size() != size_t{plan.reads} + plan.creates) {
    return invalid(
        fmt::format("{}: a call with {} slots, the plan has {}", plan.name, slots.size(), plan.reads + plan.creates));
  }
  if (!plan.unusable.ok()) return plan.unusable;
  if (scalars.size() != plan.scalar_bytes) {
    return invalid(fmt::format("{}: a call with {} bytes of scalars, the plan has {}", plan.name, scalars.size(),
                               plan.scalar_bytes));
  }
  Call call{plan, slots, scalars, conformed};
  const AtEnd clean([this] {
    stack_.clear();
    kept_.clear();
    made_.clear();
  });
  Status status = guarded(plan.name, [&] { return run(call, report); });
  if (status.ok() || !status.detail().op.empty()) return status;
  StatusDetail detail = status.detail();
  detail.op = plan.name;
  return Status(status.kind(), status.text(), std::move(detail));
}

std::string TorchQueue::op_name(PlanId plan) const {
  return plan.raw < plans_.size() && plans_[plan.raw] ? plans_[plan.raw]->name : std::string();
}

Status TorchQueue::run(Call& call, Buffer* report) {
  const Plan& plan = call.plan;
  device_.enter_thread();
  for (size_t i = plan.reads; i < call.slots.size(); ++i) WALDO_TRY(own(call.slots[i]));
  if (report == nullptr && plan.new_bytes > 0) WALDO_TRY(reserve(plan.new_bytes));  // before anything is changed
  if (!plan.collective) WALDO_TRY(settle(call.slots.first(plan.reads)));
  kept_.reserve(plan.tensors.size());  // pointers into it are held while binding
  WALDO_TRY(bind(call));
  if (plan.collective) [[unlikely]] {
    const CurrentCollectives current(shared_->collectives);
    plan.handle->callBoxed(stack_);
  } else if (plan.random) [[unlikely]] {
    const Generators::DefaultSwap swap(generators_);
    plan.handle->callBoxed(stack_);
  } else if (plan.plain_keys) {
    plan.handle->redispatchBoxed(plan.keys, &stack_);  // what callBoxed would find out anew
  } else {
    plan.handle->callBoxed(stack_);
  }
  if (report == nullptr) {
    WALDO_TRY(take_outputs(call));
    commit();
    return Status();
  }
  wire::Report answer;
  WALDO_TRY(report_outputs(call, answer));
  uint64_t bytes = 0;
  for (const Made& made : made_) bytes += made.tensor.storage().nbytes();
  WALDO_TRY(reserve(bytes));
  *report = wire::encode(answer);
  commit();
  return Status();
}

Status TorchQueue::create(Slot slot, uint64_t bytes) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    return create_storage(slot, bytes);
  });
}

Status TorchQueue::create_storage(Slot slot, uint64_t bytes) {
  WALDO_TRY(own(slot));
  if (bytes > limits::storage_bytes_max) return out_of_memory(bytes, memory_.used, memory_.cap, queue_.raw);
  WALDO_TRY(reserve(bytes));
  c10::Storage storage = device_.allocate(bytes);
  SlotEntry& entry = slots_.ensure(slot.index());
  clear(entry);
  entry.storage = std::move(storage);
  count_bytes(entry);
  return Status();
}

Status TorchQueue::resize(Slot slot, uint64_t bytes) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    WALDO_TRY(own(slot));
    Result<SlotEntry*> found = value_in(slot);
    if (!found.ok()) return found.status();
    SlotEntry& entry = *found.value();
    if (bytes == entry.storage.nbytes()) return Status();
    WALDO_TRY(settle({&slot, 1}));
    if (bytes > limits::storage_bytes_max) return out_of_memory(bytes, memory_.used, memory_.cap, queue_.raw);
    if (bytes > entry.counted_bytes) WALDO_TRY(reserve(bytes - entry.counted_bytes));
    device_.resize(entry.storage, bytes);
    entry.forget_built();
    count_bytes(entry);
    return Status();
  });
}

Status TorchQueue::write(Slot slot, uint64_t offset, server::UploadedBytes bytes) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    WALDO_TRY(own(slot));
    if (bytes.data == nullptr && bytes.size != 0) return Status(StatusKind::kInternal, "an upload without its bytes");
    WALDO_TRY(settle({&slot, 1}));
    SlotEntry& entry = slots_.ensure(slot.index());
    if (!entry.has_value() && entry.error == nullptr && offset == 0) {
      WALDO_TRY(reserve(bytes.size));
      entry.storage = bytes.size == 0 ? device_.allocate(0) : device_.adopt(std::move(bytes));
      count_bytes(entry);
      return Status();
    }
    Result<SlotEntry*> found = value_in(slot);
    if (!found.ok()) return found.status();
    if (offset > entry.storage.nbytes() || bytes.size > entry.storage.nbytes() - offset) {
      return invalid(
          fmt::format("an upload of {} bytes at {} into a storage of {}", bytes.size, offset, entry.storage.nbytes()));
    }
    device_.write(entry.storage, offset, std::move(bytes));
    return Status();
  });
}

Result<c10::Storage> TorchQueue::to_read(Slot slot, uint64_t offset, uint64_t bytes) {
  WALDO_TRY(settle({&slot, 1}));
  Result<SlotEntry*> found = value_in(slot);
  if (!found.ok()) return found.status();
  const c10::Storage& storage = found.value()->storage;
  if (offset > storage.nbytes() || bytes > storage.nbytes() - offset) {
    return invalid(fmt::format("a read of {} bytes at {} from a storage of {}", bytes, offset, storage.nbytes()));
  }
  return storage;
}

Status TorchQueue::read(Slot slot, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) {
  if (answers_later() && bytes > 0) {
    return wait_for_answer([&](std::function<void(Status)> done) {
      return read_later(slot, offset, bytes, {.sink = sink, .done = std::move(done)});
    });
  }
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    const Result<c10::Storage> storage = to_read(slot, offset, bytes);
    return storage.ok() ? device_.read(*storage, offset, bytes, sink) : storage.status();
  });
}

Status TorchQueue::read_later(Slot slot, uint64_t offset, uint64_t bytes, server::LateRead read) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    const Result<c10::Storage> storage = to_read(slot, offset, bytes);
    if (!storage.ok()) return storage.status();
    const auto stage = [&](uint64_t begin, uint64_t part) -> Result<server::StagedPiece> {
      server::StagedPiece piece;
      WALDO_TRY(guarded({}, [&]() -> Status {
        piece = device_.stage(*storage, offset + begin, part);
        return Status();
      }));
      return piece;
    };
    server::LateAnswers& answers = bytes <= kShortAnswerBytes ? short_answers_ : long_answers_;
    return server::read_in_pieces(answers, bytes, kStagingBytes, stage, std::move(read));
  });
}

void TorchQueue::free(Slot slot) {
  if (slot.queue() != queue_) return;
  if (SlotEntry* entry = slots_.find(slot.index())) clear(*entry);
}

void TorchQueue::poison(Slot slot, const Status& why) {
  if (slot.queue() != queue_ || slot.none()) return;
  SlotEntry& entry = slots_.ensure(slot.index());
  clear(entry);
  entry.error = std::make_unique<Status>(why);
}

Status TorchQueue::synchronize() {
  if (answers_later()) {
    return wait_for_answer([&](std::function<void(Status)> done) {
      return mark_later([done = std::move(done)](const Result<uint64_t>& now) { done(now.status()); });
    });
  }
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    return shared_->collectives.any() ? shared_->collectives.settle_all() : Status();
  });
}

Status TorchQueue::mark_later(server::LateMark told) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    if (shared_->collectives.any()) WALDO_TRY(shared_->collectives.settle_all());
    const std::shared_ptr<const c10::Event> event = device_.mark(Device::Timed::kYes);
    short_answers_.add(
        0, [event] { return has_come_to(*event); },
        [this, event, told = std::move(told)](Status status) {
          uint64_t now = 0;
          if (status.ok())
            status = guarded({}, [&] {
              now = clock_.time_ns(event);
              return Status();
            });
          told(status.ok() ? Result<uint64_t>(now) : Result<uint64_t>(std::move(status)));
        });
    return Status();
  });
}

uint64_t TorchQueue::now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

Status TorchQueue::settle_slow(std::span<const Slot> slots) {
  for (const Slot slot : slots) {
    const SlotEntry* entry = find(slot);
    if (entry == nullptr || !entry->has_value()) continue;
    WALDO_TRY(shared_->collectives.settle(entry->storage.unsafeGetStorageImpl()));
  }
  return Status();
}

Status TorchQueue::own(Slot slot) const {
  if (slot.queue() == queue_ && !slot.none()) return Status();
  return invalid(fmt::format("slot {} is of queue {}, not {}", slot.index(), slot.queue().raw, queue_.raw));
}

Status TorchQueue::reserve(uint64_t more) const {
  if (memory_.fits(more)) [[likely]]
    return Status();
  return out_of_memory(more, memory_.used.load(std::memory_order_relaxed), memory_.cap, queue_.raw);
}

void TorchQueue::count_bytes(SlotEntry& entry) {
  const uint64_t now = entry.has_value() ? entry.storage.nbytes() : 0;
  memory_.used.fetch_add(now - entry.counted_bytes, std::memory_order_relaxed);  // wraps as it should
  entry.counted_bytes = now;
}

void TorchQueue::clear(SlotEntry& entry) {
  entry.forget_built();
  entry.storage = c10::Storage();
  entry.error.reset();
  count_bytes(entry);
}

}  // namespace waldo::torch_backend
