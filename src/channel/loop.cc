#include "channel/loop.h"

#include <pthread.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <condition_variable>
#include <csignal>
#include <map>
#include <mutex>
#include <thread>

#include "base/blocking.h"
#include "base/check.h"

namespace waldo::channel {

struct Loop::Impl {
  explicit Impl(Loop& owner) : loop(owner), alarm(io) {}

  // All timers share one of Asio's, set to the earliest. In manual mode it is never set.
  void set_alarm() {
    if (loop.mode_ == Mode::kManual) return;
    if (timers.empty()) {
      alarm.cancel();
      alarm_at.reset();
      return;
    }
    if (alarm_at == timers.begin()->first) return;
    alarm_at = timers.begin()->first;
    alarm.expires_at(*alarm_at);
    alarm.async_wait([this](const std::error_code& error) {
      if (error) return;  // set anew, or cancelled
      alarm_at.reset();
      run_due();
      set_alarm();
    });
  }

  size_t run_due(size_t at_most = SIZE_MAX) {
    size_t ran = 0;
    const TimePoint now = loop.now();
    while (ran < at_most && !timers.empty() && timers.begin()->first <= now) {
      Timer* timer = timers.begin()->second;
      timers.erase(timers.begin());
      timer->armed_ = false;
      const auto task = std::move(timer->task_);
      task();  // may destroy or re-arm the timer
      ++ran;
    }
    return ran;
  }

  void erase(Timer& timer) {
    for (auto [at, end] = timers.equal_range(timer.when_); at != end; ++at) {
      if (at->second == &timer) {
        timers.erase(at);
        return;
      }
    }
  }

  Loop& loop;
  asio::io_context io{1};
  asio::steady_timer alarm;
  std::optional<TimePoint> alarm_at;
  std::multimap<TimePoint, Timer*> timers;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::thread thread;
  const std::thread::id maker = std::this_thread::get_id();
  std::mutex stop_mutex;
  bool stopped = false;  // stop_mutex
};

Loop::Loop(Mode mode, const Clock& clock) : clock_(clock), mode_(mode), impl_(std::make_unique<Impl>(*this)) {
  if (mode_ == Mode::kManual) return;
  WALDO_CHECK(&clock == &Clock::real());
  impl_->work.emplace(impl_->io.get_executor());
  // A new thread inherits the mask of its maker.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get()] { impl->io.run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Loop::~Loop() {
  if (fork_.in_child()) {
    static_cast<void>(impl_.release());  // its thread and locks are the parent's
    return;
  }
  stop();
  WALDO_CHECK(impl_->timers.empty());
}

void Loop::post(std::function<void()> task) {
  if (fork_.in_child()) return;
  asio::post(impl_->io, std::move(task));
}

bool Loop::run_there(const std::function<void()>& task) {
  if (fork_.in_child()) return false;
  if (on_loop_thread()) {
    task();
    return true;
  }
  struct Rendezvous {
    std::mutex mutex;
    std::condition_variable changed;
    enum { kWaiting, kRan, kDropped } state = kWaiting;
  };
  // Says "dropped" when the loop throws the task away unrun.
  struct Ticket {
    explicit Ticket(std::shared_ptr<Rendezvous> at) : at(std::move(at)) {}
    ~Ticket() { finish(Rendezvous::kDropped); }
    void finish(decltype(Rendezvous::state) state) {
      const std::lock_guard lock(at->mutex);
      if (at->state == Rendezvous::kWaiting) at->state = state;
      at->changed.notify_all();
    }
    std::shared_ptr<Rendezvous> at;
  };
  const auto meet = std::make_shared<Rendezvous>();
  {
    const std::lock_guard lock(impl_->stop_mutex);
    if (impl_->stopped) return false;
    auto ticket = std::make_shared<Ticket>(meet);
    asio::post(impl_->io, [ticket = std::move(ticket), &task] {
      task();
      ticket->finish(Rendezvous::kRan);
    });
  }
  std::unique_lock lock(meet->mutex);
  block(lock, meet->changed, [&] { return meet->state != Rendezvous::kWaiting; });
  return meet->state == Rendezvous::kRan;
}

bool Loop::on_loop_thread() const {
  return std::this_thread::get_id() == (mode_ == Mode::kManual ? impl_->maker : impl_->thread.get_id());
}

void Loop::stop() {
  if (fork_.in_child() || mode_ == Mode::kManual) return;
  WALDO_CHECK(!on_loop_thread());
  const std::lock_guard lock(impl_->stop_mutex);
  if (impl_->stopped) return;
  impl_->stopped = true;
  // What was posted before still runs; then the thread ends, and what comes later is dropped with the io_context.
  asio::post(impl_->io, [this] { impl_->io.stop(); });
  impl_->thread.join();
}

size_t Loop::run_ready(size_t at_most) {
  WALDO_CHECK(mode_ == Mode::kManual);
  size_t ran = 0;
  while (ran < at_most) {
    impl_->io.restart();
    const size_t now_ran = impl_->io.poll_one() + impl_->run_due(at_most - ran);
    if (now_ran == 0) return ran;
    ran += now_ran;
  }
  return ran;
}

std::optional<TimePoint> Loop::next_timer() const {
  if (impl_->timers.empty()) return std::nullopt;
  return impl_->timers.begin()->first;
}

asio::io_context& Loop::context() { return impl_->io; }

void Timer::arm(TimePoint when, std::function<void()> task) {
  cancel();
  when_ = when;
  task_ = std::move(task);
  armed_ = true;
  loop_.impl_->timers.emplace(when, this);
  loop_.impl_->set_alarm();
}

void Timer::cancel() {
  if (!armed_ || loop_.fork_.in_child()) return;
  armed_ = false;
  loop_.impl_->erase(*this);  // the alarm may ring for nothing once; cheaper than setting it anew
}

}  // namespace waldo::channel
