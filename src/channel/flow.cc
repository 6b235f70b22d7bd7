#include "channel/flow.h"

#include <chrono>

#include "base/blocking.h"

namespace waldo::channel {

Status SendGate::push(Item item, Wait wait, const std::function<bool()>& interrupted) {
  constexpr std::chrono::milliseconds kAskEvery(50);
  const auto lane = static_cast<size_t>(item.lane);
  const uint64_t bytes = item.payload.size();
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return !closed_.ok() || admitted_[lane] + bytes - consumed_[lane] <= windows_.bytes[lane]; };
  while (!ready()) {
    if (wait == Wait::kNever) return Status(StatusKind::kOverloaded, "the lane's window is full");
    if (!interrupted) {
      block(lock, changed_, ready);
      continue;
    }
    lock.unlock();  // it may take the interpreter's lock
    const bool stop = interrupted();
    lock.lock();
    if (stop) return Status(StatusKind::kCancelled, "interrupted while waiting to send");
    block_for(lock, changed_, kAskEvery, ready);
  }
  if (!closed_.ok()) return closed_;
  admitted_[lane] += bytes;
  items_.push_back(std::move(item));
  return Status();
}

void SendGate::admit(Lane lane, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  admitted_[static_cast<size_t>(lane)] += bytes;
}

bool SendGate::full(Lane lane) const {
  const std::lock_guard lock(mutex_);
  const auto i = static_cast<size_t>(lane);
  return admitted_[i] - consumed_[i] >= windows_.bytes[i];
}

void SendGate::take(std::vector<Item>& items) {
  items.clear();
  const std::lock_guard lock(mutex_);
  items.swap(items_);
}

void SendGate::set_consumed(Lane lane, uint64_t consumed) {
  const std::lock_guard lock(mutex_);
  consumed_[static_cast<size_t>(lane)] = consumed;
  changed_.notify_all();
}

void SendGate::close(Status why) {
  const std::lock_guard lock(mutex_);
  if (closed_.ok()) closed_ = std::move(why);
  changed_.notify_all();
}

}  // namespace waldo::channel
