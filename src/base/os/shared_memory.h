// Memory that two processes of this machine have mapped, and waiting on a word in it.
//
// It has no name: the other process opens it through /proc while this one holds the descriptor, so nothing is left
// behind however both end. It can neither shrink nor grow, so touching it never faults. Where the system cannot do
// that (not Linux) create() and open() are kUnsupported.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/os/unique_fd.h"
#include "base/status.h"

namespace waldo::os {

// Owns the mapping. Movable; any thread.
class SharedMemory {
 public:
  static Result<SharedMemory> create(size_t bytes);  // zeros
  // That of another process of this user, which created it with descriptor `fd`. kInvalid: it is not `bytes` long, or
  // its owner could still shrink it.
  static Result<SharedMemory> open(int pid, int fd, size_t bytes);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  int fd() const { return fd_.get(); }  // -1 for one that was opened
  void close_fd() { fd_.reset(); }      // nobody can open it any more

 private:
  SharedMemory(std::byte* data, size_t size, UniqueFd fd) : data_(data), size_(size), fd_(std::move(fd)) {}
  static Result<SharedMemory> map(UniqueFd fd, size_t bytes);

  std::byte* data_;
  size_t size_;
  UniqueFd fd_;
};

// Returns when `word`, which may lie in shared memory, was woken, is not `value` (any more), or `max` has passed; also
// without a reason.
void wait_while_equal(const std::atomic<uint32_t>& word, uint32_t value, std::chrono::milliseconds max);
void wake_all(const std::atomic<uint32_t>& word);

}  // namespace waldo::os
