// The slots of one queue: what each holds, and the tensors last built over it.
//
// Owns:    storages, by reference count.
// Threads: only the queue's executor thread changes entries; other queues' executor threads may look entries up and
//          share their storage once the executor has ordered them (AFTER). Entries never move.
// Memory:  about 90 bytes per slot ever used; indices are recycled by the client, so that is its peak count.
#pragma once

#include <ATen/core/TensorBody.h>
#include <c10/core/Storage.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/ids.h"
#include "base/status.h"
#include "server/backends/torch/geometry.h"

namespace waldo::torch_backend {

struct SlotEntry {
  struct Built {
    const Geometry* geometry = nullptr;
    int64_t offset = 0;
    at::Tensor tensor;
  };

  c10::Storage storage;           // null: empty or poisoned
  uint64_t counted_bytes = 0;     // what the device's figure holds for this slot
  std::unique_ptr<Status> error;  // set: poisoned
  // A weight is used as itself and transposed in every step, hence two. For the owning queue only.
  std::array<Built, 2> built;
  uint8_t next_built = 0;

  bool has_value() const { return static_cast<bool>(storage); }
  void forget_built() {
    for (Built& b : built) b = Built{};
  }
};

class SlotTable {
 public:
  SlotTable();
  ~SlotTable();
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  SlotEntry* find(uint32_t index) const {  // null: never used
    const uint32_t chunk = index >> kChunkBits;
    if (chunk >= kChunkCount) [[unlikely]]
      return nullptr;
    Chunk* entries = chunks_[chunk].load(std::memory_order_acquire);
    return entries ? &(*entries)[index & (kChunkSize - 1)] : nullptr;
  }
  SlotEntry& ensure(uint32_t index);  // `index` <= Slot::kIndexMask

 private:
  static constexpr uint32_t kChunkBits = 8, kChunkSize = 1u << kChunkBits;
  static constexpr uint32_t kChunkCount = 1u << (Slot::kIndexBits - kChunkBits);
  using Chunk = std::array<SlotEntry, kChunkSize>;

  std::atomic<Chunk*>* chunks_;  // kChunkCount of them, zero pages until touched
  uint32_t used_ = 0;            // chunks at and past this one were never made
};

// What a device may hold, counted over the storages in slots.
struct MemoryCount {
  std::atomic<uint64_t> used{0};
  uint64_t cap = 0;  // 0: none of ours

  bool fits(uint64_t more) const {
    if (cap == 0) return true;
    const uint64_t now = used.load(std::memory_order_relaxed);
    return now <= cap && more <= cap - now;
  }
};

}  // namespace waldo::torch_backend
