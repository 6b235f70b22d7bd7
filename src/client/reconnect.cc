#include "client/reconnect.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "channel/channel.h"

namespace waldo::client {
namespace {

using namespace std::chrono_literals;

constexpr Duration kRetryDelayMin = 100ms, kRetryDelayMax = 10s;
constexpr Duration kSlack = 20s;  // the worker may have noticed the loss later than we did: a silent link takes it 19 s
constexpr Duration kSilenceForgottenAfter = 1500ms;

// The program's signals are its own threads' to take.
void block_signals() {
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

std::string in_words(std::chrono::seconds time) {
  if (time < 2min) return fmt::format("{} s", time.count());
  if (time < 2h) return fmt::format("{} min", time.count() / 60);
  return fmt::format("{} h", time.count() / 3600);
}

}  // namespace

Duration retry_delay(int attempt, Prng& prng) {
  if (attempt <= 0) return Duration::zero();
  const Duration full = std::min<Duration>(kRetryDelayMax, kRetryDelayMin * (int64_t{1} << std::min(attempt - 1, 10)));
  return full / 2 + Duration(static_cast<Duration::rep>(static_cast<double>(full.count()) / 2 * prng.unit()));
}

Reconnector::Reconnector(Session session, std::unique_ptr<Dialer> dialer, ReconnectSettings settings,
                         ContactBanner::Sink banner)
    : session_(std::move(session)),
      dialer_(std::move(dialer)),
      settings_(std::move(settings)),
      banner_(settings_.target, std::move(banner)),
      prng_(settings_.seed) {}

void Reconnector::on_link_lost(const Status& why) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  log_debug("{}: the link is lost ({}), getting another", settings_.target, why.text());
  lost_ = true;
  lost_at_ = settings_.clock->now();
  hangs_ = why.text() == channel::silent_peer_text;
  wake();
}

void Reconnector::on_silence() {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  silent_ = true;
  wake();
}

// Under mutex_.
void Reconnector::wake() {
  if (!std::exchange(started_, true)) thread_ = Thread([this] { run(); });
  changed_.notify_all();
}

void Reconnector::finish() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

void Reconnector::stop() {
  finish();
  if (thread_.joinable()) thread_.join();
}

uint64_t Reconnector::attempts() const {
  const std::lock_guard lock(mutex_);
  return attempts_;
}

void Reconnector::run() {
  block_signals();
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (lost_) {
      come_back(lock);
    } else if (silent_) {  // still has its link; the loop says again every second while it lasts
      silent_ = false;
      lock.unlock();
      show_contact();
      lock.lock();
      block_for(lock, changed_, kSilenceForgottenAfter, [this] { return stopped_ || lost_ || silent_; });
    } else {
      banner_.back();
      block(lock, changed_, [this] { return stopped_ || lost_ || silent_; });
    }
  }
  banner_.back();
}

// One attempt, and the wait before it.
void Reconnector::come_back(std::unique_lock<std::mutex>& lock) {
  const TimePoint began = lost_at_;
  if (!wait(lock, retry_delay(failures_, prng_))) return;
  ++failures_;
  ++attempts_;
  const bool hangs = std::exchange(hangs_, false);
  lock.unlock();
  wire::Hello hello = settings_.hello;
  hello.link_number = ++link_number_;
  hello.received = session_.received();
  const auto stop = [this] {
    show_contact();
    const std::lock_guard guard(mutex_);
    return stopped_;
  };
  auto dialed = dialer_->dial(hello, hangs, stop);
  Status status = dialed.status();
  bool final = status.kind() == StatusKind::kLost || status.kind() == StatusKind::kUnsupported;
  lock.lock();
  if (stopped_) return;
  if (status.ok()) {
    lost_ = silent_ = false;  // before attach(): the new link may be lost at once
    lock.unlock();
    status = session_.attach(std::move(dialed->link), dialed->peer_received);
    lock.lock();
    if (status.ok()) {
      if (std::exchange(progress_, hello.received) != hello.received) failures_ = 0;
      failures_ = std::min(failures_, 4);  // it was there: do not make it wait long the next time
      return;
    }
    if (status.kind() == StatusKind::kLost) {  // it ended meanwhile, and everybody knows why
      stopped_ = true;
      return;
    }
    lost_ = final = true;
  }
  log_debug("{}: attempt {}: {}", settings_.target, attempts_, status.text());
  const Duration away = settings_.clock->now() - began;
  const bool late = away > settings_.grace + kSlack;
  if (!final && !late) return;
  const Status why =
      final ? status
            : Status(StatusKind::kLost,
                     fmt::format("no contact for {}: {}", in_words(floor<std::chrono::seconds>(away)), status.text()));
  stopped_ = true;
  lock.unlock();
  if (final) dialer_->session_is_over();
  banner_.back();
  session_.give_up(Status(StatusKind::kLost,
                          fmt::format("{}. Its tensors are gone: start the program again, from its last checkpoint. A "
                                      "lost client's session is kept for {}; `waldo run --grace` says how long",
                                      why.text(), in_words(settings_.grace))));
  lock.lock();
}

// Waits with an eye on the banner.
bool Reconnector::wait(std::unique_lock<std::mutex>& lock, Duration time) {
  const TimePoint end = settings_.clock->now() + time;
  while (!stopped_) {
    const Duration left = end - settings_.clock->now();
    if (left <= Duration::zero()) return true;
    lock.unlock();
    show_contact();
    lock.lock();
    block_for(lock, changed_, std::min<Duration>(left, 500ms), [this] { return stopped_; });
  }
  return false;
}

void Reconnector::show_contact() { banner_.no_contact(settings_.clock->now() - session_.heard_at()); }

}  // namespace waldo::client
