// How far each queue of a session has got, so that AFTER records can wait for another queue's call.
//
// Threads: any. reached() is called once per record and costs two atomic operations while nobody waits.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "base/ids.h"
#include "base/status.h"

namespace waldo::server {

class Progress {
 public:
  explicit Progress(size_t queue_count);

  size_t queue_count() const { return queue_count_; }
  void reached(QueueId queue, CallNumber call);     // every record up to this one has run or was dropped
  Status wait_for(QueueId queue, CallNumber call);  // kCancelled after stop(). `queue` must exist.
  void stop();

 private:
  const size_t queue_count_;
  const std::unique_ptr<std::atomic<uint64_t>[]> done_;
  std::atomic<int> waiters_{0};
  std::mutex mutex_;  // guards stopped_
  std::condition_variable changed_;
  bool stopped_ = false;
};

}  // namespace waldo::server
