// Names and recording: everything of a queue that does not wait for an answer. queue_wait.cc has the rest.
#include <fmt/format.h>

#include "client/queue_record.h"

namespace waldo::client {
namespace {

Status other_queue(const char* what) {
  return Status(StatusKind::kInvalid, fmt::format("{} names a slot of another queue", what));
}

}  // namespace

QueueLocks::QueueLocks(SessionCore& core, QueueId own, std::span<const Slot> named) : core_(core) {
  uint64_t mask = uint64_t{1} << own.raw;
  for (const Slot slot : named) {
    if (slot.none() || slot.queue().raw >= core.queue_count()) return;
    mask |= uint64_t{1} << slot.queue().raw;
  }
  mask_ = mask;
  others_ = mask & ~(uint64_t{1} << own.raw);
  for (uint64_t rest = mask; rest != 0; rest &= rest - 1)
    core_.recorder(static_cast<size_t>(std::countr_zero(rest))).lock.lock();
  locked_ = true;
}

void QueueLocks::unlock() {
  if (!locked_) return;
  for (uint64_t rest = mask_; rest != 0; rest &= rest - 1) {
    core_.recorder(static_cast<size_t>(std::countr_zero(rest))).lock.unlock();
  }
  locked_ = false;
}

Queue::Queue(SessionCore& core, Session& session, QueueId id)
    : core_(core), session_(session), id_(id), recorder_(id), rest_(std::make_unique<Rest>()) {}

Queue::~Queue() = default;

// --- recording -------------------------------------------------------------------------------------------------------

Status Queue::call_slow(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars) {
  WALDO_TRY(check_call(plan, slots, scalars));
  return unless_ended(
      record(call_bytes(slots, scalars), slots, [&](wire::RecordsBuilder& to) { to.call(plan, slots, scalars); }));
}

Status Queue::call_making_slow(PlanId plan, std::span<Slot> slots, std::span<const std::byte> scalars,
                               const std::function<bool(size_t)>& take) {
  {
    std::lock_guard guard(recorder_.lock);
    if (recorder_.slots.any_dropped()) recorder_.put_dropped_slow();
    const size_t reads = plan.raw < recorder_.plans.size() ? recorder_.plans[plan.raw].reads : slots.size();
    if (!take(std::min(reads, slots.size()))) return {};
  }
  return call_slow(plan, slots, scalars);
}

Status Queue::check_call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars) const {
  if (plan == kNoPlan) return Status(StatusKind::kUnsupported, "the call's description is too long for the protocol");
  if (scalars.size() > limits::call_scalar_bytes_max) {
    return Status(StatusKind::kUnsupported, fmt::format("a call with {} bytes of scalars", scalars.size()));
  }
  std::lock_guard guard(recorder_.lock);
  if (plan.raw >= recorder_.plans.size()) return Status(StatusKind::kInvalid, fmt::format("no plan {}", plan.raw));
  if (const size_t wanted = recorder_.plans[plan.raw].slots(); slots.size() != wanted) {
    return Status(StatusKind::kInvalid, fmt::format("plan {} takes {} slots, not {}", plan.raw, wanted, slots.size()));
  }
  return {};
}

Status Queue::create(Slot slot, uint64_t bytes) {
  if (slot.queue() != id_) return other_queue("create");
  return unless_ended(record(16, {}, [&](wire::RecordsBuilder& to) { to.create(slot, bytes); }));
}

Status Queue::resize(Slot slot, uint64_t bytes) {
  if (slot.queue() != id_) return other_queue("resize");
  return unless_ended(record(16, {}, [&](wire::RecordsBuilder& to) { to.resize(slot, bytes); }));
}

Status Queue::command(std::span<const std::byte> body) {
  if (body.size() > limits::command_bytes_max) return Status(StatusKind::kUnsupported, "the command is too long");
  return unless_ended(
      record(body.size() + 16, {}, [&](wire::RecordsBuilder& to) { to.command(body, wire::Answer::kNone); }));
}

