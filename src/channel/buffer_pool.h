// Keeps a few large buffers so that long transfers reuse pages that are warm: a fresh 256 KiB from the system costs
// about as much in page faults as copying it (bench/channel_pump).
//
// Any thread. Holds at most kept_bytes_max; small buffers are left to malloc.
#pragma once

#include <mutex>
#include <vector>

#include "base/bytes.h"

namespace waldo::channel {

class BufferPool {
 public:
  static constexpr size_t pooled_bytes_min = 64 << 10;
  static constexpr size_t kept_bytes_max = 8 << 20;

  Buffer take(size_t bytes);  // size() is `bytes`, content undefined
  void give(Buffer buffer);
  size_t kept_bytes() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Buffer> kept_;
  size_t kept_bytes_ = 0;
};

}  // namespace waldo::channel
