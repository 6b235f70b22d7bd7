#include "sim/stage.h"

#include <fmt/format.h>

#include <algorithm>

namespace waldo::sim {
namespace {

constexpr uint64_t kStepsMax = 3'000'000;

}  // namespace

thread_local Stage::Actor* Stage::self_ = nullptr;

Stage::Stage(uint64_t seed) : prng_(seed) { Director::current() = this; }

Stage::~Stage() {
  Director::current() = nullptr;
  ending_ = true;
  calendar_.clear();  // links that are still on their way want to tell their end
  for (const auto& actor : actors_) {
    // After a failure actors stand where they stood: their process ends soon.
    if (actor->done) {
      actor->thread.join();
    } else {
      actor->thread.detach();
    }
  }
}

void Stage::at(TimePoint when, std::function<void()> event) {
  if (!ending_) calendar_.emplace(when, std::move(event));
}

bool Stage::sleep(Duration time, const std::function<bool()>& stop) {
  std::mutex mutex;
  const TimePoint end = now() + time;
  while (now() < end) {
    if (stop && stop()) return false;
    std::unique_lock lock(mutex);
    wait(
        lock, [&] { return now() >= end; }, std::min<Duration>(end - now(), std::chrono::milliseconds(50)));
  }
  return true;
}

// --- the baton -------------------------------------------------------------------------------------------------------

std::function<void()> Stage::start(std::function<void()> body) {
  auto actor = std::make_shared<Actor>();
  actors_.push_back(actor);
  actor->thread = std::thread([this, raw = actor.get(), body = std::move(body)] {
    self_ = raw;
    Director::current() = this;
    {
      std::unique_lock lock(baton_mutex_);
      raw->turn.wait(lock, [raw] { return raw->has_baton; });
    }
    body();
    raw->done = true;
    const std::lock_guard lock(baton_mutex_);
    raw->has_baton = false;
    scheduler_has_baton_ = true;
    scheduler_turn_.notify_one();
  });
  return [this, actor] {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    const std::function<bool()> ended = [&actor] { return actor->done; };
    if (!ended()) wait(lock, ended, std::nullopt);
  };
}

bool Stage::wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready,
                 std::optional<Duration> at_most) {
  lock.unlock();
  std::optional<TimePoint> deadline;
  if (at_most) deadline = now() + *at_most;
  if (self_ == nullptr) {
    if (deadline) at(*deadline, [] {});
    run_until([&] { return ready() || (deadline && now() >= *deadline); });
  } else {
    self_->ready = &ready;
    self_->deadline = deadline;
    return_baton(*self_);
    self_->ready = nullptr;
    self_->deadline.reset();
  }
  lock.lock();
  return ready();
}

void Stage::give_baton(Actor& actor) {
  std::unique_lock lock(baton_mutex_);
  scheduler_has_baton_ = false;
  actor.has_baton = true;
  actor.turn.notify_one();
  scheduler_turn_.wait(lock, [this] { return scheduler_has_baton_; });
}

void Stage::return_baton(Actor& actor) {
  std::unique_lock lock(baton_mutex_);
  actor.has_baton = false;
  scheduler_has_baton_ = true;
  scheduler_turn_.notify_one();
  actor.turn.wait(lock, [&actor] { return actor.has_baton; });
}

// --- the scheduler ---------------------------------------------------------------------------------------------------

void Stage::run_until(const std::function<bool()>& done) {
  while (!done()) {
    if (++steps_ > kStepsMax) throw Failure("no end: " + describe());
    if (!step() && !advance()) throw Failure("a deadlock: " + describe());
    if (invariant_) invariant_();
  }
}

// One of those who can go on now, by chance.
bool Stage::step() {
  choices_.clear();
  for (size_t i = 0; i < actors_.size(); ++i) {
    const Actor& actor = *actors_[i];
    if (actor.done) continue;
    if (actor.ready == nullptr || (actor.deadline && now() >= *actor.deadline) || (*actor.ready)()) {
      choices_.push_back(i);
    }
  }
  const bool has_event = !calendar_.empty() && calendar_.begin()->first <= now();
  const size_t first_loop = choices_.size() + (has_event ? 1 : 0);
  if (first_loop + loops_.size() == 0) return false;
  const size_t turn = prng_.below(first_loop + loops_.size());
  fingerprint_ = fingerprint_ * 0x9e3779b97f4a7c15 + turn + static_cast<uint64_t>(now().time_since_epoch().count());
  if (turn < choices_.size()) {
    give_baton(*actors_[choices_[turn]]);
    return true;
  }
  if (turn < first_loop) {
    const auto event = std::move(calendar_.begin()->second);
    calendar_.erase(calendar_.begin());
    event();
    return true;
  }
  // Loops do not tell whether they have something: the chosen one first, then the others.
  for (size_t i = 0; i < loops_.size(); ++i) {
    if (loops_[(turn - first_loop + i) % loops_.size()]->run_ready(1) > 0) return true;
  }
  if (first_loop == 0) return false;
  if (!choices_.empty()) {
    give_baton(*actors_[choices_[0]]);
  } else {
    const auto event = std::move(calendar_.begin()->second);
    calendar_.erase(calendar_.begin());
    event();
  }
  return true;
}

bool Stage::advance() {
  std::optional<TimePoint> next;
  const auto consider = [&next](std::optional<TimePoint> when) {
    if (when && (!next || *when < *next)) next = when;
  };
  for (const channel::Loop* loop : loops_) consider(loop->next_timer());
  if (!calendar_.empty()) consider(calendar_.begin()->first);
  for (const auto& actor : actors_) {
    if (!actor->done) consider(actor->deadline);
  }
  if (!next || *next <= now()) return false;
  clock_.advance(*next - now());
  return true;
}

std::string Stage::describe() const {
  size_t waiting = 0, done = 0;
  for (const auto& actor : actors_) (actor->done ? done : waiting) += 1;
  return fmt::format("{} actors wait, {} have ended; {} steps, {:.3f} s", waiting, done, steps_,
                     std::chrono::duration<double>(now().time_since_epoch()).count());
}

}  // namespace waldo::sim
