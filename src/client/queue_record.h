// The slow way of every record, and what a queue has beyond its recorder. Included by queue*.cc and session_core.cc
// only.
#pragma once

#include <array>
#include <bit>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "client/pending.h"
#include "client/session.h"
#include "client/session_core.h"

namespace waldo::client {

struct Queue::Rest {
  // The recorder's lock.
  std::unordered_map<uint64_t, std::shared_ptr<Pending>> pending;  // by call number
  Status failure;                                                  // while kFailed: what nobody was told yet
  uint64_t failure_call = 0;
  Status end;                                                  // while kLost: why
  std::array<uint64_t, limits::queue_count_max> after_seen{};  // newest call of each queue that an AFTER here named
  std::unordered_set<uint32_t> conformed;                      // plans, ever
  std::deque<PlanId> conformed_untold;

  // Threads that wait for the outbox to shrink.
  std::mutex room_mutex;
  std::condition_variable room;
  std::atomic<int> room_waiters{0};
};

// Locks the recorders of a queue and of all queues that own one of `named`, in the order of their numbers, so that two
// threads that use each other's queues cannot wait for each other.
class QueueLocks {
 public:
  QueueLocks(SessionCore& core, QueueId own, std::span<const Slot> named);
  ~QueueLocks() { unlock(); }
  void unlock();
  QueueLocks(const QueueLocks&) = delete;
  QueueLocks& operator=(const QueueLocks&) = delete;

  bool valid() const { return mask_ != 0; }    // every slot names a queue that there is
  uint64_t others() const { return others_; }  // a bit per queue other than `own`

 private:
  SessionCore& core_;
  uint64_t mask_ = 0, others_ = 0;
  bool locked_ = false;
};

// At most what a CALL record takes.
inline size_t call_bytes(std::span<const Slot> slots, std::span<const std::byte> scalars) {
  return 16 + sizeof(Slot) * slots.size() + scalars.size();
}

// Appends what `append(RecordsBuilder&)` writes, at most `bytes` of it, in its turn: after what was dropped before,
// after the calls of other queues it depends on; and lets those queues' later records come after it.
template <typename Append>
Status Queue::record(size_t bytes, std::span<const Slot> named, Append&& append) {
  while (true) {
    QueueLocks locks(core_, id_, named);
    if (!locks.valid()) return Status(StatusKind::kInvalid, "a slot of a queue that does not exist");
    if (recorder_.trouble.load(std::memory_order_relaxed) != 0) return raise_locked([&locks] { locks.unlock(); });
    if (recorder_.waiting_bytes() > Recorder::kWaitingBytesMax) {
      locks.unlock();
      WALDO_TRY(wait_for_room());
      continue;
    }
    constexpr size_t kAfterBytes = 12;
    if (recorder_.slots.any_dropped()) recorder_.put_dropped();
    recorder_.make_room(bytes + kAfterBytes * limits::queue_count_max);
    for (uint64_t rest = locks.others(); rest != 0; rest &= rest - 1) {
      come_after(static_cast<size_t>(std::countr_zero(rest)));
    }
    append(recorder_.builder);
    for (uint64_t rest = locks.others(); rest != 0; rest &= rest - 1) {
      Queue& other = core_.queue(static_cast<size_t>(std::countr_zero(rest)));
      other.recorder_.make_room(kAfterBytes);
      other.recorder_.builder.after(id_, last_call_locked());
      other.recorder_.note_appended();  // our own kick below is for all queues
    }
    const Recorder::Urge urge = recorder_.note_appended();
    locks.unlock();
    if (urge == Recorder::Urge::kNow) {
      kick(urge);
    } else if (urge == Recorder::Urge::kSoon || locks.others() != 0) {
      kick(Recorder::Urge::kSoon);
    }
    return {};
  }
}

}  // namespace waldo::client
