// The loop of the small processes that only hand descriptors around (daemon, bridge, broker, `waldo run`): poll(2), one
// thread, callbacks. Sessions use the channel's loop instead.
//
// Threads: the one that calls run(). Nothing may be called from elsewhere.
#pragma once

#include <poll.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "base/os/unique_fd.h"

namespace waldo::server {

class PollLoop {
 public:
  using Callback = std::function<void(short revents)>;
  using TimerId = uint64_t;

  // One watch per descriptor; watching again replaces it. A callback may watch and unwatch anything.
  void watch(int fd, short events, Callback callback);
  void unwatch(int fd);

  TimerId after(std::chrono::milliseconds delay, std::function<void()> callback);
  void cancel(TimerId timer);

  // Until stop(), or until `done` says so (asked after every turn).
  void run(const std::function<bool()>& done = {});
  void stop() { stopped_ = true; }

 private:
  struct Watch {
    short events;
    uint64_t version;  // tells a watch from an older one on the same number
    Callback callback;
  };
  struct Timer {
    std::chrono::steady_clock::time_point due;
    std::function<void()> callback;
  };

  int timeout_ms() const;
  void run_due_timers();

  std::map<int, Watch> watches_;
  std::map<TimerId, Timer> timers_;
  uint64_t next_version_ = 1;
  TimerId next_timer_ = 1;
  bool stopped_ = false;
};

// Signals as bytes in a pipe, so that a PollLoop sees them. One object per process at a time.
class SignalPipe {
 public:
  struct Caught {
    int signal = 0;
    bool from_process = false;  // sent by kill(), not by the terminal
  };

  explicit SignalPipe(const std::vector<int>& signals);
  ~SignalPipe();  // puts the former actions back
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

  int fd() const { return read_end_.get(); }
  bool take(Caught* caught);  // false: none waits

 private:
  os::UniqueFd read_end_, write_end_;
  std::vector<std::pair<int, struct sigaction>> former_;
};

}  // namespace waldo::server
