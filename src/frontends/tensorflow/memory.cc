#include "frontends/tensorflow/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <utility>

namespace waldo::tensorflow_frontend {

namespace {

// 32 regions of 2^39 bytes, one for each size 256, 512, … Blocks of a region lie side by side.
constexpr int kRegionBits = 39;
constexpr int kRegions = 32;
constexpr int kSmallestBits = 8;
constexpr size_t kChunkBlocks = 4096;
constexpr size_t kChunks = 1u << 14;

class AddressSpace {
 public:
  static AddressSpace& instance() {
    static AddressSpace* const space = new AddressSpace();  // never destroyed: tensors may outlive everything
    return *space;
  }

  Block* take(uint64_t bytes) {
    const int region = std::max(0, static_cast<int>(std::bit_width(std::max<uint64_t>(bytes, 1) - 1)) - kSmallestBits);
    if (region >= kRegions || base_ == nullptr) return nullptr;
    std::lock_guard lock(mutex_);
    Region& mine = regions_[static_cast<size_t>(region)];
    if (!mine.free.empty()) {
      Block* block = mine.free.back();
      mine.free.pop_back();
      return block;
    }
    const uint64_t index = mine.used;
    if (index >= kChunks * kChunkBlocks || ((index + 1) << (kSmallestBits + region)) > (1ull << kRegionBits)) {
      return nullptr;
    }
    ++mine.used;
    auto& chunk = mine.chunks[index / kChunkBlocks];
    if (chunk.load(std::memory_order_relaxed) == nullptr) chunk.store(new Block[kChunkBlocks]);
    Block* block = chunk.load(std::memory_order_relaxed) + index % kChunkBlocks;
    block->address = base_ + (static_cast<uint64_t>(region) << kRegionBits) + (index << (kSmallestBits + region));
    return block;
  }

  void give(Block* block) {
    const auto region = static_cast<size_t>((static_cast<char*>(block->address) - base_) >> kRegionBits);
    std::lock_guard lock(mutex_);
    regions_[region].free.push_back(block);
  }

  Block* find(const void* address) const {
    const auto offset = static_cast<uint64_t>(static_cast<const char*>(address) - base_);
    if (base_ == nullptr || offset >= static_cast<uint64_t>(kRegions) << kRegionBits) return nullptr;
    const uint64_t region = offset >> kRegionBits;
    const uint64_t index = (offset & ((1ull << kRegionBits) - 1)) >> (kSmallestBits + region);
    if (index >= kChunks * kChunkBlocks) return nullptr;
    Block* chunk = regions_[region].chunks[index / kChunkBlocks].load(std::memory_order_acquire);
    return chunk == nullptr ? nullptr : chunk + index % kChunkBlocks;
  }

 private:
  struct Region {
    std::unique_ptr<std::atomic<Block*>[]> chunks = std::make_unique<std::atomic<Block*>[]>(kChunks);
    uint64_t used = 0;
    std::vector<Block*> free;
  };

  AddressSpace() {
    void* at = ::mmap(nullptr, static_cast<size_t>(kRegions) << kRegionBits, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    base_ = at == MAP_FAILED ? nullptr : static_cast<char*>(at);
  }

  char* base_ = nullptr;
  std::mutex mutex_;
  std::array<Region, kRegions> regions_;
};

thread_local Slot t_adopted;

}  // namespace

Block* find_block(const void* address) { return AddressSpace::instance().find(address); }

void FarAllocator::adopt(Slot slot) { t_adopted = slot; }

void* FarAllocator::AllocateRaw(size_t, size_t bytes) {
  const Slot adopted = std::exchange(t_adopted, Slot{});
  if (queue_ == nullptr) return nullptr;
  {
    std::lock_guard lock(mutex_);
    if (limit_ != 0 && stats_.bytes_in_use + static_cast<int64_t>(bytes) > static_cast<int64_t>(limit_)) return nullptr;
    ++stats_.num_allocs;
    stats_.bytes_in_use += static_cast<int64_t>(bytes);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    stats_.largest_alloc_size = std::max(stats_.largest_alloc_size, static_cast<int64_t>(bytes));
  }
  Block* block = AddressSpace::instance().take(bytes);
  if (block == nullptr) return nullptr;
  block->queue = queue_;
  block->slot = adopted.none() ? queue_->new_slot() : adopted;
  block->bytes = bytes;
  block->fingerprint = 0;
  return block->address;
}

void FarAllocator::DeallocateRaw(void* address) {
  Block* block = find_block(address);
  if (block == nullptr) return;
  if (!block->slot.none()) block->queue->free_slot(block->slot);
  {
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(block->bytes);
  }
  block->slot = Slot{};
  block->shadow.reset();
  AddressSpace::instance().give(block);
}

size_t FarAllocator::RequestedSize(const void* address) const {
  const Block* block = find_block(address);
  return block == nullptr ? 0 : block->bytes;
}

std::optional<tsl::AllocatorStats> FarAllocator::GetStats() {
  std::lock_guard lock(mutex_);
  tsl::AllocatorStats stats = stats_;
  if (limit_ != 0) stats.bytes_limit = static_cast<int64_t>(limit_);
  return stats;
}

bool FarAllocator::ClearStats() {
  std::lock_guard lock(mutex_);
  stats_.num_allocs = 0;
  stats_.peak_bytes_in_use = stats_.bytes_in_use;
  stats_.largest_alloc_size = 0;
  return true;
}

}  // namespace waldo::tensorflow_frontend
