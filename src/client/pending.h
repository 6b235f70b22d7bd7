// One answer that is on its way: a read's bytes, an ask's report, the end of a SYNC, the time of a TIME record.
// The queue keeps it under its call number from the record on; the loop thread fills it; a user thread waits for it.
//
// Ownership: shared by the queue's table and whoever waits. `destination` is the caller's memory; it is written only
//            under `mutex` and only while `abandoned` is false, so abandon() returns when nobody writes there any more.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "base/bytes.h"
#include "base/status.h"

namespace waldo::client {

struct Pending {
  enum class Kind : uint8_t { kRead, kReport, kSync, kTime };

  Pending(Kind kind, uint64_t issued) : kind(kind), issued(issued) {}

  // The answer is complete, or will never come. Later calls change nothing.
  void finish(Status why) {
    {
      std::lock_guard lock(mutex);
      if (done) return;
      status = std::move(why);
      done = true;
    }
    changed.notify_all();
  }
  void abandon() {
    std::lock_guard lock(mutex);
    abandoned = true;
    destination = nullptr;
  }

  const Kind kind;
  const uint64_t issued;  // Waits::issue()

  std::mutex mutex;
  std::condition_variable changed;
  // mutex
  bool done = false;
  bool abandoned = false;
  Status status;
  std::byte* destination = nullptr;
  uint64_t bytes = 0, received = 0;  // of a read
  Buffer report;
  uint64_t time_ns = 0;
};

}  // namespace waldo::client
