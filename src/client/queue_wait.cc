// What waits: reads, asks, synchronize, events, and the outbox when megabytes are on their way.
#include <fmt/format.h>

#include "base/os/memory.h"
#include "client/queue_record.h"

namespace waldo::client {

// Records like record(), and has the answer that will come put into `pending`.
template <typename Append>
Status Queue::record_pending(const std::shared_ptr<Pending>& pending, CallNumber* call, size_t bytes,
                             std::span<const Slot> named, Append&& append) {
  return record(bytes, named, [&](wire::RecordsBuilder& to) {
    *call = append(to);
    rest_->pending.emplace(call->raw, pending);
  });
}

// --- asks ------------------------------------------------------------------------------------------------------------

Status Queue::ask(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars, Buffer* report) {
  WALDO_TRY(check_call(plan, slots, scalars));
  auto pending = std::make_shared<Pending>(Pending::Kind::kReport, Waits::issue());
  CallNumber call;
  WALDO_TRY(record_pending(pending, &call, call_bytes(slots, scalars), slots, [&](wire::RecordsBuilder& to) {
    return to.call(plan, slots, scalars, wire::Answer::kReport);
  }));
  core_.count_ask();
  if (Status status = finish_pending(pending, call, Counted::kAlways); !status.ok()) {
    // The very call that was asked for has failed: who reads the error stands at its line and needs no operator's name.
    StatusDetail detail = status.detail();
    if (detail.call != call.raw || detail.queue != id_.raw) return status;
    detail.op.clear();
    return Status(status.kind(), status.text(), std::move(detail));
  }
  if (report != nullptr) *report = std::move(pending->report);
  return {};
}

Status Queue::ask_command(std::span<const std::byte> body, Buffer* report) {
  if (body.size() > limits::command_bytes_max) return Status(StatusKind::kUnsupported, "the command is too long");
  auto pending = std::make_shared<Pending>(Pending::Kind::kReport, Waits::issue());
  CallNumber call;
  WALDO_TRY(record_pending(pending, &call, body.size() + 16, {},
                           [&](wire::RecordsBuilder& to) { return to.command(body, wire::Answer::kReport); }));
  core_.count_ask();
  WALDO_TRY(finish_pending(pending, call, Counted::kAlways));
  if (report != nullptr) *report = std::move(pending->report);
  return {};
}

// --- reads -----------------------------------------------------------------------------------------------------------

Status Queue::read(Slot slot, uint64_t offset, void* destination, uint64_t bytes) {
  auto ticket = start_read(slot, offset, destination, bytes);
  if (!ticket.ok()) return ticket.status();
  return finish_pending(find_pending(ticket->call), ticket->call, Counted::kAlways);
}

Result<ReadTicket> Queue::start_read(Slot slot, uint64_t offset, void* destination, uint64_t bytes) {
  if (slot.queue() != id_) return Status(StatusKind::kInvalid, "read names a slot of another queue");
  os::want_huge_pages(destination, bytes);  // new memory, as a rule: the user's tensor was just made
  auto pending = std::make_shared<Pending>(Pending::Kind::kRead, Waits::issue());
  pending->destination = static_cast<std::byte*>(destination);
  pending->bytes = bytes;
  ReadTicket ticket;
  WALDO_TRY(record_pending(pending, &ticket.call, 24, {},
                           [&](wire::RecordsBuilder& to) { return to.read(slot, offset, bytes); }));
  return ticket;
}

Status Queue::finish_read(ReadTicket ticket) {
  return finish_pending(find_pending(ticket.call), ticket.call, Counted::kIfItBlocks);
}

bool Queue::read_done(ReadTicket ticket) { return reached(ticket.call); }

void Queue::abandon_read(ReadTicket ticket) noexcept {
  if (const auto pending = take_pending(ticket.call)) pending->abandon();
}

Status Queue::synchronize() {
  auto pending = std::make_shared<Pending>(Pending::Kind::kSync, Waits::issue());
  CallNumber call;
  WALDO_TRY(record_pending(pending, &call, 4, {}, [](wire::RecordsBuilder& to) { return to.sync(); }));
  return finish_pending(pending, call, Counted::kAlways);
}

// --- events ----------------------------------------------------------------------------------------------------------

Result<CallNumber> Queue::record_time() {
  auto pending = std::make_shared<Pending>(Pending::Kind::kTime, Waits::issue());
  CallNumber call;
  WALDO_TRY(record_pending(pending, &call, 4, {}, [](wire::RecordsBuilder& to) { return to.time(); }));
  return call;
}

bool Queue::reached(CallNumber time_call) {
  const auto pending = find_pending(time_call);
  if (pending == nullptr) return true;
  if (core_.forked()) return true;
  std::lock_guard lock(pending->mutex);
  return pending->done;
}

Result<uint64_t> Queue::time_ns(CallNumber time_call) {
  const auto pending = find_pending(time_call);
  if (pending == nullptr) return Status(StatusKind::kInvalid, "this event was not recorded, or was forgotten");
  if (Status status = wait_for(pending, Counted::kIfItBlocks); !status.ok()) {
    return status.kind() == StatusKind::kCancelled ? status : raise_seen(status);
  }
  return pending->time_ns;
}

void Queue::forget_time(CallNumber time_call) noexcept { take_pending(time_call); }

// --- waiting ---------------------------------------------------------------------------------------------------------

// Ends `pending`, whatever comes of it: nobody writes to its destination any more when this returns.
Status Queue::finish_pending(const std::shared_ptr<Pending>& pending, CallNumber call, Counted counted) {
  if (pending == nullptr) return Status(StatusKind::kInvalid, fmt::format("no read with call number {}", call.raw));
  Status status = wait_for(pending, counted);
  take_pending(call);
  if (status.ok()) return status;
  pending->abandon();
  return status.kind() == StatusKind::kCancelled ? status : raise_seen(status);
}

// The status the worker answered with, or kCancelled when the user asked to stop first.
Status Queue::wait_for(const std::shared_ptr<Pending>& pending, Counted counted) {
  if (core_.forked()) return SessionCore::forked_status();
  std::unique_lock lock(pending->mutex);
  if (counted == Counted::kAlways || !pending->done) {
    lock.unlock();
    // Even while a kSoon is under way: the user stands still from here on.
    if (recorder_.kicked.load(std::memory_order_relaxed)) kick(Recorder::Urge::kNow);
    lock.lock();
    WALDO_TRY(core_.waits().block(lock, pending->changed, pending->issued, [&] { return pending->done; }));
  }
  return pending->status;
}

Status Queue::wait_for_room() {
  kick(Recorder::Urge::kNow);
  rest_->room_waiters.fetch_add(1, std::memory_order_seq_cst);
  Status status;
  {
    std::unique_lock lock(rest_->room_mutex);
    const auto ready = [this] {
      std::lock_guard guard(recorder_.lock);
      return recorder_.waiting_bytes() <= Recorder::kWaitingBytesMax ||
             (recorder_.trouble.load(std::memory_order_relaxed) & ~uint32_t{Recorder::kFailed}) != 0;
    };
    if (!ready()) status = core_.waits().block(lock, rest_->room, Waits::issue(), ready);
  }
  rest_->room_waiters.fetch_sub(1, std::memory_order_relaxed);
  return status;
}

std::shared_ptr<Pending> Queue::find_pending(CallNumber call) const {
  std::lock_guard guard(recorder_.lock);
  const auto found = rest_->pending.find(call.raw);
  return found == rest_->pending.end() ? nullptr : found->second;
}

std::shared_ptr<Pending> Queue::take_pending(CallNumber call) noexcept {
  std::lock_guard guard(recorder_.lock);
  const auto found = rest_->pending.find(call.raw);
  if (found == rest_->pending.end()) return nullptr;
  auto pending = std::move(found->second);
  rest_->pending.erase(found);
  return pending;
}

}  // namespace waldo::client
