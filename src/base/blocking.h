// Where one thread of a session waits for another, and where it starts one. In the product this is a condition variable
// and std::thread; a simulator (tests/sim) takes their place and is then the only one who decides who runs next, so
// that a run with many threads is a function of one seed. Every wait of client, channel and server goes through here.
//
// Threads: any. `lock` is held when a function is called and when it returns; `ready` is called with nothing else
// running that could change what it looks at, and must not block.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"

namespace waldo {

class Director {
 public:
  virtual ~Director() = default;
  // Returns what `ready` says in the end: false only when `at_most` has passed.
  virtual bool wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready,
                    std::optional<Duration> at_most) = 0;
  // Runs `body` on a thread of its own; the result waits for its end.
  virtual std::function<void()> start(std::function<void()> body) = 0;

  // Of this thread; null in the product. A thread that a director starts has it too.
  static Director*& current();
};

template <typename Ready>
void block(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, const Ready& ready) {
  if (Director* director = Director::current()) {
    if (!ready()) director->wait(lock, ready, std::nullopt);
    return;
  }
  changed.wait(lock, ready);
}

template <typename Ready>
bool block_for(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, Duration at_most,
               const Ready& ready) {
  if (Director* director = Director::current()) return ready() || director->wait(lock, ready, at_most);
  return changed.wait_for(lock, at_most, ready);
}

// A std::thread whose maker's director, if any, runs it. Join it before it is destroyed.
class Thread {
 public:
  Thread() = default;
  explicit Thread(std::function<void()> body) {
    if (Director* director = Director::current()) {
      join_ = director->start(std::move(body));
    } else {
      thread_ = std::thread(std::move(body));
    }
  }
  bool joinable() const { return join_ != nullptr || thread_.joinable(); }
  void join() {
    if (join_) {
      std::exchange(join_, nullptr)();
    } else {
      thread_.join();
    }
  }

 private:
  std::thread thread_;
  std::function<void()> join_;
};

}  // namespace waldo
