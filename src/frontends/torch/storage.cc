#include "frontends/torch/storage.h"

#include <c10/util/Exception.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <string>

#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "wire/limits.h"

namespace waldo::torch_frontend {
namespace {

constexpr uint64_t kStepBytes = 512;           // the CUDA caching allocator's rounding
constexpr uint64_t kSmallBytesMax = 1u << 20;  // its border between the small and the large pool
constexpr uint64_t kSegmentBytes = 2u << 20;
constexpr uint32_t kExactClasses = kSmallBytesMax / kStepBytes;  // sizes up to 1 MiB: one class per 512 bytes
constexpr uint32_t kStepsPerDoubling = 8;                        // above: 8 per doubling
constexpr uint32_t kClasses = kExactClasses + 1 + kStepsPerDoubling * 32;

constexpr uint64_t kReservedBytesMax = 1ull << 44;  // 16 TiB
constexpr uint64_t kRegionBytes = 1ull << 32;       // of one device each, so that an address names its device
constexpr uint64_t kRegions = kReservedBytesMax / kRegionBytes;

std::atomic<bool> g_closed{false};

class SpinLock {
 public:
  void lock() {
    for (int spins = 0; flag_.test_and_set(std::memory_order_acquire); ++spins) {
      if (spins > 64) sched_yield();
    }
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_ = ATOMIC_FLAG_INIT;
};

struct SizeClass {
  uint32_t index = 0;
  uint64_t span = 0;  // address space taken
};

// Class 0 is for nothing: it takes no address.
SizeClass size_class(uint64_t bytes) {
  const uint64_t steps = bytes / kStepBytes + (bytes % kStepBytes != 0);
  if (steps <= kExactClasses) return {static_cast<uint32_t>(steps), steps * kStepBytes};
  const int log2 = std::bit_width(steps - 1) - 1;  // 2^log2 < steps' span <= 2^(log2+1)
  const uint64_t unit = (1ull << log2) / kStepsPerDoubling;
  const uint64_t part = (steps - 1 - (1ull << log2)) / unit;  // 0 … 7
  const uint64_t span_steps = (1ull << log2) + (part + 1) * unit;
  const uint32_t doubling = static_cast<uint32_t>(log2) - std::bit_width(uint64_t{kExactClasses - 1});
  return {kExactClasses + 1 + doubling * kStepsPerDoubling + static_cast<uint32_t>(part), span_steps * kStepBytes};
}

// Address space that is never valid, cut into regions of one device each.
class AddressSpace {
 public:
  AddressSpace() {
    for (uint64_t bytes = kReservedBytesMax; bytes >= kRegionBytes; bytes /= 2) {
      void* at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) continue;  // an address-space limit: half of it may fit
      base_ = reinterpret_cast<uintptr_t>(at);
      bytes_ = bytes;
      break;
    }
    owners_.fill(-1);
  }

  // `count` whole regions in a row for a device; null when the reservation is used up.
  std::byte* take(int8_t device, uint64_t count) {
    const uint64_t first = next_.fetch_add(count, std::memory_order_relaxed);
    if (first + count > bytes_ / kRegionBytes) return nullptr;
    std::fill_n(owners_.begin() + static_cast<ptrdiff_t>(first), count, device);
    return reinterpret_cast<std::byte*>(base_ + first * kRegionBytes);
  }
  int owner(const void* address) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at < base_ || at - base_ >= bytes_) return -1;
    return owners_[(at - base_) / kRegionBytes];
  }

 private:
  uintptr_t base_ = 0;
  uint64_t bytes_ = 0;
  std::atomic<uint64_t> next_{0};
  std::array<int8_t, kRegions> owners_;
};
AddressSpace& address_space() {
  static auto* space = new AddressSpace;  // never destroyed: deleters outlive us
  return *space;
}

void add(Tally& tally, int64_t amount) {
  tally.current += amount;
  tally.allocated += amount;
  tally.peak = std::max(tally.peak, tally.current);
}
void subtract(Tally& tally, int64_t amount) {
  tally.current -= amount;
  tally.freed += amount;
}

uint64_t rounded(uint64_t bytes) { return (bytes + kStepBytes - 1) / kStepBytes * kStepBytes; }

