#include "server/late_answers.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

namespace waldo::server {
namespace {

// A device's event has nobody whom it wakes. A short answer is there within microseconds; what takes longer may be
// told a little later.
constexpr int kAsksInARow = 200;
constexpr auto kAskAgainAfter = std::chrono::microseconds(20);

}  // namespace

LateAnswers::LateAnswers(uint64_t held_bytes_max) : held_bytes_max_(held_bytes_max) {}

LateAnswers::~LateAnswers() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LateAnswers::make_room(uint64_t bytes) {
  std::unique_lock lock(mutex_);
  block(lock, changed_, [&] { return held_bytes_ == 0 || held_bytes_ + bytes <= held_bytes_max_; });
}

void LateAnswers::add(uint64_t bytes, Ready ready, Tell tell) {
  std::lock_guard lock(mutex_);
  answers_.push_back({bytes, std::move(ready), std::move(tell)});
  held_bytes_ += bytes;
  if (!thread_.joinable()) thread_ = Thread([this] { run(); });
  changed_.notify_all();
}

void LateAnswers::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    block(lock, changed_, [&] { return ending_ || !answers_.empty(); });
    if (answers_.empty()) return;
    Answer answer = std::move(answers_.front());
    answers_.pop_front();
    lock.unlock();
    answer.tell(wait_ready(answer));
    const uint64_t bytes = answer.bytes;
    answer = Answer();  // lets go of the memory before there is room again
    lock.lock();
    held_bytes_ -= bytes;
    changed_.notify_all();
  }
}

Status LateAnswers::wait_ready(const Answer& answer) {
  for (int asked = 0;; ++asked) {
    {
      std::lock_guard lock(mutex_);
      if (ending_) return Status(StatusKind::kCancelled, "the session ends");
    }
    const Result<bool> ready = answer.ready();
    if (!ready.ok()) return ready.status();
    if (*ready) return {};
    if (asked < kAsksInARow) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kAskAgainAfter);
    }
  }
}

Status read_in_pieces(LateAnswers& answers, uint64_t bytes, uint64_t piece_bytes_max, const StagePiece& stage,
                      LateRead read) {
  struct Reading {
    LateRead read;
    std::mutex mutex;    // held while chunks are told
    bool ended = false;  // told, or given up
  };
  const auto reading = std::make_shared<Reading>();
  reading->read = std::move(read);
  for (uint64_t begin = 0; begin < bytes;) {
    const uint64_t size = std::min(bytes - begin, piece_bytes_max);
    answers.make_room(size);
    Result<StagedPiece> staged = stage(begin, size);
    if (!staged.ok()) {
      std::lock_guard lock(reading->mutex);  // nothing is told when this has returned
      reading->ended = true;
      return staged.status();
    }
    begin += size;
    LateAnswers::Ready ready = std::move(staged->ready);  // before the rest moves into what tells
    answers.add(size, std::move(ready), [reading, piece = std::move(*staged), last = begin == bytes](Status status) {
      std::lock_guard lock(reading->mutex);
      if (reading->ended) return;
      if (status.ok()) status = reading->read.sink(piece.bytes);
      if (status.ok() && !last) return;
      reading->ended = true;
      reading->read.done(std::move(status));
    });
  }
  return {};
}

}  // namespace waldo::server
