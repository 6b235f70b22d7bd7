// What a device has still to come to before it can be told: an executor puts its question here and goes on with the
// next call; a thread of its own asks the device, and tells. So an executor never waits for its device.
//
// Owns:   what was added, until it is told. Order: as added.
// Thread: make_room() and add() from one thread. Ready and Tell run on a thread of this object's, which starts with the
//         first of them; Tell may block (it sends).
// Limit:  `held_bytes_max`: memory that the answers hold. make_room() blocks for it; one answer alone always fits.
// Ends:   the destructor asks nothing more: what was not told is told kCancelled. Then nothing is called any more.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "base/blocking.h"
#include "base/status.h"
#include "server/backend.h"

namespace waldo::server {

class LateAnswers {
 public:
  using Ready = std::function<Result<bool>()>;  // false: not yet, ask again. Not ok: that is the answer
  using Tell = std::function<void(Status)>;

  explicit LateAnswers(uint64_t held_bytes_max);
  ~LateAnswers();

  void make_room(uint64_t bytes);
  void add(uint64_t bytes, Ready ready, Tell tell);

 private:
  struct Answer {
    uint64_t bytes = 0;
    Ready ready;
    Tell tell;
  };

  void run();
  Status wait_ready(const Answer& answer);

  const uint64_t held_bytes_max_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Answer> answers_;
  uint64_t held_bytes_ = 0;  // of those not told yet
  bool ending_ = false;
  Thread thread_;  // last
};

// What the reads of one queue may hold so, in short answers and in long ones each.
inline constexpr uint64_t kStagedReadBytesMax = uint64_t{16} << 20;

// A piece of a read on its way into memory of ours, right behind what the device was given before.
struct StagedPiece {
  std::span<const std::byte> bytes;  // valid once `ready` says so, as long as `keeps` lives
  LateAnswers::Ready ready;
  std::shared_ptr<const void> keeps;
};
using StagePiece = std::function<Result<StagedPiece>(uint64_t offset, uint64_t bytes)>;

// Stages `bytes` (not 0) in pieces of at most `piece_bytes_max`, and returns when the last is staged: later calls may
// then change the storage. Not ok: a piece could not be staged; `read.done` is not called.
Status read_in_pieces(LateAnswers& answers, uint64_t bytes, uint64_t piece_bytes_max, const StagePiece& stage,
                      LateRead read);

}  // namespace waldo::server
