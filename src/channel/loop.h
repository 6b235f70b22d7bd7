// One thread that runs what others post to it, timers, and the reads and writes of links.
//
// Threads: post() and on_loop_thread() from any thread; everything else on the loop thread, or before it matters.
// The thread blocks every signal, so the program's handlers run where they always did, and a closed pipe is an error
// and not a SIGPIPE. It never takes the interpreter's lock.
// Fork: in a child every function does nothing.
// Manual mode: no thread. The test is the loop: run_ready(), and a clock that it moves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/os/fork.h"

namespace asio {
class io_context;
}

namespace waldo::channel {

class Loop {
 public:
  enum class Mode : uint8_t { kThread, kManual };

  explicit Loop(Mode mode = Mode::kThread, const Clock& clock = Clock::real());  // `clock` must be real with a thread
  ~Loop();  // stop(); everything that uses the loop must be gone before
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs `task` on the loop thread, after those posted before. After stop(): dropped.
  void post(std::function<void()> task);
  // As post(), and returns when it has run. On the loop thread: runs it here and now. False: not run (stopped, child).
  bool run_there(const std::function<void()>& task);
  bool on_loop_thread() const;  // in manual mode: on the thread that made it, which is the one that runs it
  TimePoint now() const { return clock_.now(); }

  // Ends the thread after the task that runs now, and waits for that. Not from the loop thread. Safe to repeat.
  void stop();

  // Manual mode: runs what was posted and timers that are due, until there is nothing, or so many. How many ran.
  size_t run_ready(size_t at_most = SIZE_MAX);
  std::optional<TimePoint> next_timer() const;

  asio::io_context& context();  // for links

 private:
  friend class Timer;
  struct Impl;

  const Clock& clock_;
  const Mode mode_;
  const os::ForkGuard fork_;
  std::unique_ptr<Impl> impl_;
};

// One alarm at a time, to well under 100 µs. Loop thread only. Destroying it cancels it.
class Timer {
 public:
  explicit Timer(Loop& loop) : loop_(loop) {}
  ~Timer() { cancel(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void arm(TimePoint when, std::function<void()> task);  // replaces the alarm that is set
  void cancel();
  bool armed() const { return armed_; }

 private:
  friend struct Loop::Impl;
  Loop& loop_;
  bool armed_ = false;
  TimePoint when_;
  std::function<void()> task_;
};

}  // namespace waldo::channel
