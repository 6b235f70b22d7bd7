// The one place where a user thread blocks for the far side. Each block is counted here, with the user's file and line
// and the seconds it took; nothing else in the client waits.
//
// One wait is one round trip that the user stood still for. Several reads issued together and then finished one by one
// are therefore one wait: a thread that blocks on something recorded before its previous wait began is still in that
// wait, and only its seconds are added.
//
// Threads: everything from any thread. Hooks are called on the thread that waits, with no lock of ours held.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "client/counters.h"

namespace waldo::client {

// What a front end lends to the client. Called without any lock of ours held. May be empty.
struct Hooks {
  std::function<bool()> interrupted;                   // asked about every 50 ms of a wait (user threads)
  std::function<std::pair<std::string, int>()> where;  // the user's file and line, when a wait starts
};

class Waits {
 public:
  static constexpr std::chrono::milliseconds kAskEvery{50};

  void set_hooks(Hooks hooks);

  // A number for something that may be waited for later; rises with every call, over all objects of this class.
  static uint64_t issue() { return issued_.fetch_add(1, std::memory_order_relaxed) + 1; }

  // Blocks until `ready()`; `lock` guards what it looks at and is held when it is called. kCancelled when the user
  // asked to stop. `issued`: the number of what is waited for. Returns with the lock held.
  Status block(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, uint64_t issued,
               const std::function<bool()>& ready);

  // The same for a function of another module that may block: it asks `interrupted()` once when it begins to block,
  // which is what counts, and then every kAskEvery, holding no lock.
  Status block(const std::function<Status(const std::function<bool()>& interrupted)>& blocking);

  bool interrupted() const;  // has the user asked to stop? Asks the hook
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  std::vector<WaitPlace> places() const;

 private:
  using Place = std::pair<std::string, int>;
  class Scope;

  std::shared_ptr<const Hooks> hooks() const;
  void ended(const Place& place, bool counted, double seconds);

  static inline std::atomic<uint64_t> issued_{0};
  std::atomic<uint64_t> count_{0};
  mutable std::mutex mutex_;
  // mutex_
  std::shared_ptr<const Hooks> hooks_ = std::make_shared<const Hooks>();
  std::map<Place, std::pair<uint64_t, double>> places_;
};

}  // namespace waldo::client
