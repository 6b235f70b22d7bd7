#include "channel/buffer_pool.h"

namespace waldo::channel {

Buffer BufferPool::take(size_t bytes) {
  if (bytes >= pooled_bytes_min) {
    const std::lock_guard lock(mutex_);
    // The last given is the warmest. Chunks are all of one size; others are rare and simply made.
    for (auto at = kept_.rbegin(); at != kept_.rend(); ++at) {
      if (at->capacity() < bytes || at->capacity() > 2 * bytes) continue;
      Buffer buffer = std::move(*at);
      kept_.erase(std::next(at).base());
      kept_bytes_ -= buffer.capacity();
      buffer.resize(bytes);
      return buffer;
    }
  }
  return Buffer(bytes);
}

void BufferPool::give(Buffer buffer) {
  if (buffer.capacity() < pooled_bytes_min) return;
  const std::lock_guard lock(mutex_);
  if (kept_bytes_ + buffer.capacity() > kept_bytes_max) return;
  kept_bytes_ += buffer.capacity();
  kept_.push_back(std::move(buffer));
}

size_t BufferPool::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

}  // namespace waldo::channel
