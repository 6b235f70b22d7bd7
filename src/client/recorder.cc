#include "client/recorder.h"

#include <algorithm>

namespace waldo::client {

void Recorder::put_many(SlotTable::Dropped dropped) {
  std::vector<Slot> all;
  all.reserve(dropped.count);
  slots.give_back(dropped, [&](Slot slot, void* owner) {
    if (owner != nullptr) released(owner);
    all.push_back(slot);
  });
  frees += all.size();
  // Few at a time, so that no FREE makes a frame much longer than the soft limit.
  constexpr size_t kSlotsPerFree = 4096;
  static_assert(kSlotsPerFree <= limits::free_count_max);
  for (size_t at = 0; at < all.size(); at += kSlotsPerFree) {
    const size_t some = std::min(kSlotsPerFree, all.size() - at);
    make_room(4 + 4 * some);
    builder.free(std::span(all).subspan(at, some));
  }
}

void Recorder::put_dropped_slow() {
  if ((trouble.load(std::memory_order_relaxed) & ~uint32_t{kFailed}) != 0) {
    slots.give_back(slots.take_dropped(), [this](Slot, void* owner) {
      if (owner != nullptr) released(owner);
    });
    return;
  }
  make_room(4 + sizeof(Slot) * kFewDropped);
  put_dropped();
}

void Recorder::seal() {
  if (builder.empty()) return;
  Buffer frame = builder.take();
  sealed_bytes_ += frame.size();
  sealed_.push_back(std::move(frame));
}

uint64_t Recorder::take_frames(std::vector<Buffer>& frames, uint64_t bytes_max) {
  if (sealed_bytes_ < bytes_max) {
    seal();
    urged_ = false;
  }
  uint64_t taken = 0;
  size_t count = 0;
  while (count < sealed_.size() && taken < bytes_max) {
    taken += sealed_[count].size();
    frames.push_back(std::move(sealed_[count++]));
  }
  sealed_.erase(sealed_.begin(), sealed_.begin() + static_cast<std::ptrdiff_t>(count));
  sealed_bytes_ -= taken;
  return waiting_bytes();
}

}  // namespace waldo::client
