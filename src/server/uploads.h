// Storage content on its way: chunks arrive on the bulk lane, in order per upload, and wait here for the record that
// uses them. Each chunk is copied once, from its frame into one contiguous 64-byte aligned allocation that the backend
// may keep.
//
// Credit: what a chunk cost is granted back at once while what waits here is within staging_bytes_max, or while an
// executor is blocked on an upload that is not complete (then holding back would be waiting for ourselves). Otherwise
// the grant is kept until an upload is taken or skipped. So the peer can make us hold staging_bytes_max plus one
// window, and beyond that only what a call is really waiting for.
//
// Owns:    the bytes until take().
// Threads: add() from the loop; take() and skip() from executors; stop() from any. `grant` is called from all of these,
//          never with our lock held.
// Memory:  an allocation is made at the first chunk; its pages are touched as bytes arrive, so a peer that announces
//          terabytes and sends none takes no memory. What the system refuses fails the call, not the session.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "server/backend.h"
#include "wire/limits.h"
#include "wire/messages.h"

namespace waldo::server {

// What content took of the peer's that it wants back: bytes of its bulk window, chunks of its shared memory.
struct Credit {
  uint64_t window_bytes = 0;
  std::vector<wire::SharedPiece> shared;

  bool empty() const { return window_bytes == 0 && shared.empty(); }
  void add(const Credit& more);
};

class Uploads {
 public:
  using Grant = std::function<void(const Credit& credit)>;
  explicit Uploads(Grant grant, uint64_t staging_bytes_max = limits::staging_bytes_max);

  // One chunk; an empty one before the end says that the client gave this upload up. `cost` is granted back now or
  // later. kInvalid: the peer broke a rule; ends the session.
  Status add(UploadId id, uint64_t total, uint64_t offset, std::span<const std::byte> bytes, const Credit& cost);

  // Waits until the whole upload is here, and moves it out. `bytes` is what the record says it is.
  // kInvalid: it is not that; ends the session. kDevice: no memory for it; the call fails. kCancelled: the
  // client gave it up, or stop().
  Result<UploadedBytes> take(UploadId id, uint64_t bytes);

  // The record was dropped: forget the upload, and what of it still arrives.
  Status skip(UploadId id, uint64_t bytes);

  void stop();  // every take(), now and later, is kCancelled

  uint64_t staged_bytes_for_test() const;
  uint64_t held_window_bytes_for_test() const;

 private:
  struct Entry {
    UploadedBytes data;
    uint64_t total = 0;  // 0: no chunk yet
    uint64_t received = 0;
    bool skipped = false;
    bool refused = false;  // no memory for it: arriving bytes are thrown away
    bool given_up = false;
    bool ended() const { return total != 0 && (received == total || given_up); }
  };

  static constexpr uint64_t kEntryCost = 256;  // counted per upload, so that tiny ones cannot pile up
  static constexpr size_t kEntryCountMax = 1u << 20;

  Status add_locked(UploadId id, uint64_t total, uint64_t offset, std::span<const std::byte> bytes);
  void drop_staged_locked(const Entry& entry);
  Credit take_credit_locked();  // what may be granted now

  const Grant grant_;
  const uint64_t staging_bytes_max_;

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::unordered_map<UploadId, Entry> entries_;
  uint64_t staged_bytes_ = 0;
  Credit held_credit_;
  int blocked_ = 0;  // executors in take() on an incomplete upload
  bool stopped_ = false;
};

}  // namespace waldo::server
