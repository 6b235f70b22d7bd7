#include "server/poll_loop.h"

#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cerrno>

#include "base/os/socket.h"

namespace waldo::server {

void PollLoop::watch(int fd, short events, Callback callback) {
  watches_[fd] = Watch{events, next_version_++, std::move(callback)};
}

void PollLoop::unwatch(int fd) { watches_.erase(fd); }

PollLoop::TimerId PollLoop::after(std::chrono::milliseconds delay, std::function<void()> callback) {
  timers_[next_timer_] = Timer{std::chrono::steady_clock::now() + delay, std::move(callback)};
  return next_timer_++;
}

void PollLoop::cancel(TimerId timer) { timers_.erase(timer); }

void PollLoop::run(const std::function<bool()>& done) {
  stopped_ = false;
  while (!stopped_ && !(done && done())) {
    std::vector<pollfd> items;
    std::vector<uint64_t> versions;
    for (const auto& [fd, watch] : watches_) {
      items.push_back({fd, watch.events, 0});
      versions.push_back(watch.version);
    }
    const int ready = ::poll(items.data(), items.size(), timeout_ms());
    run_due_timers();
    if (ready <= 0) continue;
    for (size_t i = 0; i < items.size() && !stopped_; ++i) {
      if (items[i].revents == 0) continue;
      const auto found = watches_.find(items[i].fd);
      if (found == watches_.end() || found->second.version != versions[i]) continue;
      const Callback callback = found->second.callback;  // a copy: it may unwatch itself
      callback(items[i].revents);
    }
  }
}

int PollLoop::timeout_ms() const {
  if (timers_.empty()) return -1;
  auto due = timers_.begin()->second.due;
  for (const auto& [id, timer] : timers_) due = std::min(due, timer.due);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(due - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

void PollLoop::run_due_timers() {
  const auto now = std::chrono::steady_clock::now();
  for (;;) {
    const auto due =
        std::find_if(timers_.begin(), timers_.end(), [&](const auto& item) { return item.second.due <= now; });
    if (due == timers_.end()) return;
    const auto callback = std::move(due->second.callback);
    timers_.erase(due);
    callback();
  }
}

namespace {

std::atomic<int> signal_write_fd{-1};

void note_signal(int signal, siginfo_t* info, void*) {
  const int saved = errno;
  const unsigned char bytes[2] = {static_cast<unsigned char>(signal),
                                  static_cast<unsigned char>(info != nullptr && info->si_code <= 0)};
  [[maybe_unused]] const ssize_t put = ::write(signal_write_fd.load(), bytes, sizeof(bytes));
  errno = saved;
}

}  // namespace

SignalPipe::SignalPipe(const std::vector<int>& signals) {
  auto pipe = os::make_pipe();
  WALDO_CHECK(pipe.ok());
  read_end_ = std::move(pipe->first);
  write_end_ = std::move(pipe->second);
  WALDO_CHECK(os::set_nonblocking(read_end_.get()).ok() && os::set_nonblocking(write_end_.get()).ok());
  signal_write_fd = write_end_.get();
  for (const int signal : signals) {
    struct sigaction action = {}, former = {};
    action.sa_sigaction = note_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART | (signal == SIGCHLD ? SA_NOCLDSTOP : 0);
    sigfillset(&action.sa_mask);
    sigaction(signal, &action, &former);
    former_.emplace_back(signal, former);
  }
}

SignalPipe::~SignalPipe() {
  for (const auto& [signal, action] : former_) sigaction(signal, &action, nullptr);
  signal_write_fd = -1;
}

bool SignalPipe::take(Caught* caught) {
  unsigned char bytes[2];
  if (::read(read_end_.get(), bytes, sizeof(bytes)) != sizeof(bytes)) return false;
  *caught = {bytes[0], bytes[1] != 0};
  return true;
}

}  // namespace waldo::server
