// A small backend that behaves: storages are bytes, a plan's body is the name of one of a few operators. With it
// client, channel and server are tested without torch. Product-quality, but never part of the product.
//
//   body          reads      creates  does
//   add_u8        a, b       c        c[i] = a[i] + b[i], wrapping; kInvalid when the sizes differ
//   add_into_u8   a, b       -        a[i] += b[i]
//   copy_u8       a          c        c = a
//   conform_u8    a          c        as copy_u8, and says that it had to conform the output
//   full_u8       -          c        c = scalars: u64 size, u64 value
//   fill_u8       a          -        a[i] = scalars: u64 value
//   nop           any        any      creates empty storages
//   slow          any        any      waits until the gate is open, then as nop
//   fail          any        any      kDevice "made to fail"
//   oom           any        any      kDevice, error class kOutOfMemory
//   anything else any        any      defines, but a call of it is kUnsupported and names it
//
// A report holds a u64 size per created slot. A command's report is the command's body; a command "fail" fails.
// An empty body is malformed (kInvalid).
//
// answer_later(): reads, syncs and times are told when the gate is open, as a device would that works behind its queue.
// break_device(): such an answer is then a failure.
//
// Threads: as backend.h; all queues share one table, so a call may name slots of every queue.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/backend.h"

namespace waldo::server {

// What "slow" waits for. Open at first.
class FakeGate {
 public:
  void shut();
  void open();
  bool is_open() const;
  void wait_open();
  void wait_until_waiters(int count);  // blocks until so many calls are waiting in wait_open()

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int waiters_ = 0;
};

class FakeBackend final : public Backend {
 public:
  explicit FakeBackend(int devices = 1);
  ~FakeBackend() override;

  std::string info_json() override;
  Result<std::unique_ptr<QueueBackend>> open_queue(QueueId queue) override;

  // For tests, from any thread.
  FakeGate& gate() { return gate_; }
  void answer_later() { answers_later_ = true; }  // before queues are opened
  void break_device() { broken_ = true; }
  std::vector<std::string> log() const;  // "queue:op" of every call that ran, in the order they began
  size_t live_slots() const;             // values and poison alike

 private:
  friend class FakeQueue;
  struct Entry {
    std::vector<std::byte> bytes;
    Status error;  // not ok: poisoned
  };

  const int devices_;
  bool answers_later_ = false;
  std::atomic<bool> broken_{false};
  FakeGate gate_;
  mutable std::mutex mutex_;  // guards the rest
  std::unordered_map<Slot, Entry> slots_;
  std::vector<std::string> log_;
};

}  // namespace waldo::server
