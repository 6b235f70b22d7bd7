// The hot half of a queue: slot numbers, plan numbers, call numbers and the outbox, all under one small lock.
// Everything an ordinary call does is in this header and in wire/records.h, so that a front end's one boxed kernel
// compiles to straight code; whatever is rare (a full segment, a failure to raise, a slot of another queue) answers
// false and goes the slow way in record.h.
//
// Owns:    the records that the channel has not collected yet; what it collects at once becomes one records frame.
// Threads: any; `lock` guards all but the atomics.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "client/api.h"
#include "client/slots.h"
#include "client/small_lock.h"
#include "wire/limits.h"
#include "wire/records.h"

namespace waldo::client {

// For try_call_making(): slots without owners, and room for everything.
struct NoOwners {
  bool admit() { return true; }
  void* name(size_t, Slot) { return nullptr; }
};

class Recorder {
 public:
  // Why a record cannot simply be appended. More than one may hold.
  enum Trouble : uint32_t {
    kFailed = 1,  // a call failed and nobody was told yet
    kLost = 2,    // the session is over
    kEnded = 4,   // after shutdown()
    kForked = 8,  // in a child process
  };
  enum class Urge : uint8_t { kNone, kSoon, kNow, kNoRoom };
  // Told of the owner of each slot whose FREE is recorded, with the lock held, by whatever thread holds it.
  using Released = void (*)(void* owner) noexcept;

  // From so many bytes on, records are sent without waiting for more: about 150 calls.
  static constexpr size_t kUrgentBytes = 6u << 10;
  // Above this the recording thread blocks until the channel took some.
  static constexpr uint64_t kWaitingBytesMax = 2u << 20;

  struct Arity {
    uint16_t reads = 0, creates = 0;
    size_t slots() const { return size_t{reads} + creates; }
  };

  explicit Recorder(QueueId queue) : slots(queue), builder(queue) {}

  // --- hot, by itself under the lock ---------------------------------------------------------------------------------

  // Appends what was dropped before as a FREE, then one CALL. False: nothing was done, take the slow way.
  bool try_call(PlanId plan, std::span<const Slot> named, std::span<const std::byte> scalars, Urge* urge) {
    std::lock_guard guard(lock);
    if (!can_append() || !can_call(plan, named.size(), named, scalars)) [[unlikely]]
      return false;
    if (slots.any_dropped()) put_dropped();
    builder.call(plan, named, scalars);
    *urge = note_appended();
    return true;
  }

  // As try_call(), with new slots for what the plan creates: one lock for both. Under it, once nothing else can go
  // wrong, `admit()` says whether there is room for what they will hold (false: nothing was done and *urge is kNoRoom),
  // then `name(i, slot)` is told the i-th new slot and gives its owner.
  template <typename Made>
  bool try_call_making(PlanId plan, std::span<Slot> named, std::span<const std::byte> scalars, Urge* urge, Made& made) {
    std::lock_guard guard(lock);
    if (!can_append() || plan.raw >= plans.size()) [[unlikely]]
      return false;
    const size_t reads = plans[plan.raw].reads;
    if (reads > named.size() || !can_call(plan, named.size(), named.first(reads), scalars)) [[unlikely]]
      return false;
    const size_t creates = named.size() - reads;
    if (!slots.can_take(creates)) [[unlikely]]
      return false;
    if (slots.any_dropped()) put_dropped();
    if (!made.admit()) [[unlikely]] {
      *urge = Urge::kNoRoom;
      return true;
    }
    take_slots(named.subspan(reads), made);
    builder.call(plan, named, scalars);
    *urge = note_appended();
    return true;
  }

  // --- under the lock, for the slow ways -----------------------------------------------------------------------------

  // New slots with the owners that `made` names; none slots when there are no more.
  template <typename Made>
  void take_slots(std::span<Slot> into, Made& made) {
    for (size_t i = 0; i < into.size(); ++i) {
      into[i] = slots.take();
      if (!into[i].none()) [[likely]]
        slots.set_owner(into[i], made.name(i, into[i]));
    }
  }
  // Before appending a record of `bytes`: seals what a frame could not hold together with it.
  void make_room(size_t bytes) {
    if (builder.full() || builder.bytes() + bytes > limits::frame_payload_bytes_max) seal();
  }
  // FREE records for everything dropped so far. Hot: almost every call of a training step is preceded by a drop or two.
  void put_dropped() {
    const SlotTable::Dropped dropped = slots.take_dropped();
    if (dropped.count > kFewDropped) [[unlikely]]
      return put_many(dropped);
    if (dropped.count == 0) [[unlikely]]
      return;
    Slot* to = builder.free(dropped.count);  // the last of what a frame holds beyond its soft limit
    slots.give_back(dropped, [&](Slot slot, void* owner) {
      if (owner != nullptr) released(owner);
      *to++ = slot;
    });
    frees += dropped.count;
  }
  // The same in any state: whether the frame is full, or the session over and nothing sent any more.
  WALDO_API void put_dropped_slow();
  // After appending: must the channel be told?
  Urge note_appended() {
    if (!kicked.load(std::memory_order_relaxed)) [[unlikely]] {
      kicked.store(true, std::memory_order_seq_cst);
      return Urge::kSoon;
    }
    if (builder.bytes() >= kUrgentBytes && sealed_bytes_ < limits::records_bytes_soft) [[unlikely]] {
      // Here, not by the loop: the builder's memory stays in this core's cache. When the loop does not keep up the
      // builder fills instead, and a full one goes the slow way, where the bound on all that waits is kept.
      seal();
      return std::exchange(urged_, true) ? Urge::kNone : Urge::kNow;
    }
    return Urge::kNone;
  }
  // Moves whole frames out, at most about `bytes_max` of them; gives the bytes that are left.
  uint64_t take_frames(std::vector<Buffer>& frames, uint64_t bytes_max);
  uint64_t waiting_bytes() const { return sealed_bytes_ + (builder.empty() ? 0 : builder.bytes()); }

  // Is the call well-formed, and all of it in this queue?
  bool can_call(PlanId plan, size_t count, std::span<const Slot> named, std::span<const std::byte> scalars) const {
    return plan.raw < plans.size() && count == plans[plan.raw].slots() &&
           scalars.size() <= limits::call_scalar_bytes_max && !names_other_queue(named);
  }
  bool names_other_queue(std::span<const Slot> named) const {
    const uint32_t mine = Slot::make(builder.queue(), 0).raw;
    uint32_t different = 0;
    for (const Slot slot : named) different |= slot.raw ^ mine;
    return (different & ~Slot::kIndexMask) != 0;
  }

  // --- state ---------------------------------------------------------------------------------------------------------

  mutable SmallLock lock;
  std::atomic<bool> kicked{false};   // the channel knows that something waits here
  std::atomic<uint32_t> trouble{0};  // Trouble bits; set under the lock (kForked without)
  SlotTable slots;                   // its drop() without the lock
  // lock
  wire::RecordsBuilder builder;  // numbers calls, holds the newest records
  std::vector<Arity> plans;      // by plan number
  uint64_t frees = 0;            // slots named in FREE records so far
  Released released = nullptr;   // set before a slot gets an owner

 private:
  bool can_append() const { return trouble.load(std::memory_order_relaxed) == 0 && !builder.full(); }
  WALDO_API void seal();
  WALDO_API void put_many(SlotTable::Dropped dropped);

  static constexpr uint32_t kFewDropped = 8;

  // lock
  bool urged_ = false;
  std::vector<Buffer> sealed_;  // whole frames, oldest first
  uint64_t sealed_bytes_ = 0;
};

}  // namespace waldo::client
