// A lock of one byte for sections of some tens of nanoseconds that are almost never contended: one atomic operation to
// take, a plain store to give back. A waiter spins briefly, then gives its time slice away, then sleeps; it never holds
// a core for long. Nothing that waits, allocates megabytes or calls a hook may run under it.
#pragma once

#include <atomic>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "client/api.h"

namespace waldo::client {

class SmallLock {
 public:
  void lock() noexcept {
    if (!held_.exchange(true, std::memory_order_acquire)) [[likely]]
      return;
    lock_slow();
  }
  bool try_lock() noexcept { return !held_.exchange(true, std::memory_order_acquire); }
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  WALDO_API void lock_slow() noexcept;

  std::atomic<bool> held_{false};
};

}  // namespace waldo::client