// One device's StorageRefs, addresses and figures.
class Pool {
 public:
  // Null when `bytes` more would pass the limit, or no device has that much, or addresses are used up.
  StorageRef* take(int8_t device, uint64_t bytes) {
    const bool possible = bytes <= limits::storage_bytes_max;
    const SizeClass kind = size_class(possible ? bytes : 0);
    const uint64_t taken = rounded(bytes);
    lock_.lock();
    if (!possible || (stats_.limit != 0 && static_cast<uint64_t>(stats_.bytes[0].current) + taken > stats_.limit))
        [[unlikely]] {
      ++stats_.out_of_memory;
      lock_.unlock();
      return nullptr;
    }
    StorageRef* ref = free_[kind.index];
    if (ref != nullptr) [[likely]] {
      free_[kind.index] = ref->next_free;
    } else {
      ref = make(device, kind);
      if (ref == nullptr) {
        lock_.unlock();
        return nullptr;
      }
    }
    account_for(bytes, taken);
    lock_.unlock();
    ref->bytes = bytes;
    return ref;
  }

  void give_back(StorageRef* ref) noexcept {
    lock_.lock();
    const int pool = rounded(ref->bytes) <= kSmallBytesMax ? 1 : 2;
    for (const int i : {0, pool}) {
      subtract(stats_.count[i], ref->bytes != 0);
      subtract(stats_.bytes[i], static_cast<int64_t>(rounded(ref->bytes)));
      subtract(stats_.requested[i], static_cast<int64_t>(ref->bytes));
    }
    ref->next_free = free_[ref->size_class];
    free_[ref->size_class] = ref;
    lock_.unlock();
  }

  template <typename Change>
  auto locked(const Change& change) {
    lock_.lock();
    struct Unlock {
      SpinLock& lock;
      ~Unlock() { lock.unlock(); }
    } unlock{lock_};
    return change(stats_);
  }

 private:
  StorageRef* make(int8_t device, const SizeClass& kind) {
    std::byte* address = nullptr;
    if (kind.span != 0) {
      if (kind.span > static_cast<uint64_t>(end_ - next_)) {
        const uint64_t regions = (kind.span + kRegionBytes - 1) / kRegionBytes;
        std::byte* fresh = address_space().take(device, regions);
        if (fresh == nullptr) return nullptr;
        next_ = fresh;
        end_ = fresh + regions * kRegionBytes;
      }
      address = next_;
      next_ += kind.span;
    }
    auto* ref = new StorageRef;
    ref->device = device;
    ref->size_class = kind.index;
    ref->address = address;
    return ref;
  }

  void account_for(uint64_t bytes, uint64_t taken) {
    const int pool = taken <= kSmallBytesMax ? 1 : 2;
    for (const int i : {0, pool}) {
      add(stats_.count[i], bytes != 0);
      add(stats_.bytes[i], static_cast<int64_t>(taken));
      add(stats_.requested[i], static_cast<int64_t>(bytes));
    }
    if (stats_.bytes[0].current > stats_.reserved.current) [[unlikely]] {
      const int64_t missing = stats_.bytes[0].current - stats_.reserved.current;
      const int64_t segments =
          (missing + static_cast<int64_t>(kSegmentBytes) - 1) / static_cast<int64_t>(kSegmentBytes);
      add(stats_.reserved, segments * static_cast<int64_t>(kSegmentBytes));
      add(stats_.segments, segments);
    }
  }

  SpinLock lock_;
  MemoryStats stats_;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  std::array<StorageRef*, kClasses> free_{};
};

Pool& pool(c10::DeviceIndex device) {
  static auto* pools = new std::array<std::atomic<Pool*>, kDevicesMax>{};  // never destroyed
  auto& entry = (*pools)[static_cast<size_t>(device)];
  Pool* found = entry.load(std::memory_order_acquire);
  if (found == nullptr) [[unlikely]] {
    auto* fresh = new Pool;
    if (entry.compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
  }
  return *found;
}

std::string in_units(uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text;
}

[[noreturn]] void throw_out_of_memory(c10::DeviceIndex device, uint64_t bytes) {
  const MemoryStats stats = memory_stats(device);
  const auto used = static_cast<uint64_t>(stats.bytes[0].current);
  const uint64_t free = stats.limit > used ? stats.limit - used : 0;
  C10_THROW_ERROR(OutOfMemoryError, "CUDA out of memory. Tried to allocate " + in_units(bytes) + ". GPU " +
                                        std::to_string(device) + " has a total capacity of " + in_units(stats.limit) +
                                        " of which " + in_units(free) + " is free. Of the allocated memory " +
                                        in_units(used) + " is allocated by PyTorch.");
}

StorageRef* take_ref(client::Queue& queue, c10::DeviceIndex device, uint64_t bytes, Slot slot) {
  StorageRef* ref = pool(device).take(device, bytes);
  if (ref == nullptr) [[unlikely]] {
    if (!slot.none()) queue.free_slot(slot);
    throw_out_of_memory(device, bytes);
  }
  ref->queue = &queue;
  ref->slot = slot;
  ref->writes = 0;
  return ref;
}

c10::DataPtr data_of(StorageRef* ref) {
  return {ref->address, ref, &delete_storage_ref, c10::Device(c10::DeviceType::CUDA, ref->device)};
}

}  // namespace