Status Queue::after(Queue& other, CallNumber call) {
  if (&other == this || call.raw == 0) return {};
  if (&other.core_ != &core_) return other.synchronize();  // another worker: nobody there can wait for this one
  return unless_ended(record(16, {}, [&](wire::RecordsBuilder& to) {
    if (rest_->after_seen[other.id_.raw] >= call.raw) return to.after(other.id_, call);
    rest_->after_seen[other.id_.raw] = call.raw;
    to.after(other.id_, call);
  }));
}

// Under all locks concerned: what we record next runs after everything that `other` has recorded.
void Queue::come_after(size_t other) {
  const CallNumber last = core_.queue(other).last_call_locked();
  uint64_t& seen = rest_->after_seen[other];
  if (last.raw <= seen) return;
  seen = last.raw;
  recorder_.builder.after(QueueId{static_cast<uint16_t>(other)}, last);
}

CallNumber Queue::last_call_locked() const { return CallNumber{recorder_.builder.next_call().raw - 1}; }

CallNumber Queue::last_call() const {
  std::lock_guard guard(recorder_.lock);
  return last_call_locked();
}

// --- names -----------------------------------------------------------------------------------------------------------

PlanId Queue::define_plan(uint16_t reads, uint16_t creates, std::span<const std::byte> body) {
  if (body.size() > limits::plan_body_bytes_max || size_t{reads} + creates > limits::call_slot_count_max)
    return kNoPlan;
  Recorder::Urge urge = Recorder::Urge::kNone;
  PlanId plan;
  {
    std::lock_guard guard(recorder_.lock);
    if (recorder_.plans.size() >= limits::plan_count_max) return kNoPlan;
    plan.raw = static_cast<uint32_t>(recorder_.plans.size());
    recorder_.plans.push_back({reads, creates});
    // A failure that is still to be raised does not matter: DEFINE_PLAN acts on a stopped queue too.
    if ((recorder_.trouble.load(std::memory_order_relaxed) & ~uint32_t{Recorder::kFailed}) == 0) {
      recorder_.make_room(body.size() + 32);
      recorder_.builder.define_plan(plan, reads, creates, body);
      urge = recorder_.note_appended();
    }
  }
  if (urge != Recorder::Urge::kNone) kick(urge);
  return plan;
}

bool Queue::take_conformed(PlanId* plan) {
  std::lock_guard guard(recorder_.lock);
  if (rest_->conformed_untold.empty()) return false;
  *plan = rest_->conformed_untold.front();
  rest_->conformed_untold.pop_front();
  conformed_count_.fetch_sub(1, std::memory_order_relaxed);
  return true;
}

bool Queue::conformed(PlanId plan) const {
  std::lock_guard guard(recorder_.lock);
  return rest_->conformed.contains(plan.raw);
}

void Queue::free_slot_of_other(Slot slot) noexcept {
  if (slot.none() || slot.queue().raw >= core_.queue_count()) return;
  core_.queue(slot.queue().raw).free_slot(slot);
}

void Queue::kick_for_free() noexcept {
  if (recorder_.trouble.load(std::memory_order_relaxed) & ~uint32_t{Recorder::kFailed}) return;
  if (!recorder_.kicked.exchange(true, std::memory_order_seq_cst)) core_.kick(Recorder::Urge::kSoon);
}

void Queue::kick(Recorder::Urge urge) { core_.kick(urge); }

// --- trouble ---------------------------------------------------------------------------------------------------------

// What a recording function or read says instead of recording. A failure is told once, and the worker is told where to
// go on: at the next call of ours.
Status Queue::raise_locked(const std::function<void()>& unlock) {
  const uint32_t trouble = recorder_.trouble.load(std::memory_order_relaxed);
  Status status;
  bool resumed = false;
  if (trouble & Recorder::kForked) {
    unlock();
    return SessionCore::forked_status();
  }
  if (trouble & Recorder::kEnded) {
    unlock();
    return SessionCore::ended_status();
  }
  if (trouble & Recorder::kLost) {
    status = rest_->end;
  } else if (trouble & Recorder::kFailed) {
    status = std::move(rest_->failure);
    rest_->failure = Status();
    recorder_.trouble.fetch_and(~uint32_t{Recorder::kFailed}, std::memory_order_relaxed);
    recorder_.make_room(12);
    recorder_.builder.resume_at(recorder_.builder.next_call());
    recorder_.note_appended();
    resumed = true;
  }
  unlock();
  if (resumed) kick(Recorder::Urge::kSoon);
  return status;
}

