#include "client/wait.h"

#include <optional>

#include "base/blocking.h"
#include "client/standing.h"

namespace waldo::client {
namespace {

// What this thread's newest counted wait covers: everything with a number up to `until`.
struct ThreadWait {
  uint64_t until = 0;
  std::pair<std::string, int> place;
};
thread_local ThreadWait thread_wait;

}  // namespace

// One block of one thread, from construction to destruction.
class Waits::Scope {
 public:
  Scope(Waits& waits, const Hooks& hooks, uint64_t issued) : waits_(waits), counted_(issued > thread_wait.until) {
    if (counted_) {
      thread_wait.until = Waits::issued_.load(std::memory_order_relaxed);
      thread_wait.place = hooks.where ? hooks.where() : Place{};
      waits.count_.fetch_add(1, std::memory_order_relaxed);
    }
    began_ = std::chrono::steady_clock::now();
    standing_threads.fetch_add(1, std::memory_order_relaxed);
  }
  ~Scope() {
    standing_threads.fetch_sub(1, std::memory_order_relaxed);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
    waits_.ended(thread_wait.place, counted_, took.count());
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Waits& waits_;
  const bool counted_;
  std::chrono::steady_clock::time_point began_;
};

Status Waits::block(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, uint64_t issued,
                    const std::function<bool()>& ready) {
  lock.unlock();
  const auto hooks = this->hooks();
  Status status;
  {
    Scope scope(*this, *hooks, issued);
    lock.lock();
    if (!hooks->interrupted) waldo::block(lock, changed, ready);
    while (!block_for(lock, changed, kAskEvery, ready)) {
      lock.unlock();
      const bool stop = hooks->interrupted();
      lock.lock();
      if (stop && !ready()) {
        status = Status(StatusKind::kCancelled, "interrupted while waiting for the worker");
        break;
      }
    }
    lock.unlock();  // ended() takes a lock of its own
  }
  lock.lock();
  return status;
}

Status Waits::block(const std::function<Status(const std::function<bool()>& interrupted)>& blocking) {
  const auto hooks = this->hooks();
  std::optional<Scope> scope;
  return blocking([&] {
    if (scope.has_value()) return hooks->interrupted && hooks->interrupted();
    scope.emplace(*this, *hooks, issue());
    return false;
  });
}

void Waits::set_hooks(Hooks hooks) {
  auto shared = std::make_shared<const Hooks>(std::move(hooks));
  std::lock_guard lock(mutex_);
  hooks_.swap(shared);  // the old ones die after the lock: they may own objects of an interpreter
}

std::shared_ptr<const Hooks> Waits::hooks() const {
  std::lock_guard lock(mutex_);
  return hooks_;
}

bool Waits::interrupted() const {
  const auto hooks = this->hooks();
  return hooks->interrupted && hooks->interrupted();
}

void Waits::ended(const Place& place, bool counted, double seconds) {
  std::lock_guard lock(mutex_);
  auto& [count, total] = places_[place];
  count += counted ? 1 : 0;
  total += seconds;
}

std::vector<WaitPlace> Waits::places() const {
  std::lock_guard lock(mutex_);
  std::vector<WaitPlace> places;
  for (const auto& [place, sums] : places_) places.push_back({place.first, place.second, sums.first, sums.second});
  return places;
}

}  // namespace waldo::client