void delete_storage_ref(void* context) noexcept {
  auto* ref = static_cast<StorageRef*>(context);
  if (ref == nullptr || g_closed.load(std::memory_order_relaxed)) return;
  if (!ref->slot.none()) ref->queue->free_slot(ref->slot);
  pool(ref->device).give_back(ref);
}

c10::Storage make_storage(client::Queue& queue, c10::DeviceIndex device, uint64_t bytes, Slot slot) {
  StorageRef* ref = take_ref(queue, device, bytes, slot);
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(bytes),
                                               data_of(ref), allocator(), true);
}

c10::DataPtr new_data(client::Queue& queue, c10::DeviceIndex device, uint64_t bytes) {
  const Slot slot = queue.new_slot();
  TORCH_CHECK(!slot.none(), "too many device storages are alive at once (", limits::slot_count_max, ")");
  return data_of(take_ref(queue, device, bytes, slot));
}

c10::DataPtr create_data(c10::DeviceIndex device, uint64_t bytes) {
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, device));
  c10::DataPtr data = new_data(queue, device, bytes);
  check(queue.create(static_cast<StorageRef*>(data.get_context())->slot, bytes));
  return data;
}

c10::Storage create_storage(c10::DeviceIndex device, uint64_t bytes) {
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), static_cast<int64_t>(bytes),
                                               create_data(device, bytes), allocator(), true);
}

// The slot keeps its name: it moves to a StorageRef with an address of the new size.
void resize_storage(c10::StorageImpl& storage, uint64_t bytes) {
  StorageRef* old_ref = storage_ref(storage);
  TORCH_CHECK(old_ref != nullptr, "resize: this storage is not on a Waldo device");
  if (old_ref->bytes == bytes) {
    storage.set_nbytes(static_cast<size_t>(bytes));
    return;
  }
  StorageRef* ref = pool(old_ref->device).take(old_ref->device, bytes);
  if (ref == nullptr) throw_out_of_memory(old_ref->device, bytes);
  if (Status status = old_ref->queue->resize(old_ref->slot, bytes); !status.ok()) {
    pool(ref->device).give_back(ref);
    throw_status(status);
  }
  ref->queue = old_ref->queue;
  ref->slot = old_ref->slot;
  ref->writes = old_ref->writes + 1;
  c10::DataPtr old_data = storage.set_data_ptr(data_of(ref));
  storage.set_nbytes(static_cast<size_t>(bytes));
  static_cast<void>(old_data.release_context());  // not its deleter: the slot lives on
  pool(old_ref->device).give_back(old_ref);
}

int device_of_address(const void* address) { return address_space().owner(address); }

MemoryStats memory_stats(c10::DeviceIndex device) {
  return pool(device).locked([](MemoryStats& stats) { return stats; });
}

void reset_peak_memory(c10::DeviceIndex device) {
  pool(device).locked([](MemoryStats& stats) {
    for (auto* tallies : {stats.count, stats.bytes, stats.requested}) {
      for (int i = 0; i < 3; ++i) tallies[i].peak = tallies[i].current;
    }
    stats.reserved.peak = stats.reserved.current;
    stats.segments.peak = stats.segments.current;
  });
}

void reset_accumulated_memory(c10::DeviceIndex device) {
  pool(device).locked([](MemoryStats& stats) {
    for (auto* tallies : {stats.count, stats.bytes, stats.requested}) {
      for (int i = 0; i < 3; ++i) tallies[i].allocated = tallies[i].freed = 0;
    }
    stats.reserved.allocated = stats.reserved.freed = 0;
    stats.segments.allocated = stats.segments.freed = 0;
    stats.out_of_memory = 0;
  });
}

void empty_cache(c10::DeviceIndex device) {
  pool(device).locked([](MemoryStats& stats) {
    const auto step = static_cast<int64_t>(kSegmentBytes);
    const int64_t segments = (stats.bytes[0].current + step - 1) / step;
    subtract(stats.reserved, stats.reserved.current - segments * step);
    subtract(stats.segments, stats.segments.current - segments);
  });
}

void set_memory_limit(c10::DeviceIndex device, uint64_t bytes) {
  pool(device).locked([bytes](MemoryStats& stats) { stats.limit = bytes; });
}

void close_storages() noexcept { g_closed.store(true, std::memory_order_relaxed); }

}  // namespace waldo::torch_frontend
