// The simulator's director: threads that run one at a time, in an order that a seed decides, under a clock that moves
// only when nobody can go on.
//
// The thread that makes a Stage is its scheduler; it also runs the loops (manual ones, made on it) and what was put
// into the calendar. Every other thread is an actor: started through waldo::Thread, it gives the baton back whenever it
// waits. So there are no data races and no chance: a seed is a run.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/blocking.h"
#include "base/clock.h"
#include "base/prng.h"
#include "channel/loop.h"

namespace waldo::sim {

// The run broke a promise: a deadlock, no end, a wrong value. Ends the run; what() is for a person.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Stage final : public Director {
 public:
  explicit Stage(uint64_t seed);
  ~Stage() override;  // every actor must have ended, unless a Failure did

  const Clock& clock() const { return clock_; }
  TimePoint now() const { return clock_.now(); }
  Prng& prng() { return prng_; }
  void add(channel::Loop& loop) { loops_.push_back(&loop); }
  void forget_loops() { loops_.clear(); }

  // Calendar: runs on the scheduler's thread.
  void at(TimePoint when, std::function<void()> event);
  // Of an actor: the time passes; false when `stop` said so meanwhile.
  bool sleep(Duration time, const std::function<bool()>& stop);

  // Runs everything until `done`. Throws Failure when nothing can go on, or after too many steps.
  void run_until(const std::function<bool()>& done);

  // Asked after every step on the scheduler's thread; throws Failure.
  void set_invariant(std::function<void()> check) { invariant_ = std::move(check); }
  uint64_t steps() const { return steps_; }
  // Changes with everything that happened, and when: two runs of one seed have the same.
  uint64_t fingerprint() const { return fingerprint_; }

  bool wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready,
            std::optional<Duration> at_most) override;
  std::function<void()> start(std::function<void()> body) override;

 private:
  struct Actor {
    std::thread thread;
    std::condition_variable turn;
    bool has_baton = false;
    bool done = false;
    const std::function<bool()>* ready = nullptr;  // null: can go on
    std::optional<TimePoint> deadline;
  };

  bool step();  // false: nothing can go on now
  bool advance();
  void give_baton(Actor& actor);
  void return_baton(Actor& actor);
  std::string describe() const;

  FakeClock clock_;
  Prng prng_;
  std::vector<channel::Loop*> loops_;
  std::multimap<TimePoint, std::function<void()>> calendar_;
  std::vector<std::shared_ptr<Actor>> actors_;
  std::vector<size_t> choices_;
  std::function<void()> invariant_;
  uint64_t steps_ = 0, fingerprint_ = 0;
  bool ending_ = false;

  std::mutex baton_mutex_;
  std::condition_variable scheduler_turn_;
  bool scheduler_has_baton_ = true;  // baton_mutex_
  static thread_local Actor* self_;
};

}  // namespace waldo::sim
