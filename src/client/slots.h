// The slot numbers of one queue: taken by the recorder, dropped by deleters, and taken again only after the FREE that
// names them was recorded. Both lists are threaded through one array, so neither taking nor dropping allocates.
//
// Beside each live slot stands its owner: whatever the front end wants to be told when the slot's FREE is recorded.
//
// Threads: drop() and any_dropped() from any thread, without a lock (deleters run under locks of others); the rest
// under
//          the queue's lock.
// Limit:   limits::slot_count_max live slots; take() then gives the none slot.
// Dropping a slot twice, or one that was never taken, is our own bug and stops.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/ids.h"
#include "client/api.h"
#include "wire/limits.h"

namespace waldo::client {

class SlotTable {
  static constexpr uint32_t kEnd = 0xffffffffu;

 public:
  explicit SlotTable(QueueId queue) : queue_(queue) {}

  Slot take() {  // without an owner
    if (free_ == kEnd) [[unlikely]]
      return take_new();
    const uint32_t index = free_;
    Entry& entry = at(index);
    free_ = entry.next.load(std::memory_order_relaxed);
    entry.next.store(kLive, std::memory_order_relaxed);
    entry.owner = nullptr;
    ++live_;
    return Slot::make(queue_, index);
  }
  void set_owner(Slot slot, void* owner) { at(slot.index()).owner = owner; }

  bool can_take(size_t count) const { return live_ + count < limits::slot_count_max; }

  // None of this touches memory that a forked child could not: the child's copy of the list goes nowhere.
  void drop(Slot slot) noexcept {
    const uint32_t index = slot.index();
    auto& mine = at(index).next;
    WALDO_CHECK(mine.load(std::memory_order_relaxed) == kLive);
    uint32_t head = dropped_.load(std::memory_order_relaxed);
    do {
      mine.store(head, std::memory_order_relaxed);
    } while (!dropped_.compare_exchange_weak(head, index, std::memory_order_seq_cst, std::memory_order_relaxed));
  }
  bool any_dropped() const { return dropped_.load(std::memory_order_relaxed) != kEnd; }

  // Slots that were dropped, in the order they were, and that cannot be taken yet.
  struct Dropped {
    uint32_t oldest = kEnd;
    uint32_t count = 0;
  };
  // Every slot dropped so far, to be given back at once.
  Dropped take_dropped() {
    // seq_cst pairs with drop(): whoever drops after this exchange sees the outbox's kicked flag as cleared before it.
    uint32_t index = dropped_.exchange(kEnd, std::memory_order_seq_cst);
    Dropped all;
    while (index != kEnd) {  // newest first -> oldest first
      auto& next = at(index).next;
      const uint32_t older = next.load(std::memory_order_relaxed);
      next.store(all.oldest, std::memory_order_relaxed);
      all.oldest = index;
      ++all.count;
      index = older;
    }
    return all;
  }
  // Calls `each(Slot, owner)`, oldest first; they can be taken again from now on, so the FREE must be in the outbox
  // before the lock is given back.
  template <typename Each>
  void give_back(Dropped all, Each&& each) {
    for (uint32_t index = all.oldest; index != kEnd;) {
      Entry& entry = at(index);
      each(Slot::make(queue_, index), entry.owner);
      const uint32_t newer = entry.next.load(std::memory_order_relaxed);
      entry.next.store(free_, std::memory_order_relaxed);
      free_ = index;
      index = newer;
    }
    live_ -= all.count;
  }

  uint32_t live() const { return live_; }
  uint32_t ever() const { return ever_; }  // the highest number of slots that lived at once, dropped ones included

 private:
  static constexpr uint32_t kLive = 0xfffffffeu;
  static constexpr uint32_t kChunkBits = 14;
  static constexpr uint32_t kChunkSlots = 1u << kChunkBits;
  struct Entry {
    std::atomic<uint32_t> next;  // in the list it is in; kLive in none
    void* owner;
  };
  using Chunk = std::array<Entry, kChunkSlots>;

  // A chunk exists before the first of its slots is given out, and never moves.
  Entry& at(uint32_t index) noexcept { return (*chunks_[index >> kChunkBits])[index & (kChunkSlots - 1)]; }

  WALDO_API Slot take_new();

  const QueueId queue_;
  std::atomic<uint32_t> dropped_{kEnd};
  // The queue's lock.
  uint32_t free_ = kEnd;
  uint32_t ever_ = 0;
  uint32_t live_ = 0;
  std::array<std::unique_ptr<Chunk>, (limits::slot_count_max >> kChunkBits)> chunks_;
};

}  // namespace waldo::client