// `failure` came back as an answer: if it is the one that nobody was told yet, this is the telling.
Status Queue::raise_seen(const Status& failure) {
  recorder_.lock.lock();
  const bool untold = (recorder_.trouble.load(std::memory_order_relaxed) == Recorder::kFailed) &&
                      rest_->failure_call == failure.detail().call && failure.kind() == rest_->failure.kind();
  if (untold) return raise_locked([this] { recorder_.lock.unlock(); });
  recorder_.lock.unlock();
  return failure;
}

Status Queue::unless_ended(Status status) const {
  if (!status.ok() && (recorder_.trouble.load(std::memory_order_relaxed) & Recorder::kEnded)) return {};
  return status;
}

// --- the loop's side -------------------------------------------------------------------------------------------------

uint64_t Queue::collect(std::vector<Buffer>& frames, uint64_t bytes_max) {
  if (!recorder_.kicked.load(std::memory_order_acquire)) return 0;
  uint64_t left = 0;
  {
    std::lock_guard guard(recorder_.lock);
    recorder_.kicked.store(false, std::memory_order_seq_cst);  // pairs with free_slot(): see SlotTable::take_dropped()
    if (recorder_.slots.any_dropped()) recorder_.put_dropped();
    left = recorder_.take_frames(frames, bytes_max);
    if (left != 0) recorder_.kicked.store(true, std::memory_order_relaxed);
  }
  if (rest_->room_waiters.load(std::memory_order_seq_cst) != 0) wake_room_waiters();
  return left;
}

void Queue::wake_room_waiters() {
  { std::lock_guard guard(rest_->room_mutex); }
  rest_->room.notify_all();
}

void Queue::on_failed(CallNumber call, Status failure) {
  std::vector<std::shared_ptr<Pending>> released;
  {
    std::lock_guard guard(recorder_.lock);
    const bool stands = recorder_.trouble.load(std::memory_order_relaxed) != 0;  // since an earlier failure
    if (!stands) {
      rest_->failure = failure;
      rest_->failure_call = call.raw;
      recorder_.trouble.fetch_or(Recorder::kFailed, std::memory_order_relaxed);
    }
    for (const auto& [number, pending] : rest_->pending) {
      if (number == call.raw || (number > call.raw && !stands)) released.push_back(pending);
    }
  }
  for (const auto& pending : released) pending->finish(failure);
}

void Queue::on_conformed(PlanId plan) {
  std::lock_guard guard(recorder_.lock);
  if (!rest_->conformed.insert(plan.raw).second) return;
  rest_->conformed_untold.push_back(plan);
  conformed_count_.fetch_add(1, std::memory_order_relaxed);
}

void Queue::end_with(Recorder::Trouble trouble, Status why) {
  std::vector<std::shared_ptr<Pending>> released;
  {
    std::lock_guard guard(recorder_.lock);
    recorder_.trouble.fetch_or(trouble, std::memory_order_relaxed);
    rest_->end = why;
    for (const auto& [number, pending] : rest_->pending) released.push_back(pending);
  }
  for (const auto& pending : released) pending->finish(why);
  wake_room_waiters();
}

void Queue::in_forked_child() {
  recorder_.lock.unlock();  // whoever held it does not exist here
  recorder_.trouble.fetch_or(Recorder::kForked, std::memory_order_relaxed);
}

Queue::Counts Queue::counts() const {
  std::lock_guard guard(recorder_.lock);
  return {last_call_locked().raw, recorder_.plans.size(), recorder_.frees};
}

}  // namespace waldo::client
