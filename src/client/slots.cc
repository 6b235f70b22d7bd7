#include "client/slots.h"

namespace waldo::client {

Slot SlotTable::take_new() {
  // The last index of the last queue is the none slot, so one slot less than the limit is ever given out.
  if (ever_ + 1 >= limits::slot_count_max) return Slot{};
  auto& chunk = chunks_[ever_ >> kChunkBits];
  if (chunk == nullptr) chunk = std::make_unique<Chunk>();
  const uint32_t index = ever_++;
  at(index).next.store(kLive, std::memory_order_relaxed);
  at(index).owner = nullptr;
  ++live_;
  return Slot::make(queue_, index);
}

}  // namespace waldo::client
