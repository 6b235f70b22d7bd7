#include "server/progress.h"

#include "base/blocking.h"

namespace waldo::server {

Progress::Progress(size_t queue_count)
    : queue_count_(queue_count), done_(std::make_unique<std::atomic<uint64_t>[]>(queue_count)) {}

void Progress::reached(QueueId queue, CallNumber call) {
  done_[queue.raw].store(call.raw);  // sequentially consistent with waiters_: either we see the waiter or it sees us
  if (waiters_.load() == 0) [[likely]]
    return;
  std::lock_guard lock(mutex_);
  changed_.notify_all();
}

Status Progress::wait_for(QueueId queue, CallNumber call) {
  const auto& done = done_[queue.raw];
  if (done.load() >= call.raw) return {};
  std::unique_lock lock(mutex_);
  ++waiters_;
  block(lock, changed_, [&] { return stopped_ || done.load() >= call.raw; });
  --waiters_;
  if (done.load() >= call.raw) return {};
  return Status(StatusKind::kCancelled, "the session ends");
}

void Progress::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace waldo::server
