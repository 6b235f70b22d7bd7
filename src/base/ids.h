// Distinct types for the numbers that name things. A queue is one device of a session; slots and plans are
// numbered per queue, so that one queue's stream never depends on how far another queue has got.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace waldo {

template <typename Tag, typename Raw>
struct Id {
  Raw raw{};
  friend constexpr auto operator<=>(const Id&, const Id&) = default;
};

using FrameNumber = Id<struct FrameNumberTag, uint64_t>;  // 1, 2, 3 … per direction and channel; 0: none yet
using CallNumber = Id<struct CallNumberTag, uint64_t>;    // 1, 2, 3 … per queue; 0: none yet
using QueueId = Id<struct QueueIdTag, uint16_t>;          // the device index within its session
using PlanId = Id<struct PlanIdTag, uint32_t>;            // per queue, dense from 0
using UploadId = Id<struct UploadIdTag, uint64_t>;        // per session, from 1
using SessionId = Id<struct SessionIdTag, uint64_t>;      // chosen by the daemon; 0: new session

// The client's name for one storage on the worker: queue in the high 6 bits, index below.
struct Slot {
  static constexpr uint32_t kIndexBits = 26;
  static constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
  static constexpr uint32_t kNoneRaw = 0xffffffffu;

  uint32_t raw = kNoneRaw;

  static constexpr Slot make(QueueId queue, uint32_t index) {
    return Slot{(static_cast<uint32_t>(queue.raw) << kIndexBits) | index};
  }
  constexpr QueueId queue() const { return QueueId{static_cast<uint16_t>(raw >> kIndexBits)}; }
  constexpr uint32_t index() const { return raw & kIndexMask; }
  constexpr bool none() const { return raw == kNoneRaw; }
  friend constexpr auto operator<=>(const Slot&, const Slot&) = default;
};

}  // namespace waldo

template <typename Tag, typename Raw>
struct std::hash<waldo::Id<Tag, Raw>> {
  size_t operator()(const waldo::Id<Tag, Raw>& id) const noexcept { return std::hash<Raw>()(id.raw); }
};
template <>
struct std::hash<waldo::Slot> {
  size_t operator()(const waldo::Slot& slot) const noexcept { return std::hash<uint32_t>()(slot.raw); }
};
