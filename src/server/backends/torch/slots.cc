#include "server/backends/torch/slots.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace waldo::torch_backend {

SlotTable::SlotTable()
    // calloc of this size is mapped zero pages, so an unused range costs nothing; all-zero is a null atomic pointer.
    : chunks_(static_cast<std::atomic<Chunk*>*>(std::calloc(kChunkCount, sizeof(std::atomic<Chunk*>)))) {
  static_assert(std::atomic<Chunk*>::is_always_lock_free && sizeof(std::atomic<Chunk*>) == sizeof(Chunk*));
  if (chunks_ == nullptr) throw std::bad_alloc();
}

SlotTable::~SlotTable() {
  for (uint32_t i = 0; i < used_; ++i) delete chunks_[i].load(std::memory_order_relaxed);
  std::free(chunks_);
}

SlotEntry& SlotTable::ensure(uint32_t index) {
  std::atomic<Chunk*>& chunk = chunks_[index >> kChunkBits];
  Chunk* entries = chunk.load(std::memory_order_relaxed);
  if (entries == nullptr) {
    entries = new Chunk();
    chunk.store(entries, std::memory_order_release);
    used_ = std::max(used_, (index >> kChunkBits) + 1);
  }
  return (*entries)[index & (kChunkSize - 1)];
}

}  // namespace waldo::torch_backend
