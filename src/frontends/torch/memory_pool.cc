#include "frontends/torch/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <unordered_set>

#include "wire/limits.h"

namespace waldo::torch_frontend {
namespace {

constexpr uint32_t kExactClasses = MemoryPool::kExactClasses;
static_assert(kExactClasses == MemoryPool::kSmallBytesMax / MemoryPool::kStepBytes);
constexpr uint32_t kStepsPerDoubling = 8;  // above 1 MiB: so many classes per doubling

constexpr uint64_t kReservedBytesMax = 1ull << 44;  // 16 TiB
constexpr uint64_t kRegionBytes = 1ull << 32;       // of one device each, so that an address names its device
constexpr uint64_t kRegions = kReservedBytesMax / kRegionBytes;

struct SizeClass {
  uint32_t index = 0;
  uint64_t span = 0;  // address space taken
};

// Class 0 is for nothing: it takes no address.
SizeClass size_class(uint64_t bytes) {
  const uint64_t steps = bytes / MemoryPool::kStepBytes + (bytes % MemoryPool::kStepBytes != 0);
  if (steps <= kExactClasses) return {static_cast<uint32_t>(steps), steps * MemoryPool::kStepBytes};
  const int log2 = std::bit_width(steps - 1) - 1;  // 2^log2 < steps' span <= 2^(log2+1)
  const uint64_t unit = (1ull << log2) / kStepsPerDoubling;
  const uint64_t part = (steps - 1 - (1ull << log2)) / unit;  // 0 … 7
  const uint64_t span_steps = (1ull << log2) + (part + 1) * unit;
  const uint32_t doubling = static_cast<uint32_t>(log2) - std::bit_width(uint64_t{kExactClasses - 1});
  return {kExactClasses + 1 + doubling * kStepsPerDoubling + static_cast<uint32_t>(part),
          span_steps * MemoryPool::kStepBytes};
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

}  // namespace

StorageNeed::StorageNeed(uint64_t wanted)
    : bytes(wanted), taken(MemoryPool::rounded(wanted)), possible(wanted <= limits::storage_bytes_max) {
  const SizeClass kind = waldo::torch_frontend::size_class(possible ? wanted : 0);
  span = kind.span;
  size_class = kind.index;
  pool = static_cast<uint8_t>(MemoryPool::pool_for(taken));
}

MemoryPool::Table* const MemoryPool::g_table = new Table{};

MemoryPool& MemoryPool::make_pool(c10::DeviceIndex device) {
  auto* fresh = new MemoryPool(device);
  MemoryPool* found = nullptr;
  if (table()[static_cast<size_t>(device)].compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) {
    return *fresh;
  }
  delete fresh;
  return *found;
}

StorageRef* MemoryPool::make(const StorageNeed& need) {
  std::byte* address = nullptr;
  if (need.span != 0) {
    if (need.span > static_cast<uint64_t>(end_ - next_)) {
      const uint64_t regions = (need.span + kRegionBytes - 1) / kRegionBytes;
      std::byte* fresh = address_space().take(device_, regions);
      if (fresh == nullptr) return nullptr;
      next_ = fresh;
      end_ = fresh + regions * kRegionBytes;
    }
    address = next_;
    next_ += need.span;
  }
  auto* ref = new StorageRef;
  ref->device = c10::Device(c10::DeviceType::CUDA, device_);
  ref->size_class = need.size_class;
  ref->address = address;
  made_.push_back(ref);
  return ref;
}

std::vector<MemoryBlock> MemoryPool::blocks() const {
  std::unordered_set<const StorageRef*> free;
  for (const StorageRef* ref : free_) {
    for (; ref != nullptr; ref = ref->next_free) free.insert(ref);
  }
  std::vector<MemoryBlock> living;
  for (const StorageRef* ref : made_) {
    if (ref->address == nullptr || free.contains(ref)) continue;
    const uint64_t taken = rounded(ref->bytes);
    living.push_back({ref->address, ref->bytes, taken, pool_for(taken) == 2});
  }
  std::ranges::sort(living, std::less<>(), &MemoryBlock::address);
  return living;
}

StorageRef* MemoryPool::take_slow(const StorageNeed& need) {
  MemoryWatch* watch = need.taken != 0 ? watch_.load(std::memory_order_relaxed) : nullptr;
  if (watch != nullptr && !watch->may_take()) return nullptr;
  if (!need.possible || exceeds(limit(), need)) return refuse(need);
  StorageRef* ref = take_unchecked(need);
  if (ref != nullptr && watch != nullptr) watch->taken(*ref);
  return ref;
}

void MemoryPool::give_back_watched(StorageRef* ref) noexcept {
  MemoryWatch* watch = watch_.load(std::memory_order_relaxed);
  if (watch != nullptr && ref->address != nullptr) watch->given_back(*ref);
  give_back(ref);
}

StorageRef* MemoryPool::refuse(const StorageNeed& need) {
  ++stats_.out_of_memory;
  const auto used = static_cast<uint64_t>(total(stats_.bytes));
  MemoryWatch* watch = watch_.load(std::memory_order_relaxed);
  if (watch != nullptr) watch->refused(device_, need.bytes, limit() > used ? limit() - used : 0);
  return nullptr;
}

void MemoryPool::set_watch(MemoryWatch* watch) {
  watch_.store(watch);
  set_gate();
}

void MemoryPool::set_limit(uint64_t bytes) {
  limit_.store(bytes);
  set_gate();
}

void MemoryPool::set_gate() {
  const MemoryWatch* watch = nullptr;
  uint64_t limit = 0;
  do {  // again when somebody changed either meanwhile
    watch = watch_.load();
    limit = limit_.load();
    gate_.store(watch != nullptr ? 1 : limit);
  } while (watch != watch_.load() || limit != limit_.load());
}

void MemoryPool::reserve_more() {
  const auto segment = static_cast<int64_t>(kSegmentBytes);
  const int64_t missing = total(stats_.bytes) - stats_.reserved.current;
  const int64_t segments = (missing + segment - 1) / segment;
  add(stats_.reserved, segments * segment);
  add(stats_.segments, segments);
}

int device_of_address(const void* address) { return address_space().owner(address); }

}  // namespace waldo::torch_frontend
