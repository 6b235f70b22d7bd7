// One device's memory as the client counts it: StorageRefs, the addresses they pose with, and the figures that
// PyTorch's CUDA caching allocator would report. Memory is taken and given back under the lock of the device's queue,
// together with the slots that name it, so that an ordinary call takes one lock in all.
//
// Owns:    StorageRefs, pooled for ever per size class, each with its address.
// Threads: everything but the limit under the queue's lock.
// Watched: by a MemoryWatch, which costs nothing while there is none.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "frontends/torch/device.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

// What one new storage takes, worked out once per plan.
struct StorageNeed {
  StorageNeed() = default;
  explicit StorageNeed(uint64_t bytes);

  uint64_t bytes = 0;       // as asked for
  uint64_t taken = 0;       // rounded as the caching allocator does
  uint64_t span = 0;        // of address space
  uint32_t size_class = 0;  // 0: nothing, and no address
  uint8_t pool = 1;         // 1 small, 2 large: its place in MemoryStats
  bool possible = true;     // no device has more than limits::storage_bytes_max
};

// Told of memory that has an address, under the queue's lock (allocation_history.h).
class MemoryWatch {
 public:
  virtual ~MemoryWatch() = default;
  virtual bool may_take() = 0;  // false: refuse for now, this thread has to say first who it is
  virtual void taken(const StorageRef& ref) = 0;
  virtual void given_back(const StorageRef& ref) = 0;
  virtual void refused(c10::DeviceIndex device, uint64_t bytes, uint64_t free) = 0;
};

class MemoryPool {
 public:
  static constexpr uint32_t kExactClasses = 2048;  // sizes up to 1 MiB: one class per 512 bytes
  static constexpr uint32_t kClasses = kExactClasses + 1 + 8 * 32;

  static MemoryPool& of(c10::DeviceIndex device) {
    MemoryPool* found = table()[static_cast<size_t>(device)].load(std::memory_order_acquire);
    return found != nullptr ? *found : make_pool(device);
  }

  // Hot. Null when it would pass the limit, addresses are used up, or the watch wants it tried again.
  [[gnu::always_inline]] StorageRef* take(const StorageNeed& need) {
    if (!need.possible || exceeds(gate_.load(std::memory_order_relaxed), need)) [[unlikely]]
      return take_slow(need);
    return take_unchecked(need);
  }

  // Hot, and for what nobody watches; else give_back_watched().
  void give_back(StorageRef* ref) noexcept {
    const uint64_t taken = rounded(ref->bytes);
    const size_t pool = pool_for(taken);
    stats_.count[pool].current -= ref->bytes != 0;
    stats_.bytes[pool].current -= static_cast<int64_t>(taken);
    stats_.requested[pool].current -= static_cast<int64_t>(ref->bytes);
    ref->next_free = free_[ref->size_class];
    free_[ref->size_class] = ref;
  }
  void give_back_watched(StorageRef* ref) noexcept;

  // Null: nobody. It must live for ever.
  void set_watch(MemoryWatch* watch);

  // Brings the sums of both pools up to date; of them only the peaks are always so.
  MemoryStats& stats() {
    for (auto* tallies : {stats_.count, stats_.bytes, stats_.requested}) {
      tallies[0].current = total(tallies);
      tallies[0].allocated = tallies[1].allocated + tallies[2].allocated;
      tallies[0].at_reset = tallies[1].at_reset + tallies[2].at_reset;
    }
    return stats_;
  }
  std::vector<MemoryBlock> blocks() const;  // what lives and has an address, by address

  // Any thread.
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  void set_limit(uint64_t bytes);

  static constexpr uint64_t rounded(uint64_t bytes) { return (bytes + kStepBytes - 1) / kStepBytes * kStepBytes; }
  static constexpr size_t pool_for(uint64_t taken) { return taken <= kSmallBytesMax ? 1 : 2; }
  static constexpr uint64_t kStepBytes = 512;           // the CUDA caching allocator's rounding
  static constexpr uint64_t kSmallBytesMax = 1u << 20;  // its border between the small and the large pool
  static constexpr uint64_t kSegmentBytes = 2u << 20;

  static void add(Tally& tally, int64_t amount) {
    tally.current += amount;
    tally.allocated += amount;
    if (tally.current > tally.peak) [[unlikely]]
      tally.peak = tally.current;
  }
  static void subtract(Tally& tally, int64_t amount) { tally.current -= amount; }

 private:
  explicit MemoryPool(c10::DeviceIndex device) : device_(static_cast<int8_t>(device)) {}
  using Table = std::array<std::atomic<MemoryPool*>, kDevicesMax>;
  static Table& table() { return *g_table; }
  static Table* const g_table;  // never destroyed: deleters outlive us
  static MemoryPool& make_pool(c10::DeviceIndex device);

  static int64_t total(const Tally* tallies) { return tallies[1].current + tallies[2].current; }
  static int64_t count(Tally* tallies, size_t pool, int64_t amount) {
    add(tallies[pool], amount);
    const int64_t sum = total(tallies);
    if (sum > tallies[0].peak) [[unlikely]]
      tallies[0].peak = sum;
    return sum;
  }
  bool exceeds(uint64_t limit, const StorageNeed& need) const {
    return limit != 0 && static_cast<uint64_t>(total(stats_.bytes)) + need.taken > limit;
  }
  [[gnu::always_inline]] StorageRef* take_unchecked(const StorageNeed& need) {
    StorageRef* ref = free_[need.size_class];
    if (ref == nullptr) [[unlikely]] {
      ref = make(need);
      if (ref == nullptr) return refuse(need);
    }
    free_[need.size_class] = ref->next_free;
    count(stats_.count, need.pool, need.bytes != 0);
    count(stats_.requested, need.pool, static_cast<int64_t>(need.bytes));
    if (count(stats_.bytes, need.pool, static_cast<int64_t>(need.taken)) > stats_.reserved.current) [[unlikely]]
      reserve_more();
    ref->bytes = need.bytes;
    return ref;
  }
  StorageRef* take_slow(const StorageNeed& need);
  StorageRef* make(const StorageNeed& need);  // not yet off the free list
  StorageRef* refuse(const StorageNeed& need);
  void set_gate();
  void reserve_more();

  const int8_t device_;
  std::atomic<uint64_t> limit_{0};
  std::atomic<uint64_t> gate_{0};  // the limit, or a byte while somebody watches: then every take is a slow one
  std::atomic<MemoryWatch*> watch_{nullptr};  // changed under the queue's lock
  MemoryStats stats_;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  std::array<StorageRef*, kClasses> free_{};
  std::vector<StorageRef*> made_;
};

}  // namespace waldo::torch_frontend
