// The door between sending threads and the loop: admits what the lane's window has room for, makes the others wait.
//
// Any thread. What is admitted counts until the peer has consumed it, so queued, sent and unconsumed bytes together
// stay within the window (but for what collect() brings: at most one batch more).
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "channel/core.h"

namespace waldo::channel {

class SendGate {
 public:
  struct Item {
    Lane lane;
    wire::FrameKind kind;
    Buffer payload;
  };
  enum class Wait : uint8_t { kBlock, kNever };

  explicit SendGate(Windows windows = default_windows) : windows_(windows) {}

  // kLost (or what close() was given) after the end, kCancelled when `interrupted` said so, kOverloaded with kNever.
  Status push(Item item, Wait wait, const std::function<bool()>& interrupted);
  void admit(Lane lane, uint64_t bytes);  // without asking: for what the loop collected itself
  bool full(Lane lane) const;
  void take(std::vector<Item>& items);  // loop: what was pushed, in order
  void set_consumed(Lane lane, uint64_t consumed);
  void close(Status why);  // wakes everybody; `why` is not ok; the first one stays

 private:
  const Windows windows_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;
  std::array<uint64_t, wire::lane_count> admitted_{}, consumed_{};
  Status closed_;
};

}  // namespace waldo::channel
