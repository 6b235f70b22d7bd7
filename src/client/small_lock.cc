#include "client/small_lock.h"

#include <sched.h>
#include <time.h>

namespace waldo::client {

void SmallLock::lock_slow() noexcept {
  constexpr int kSpins = 64, kYields = 64;
  for (int turn = 0;; ++turn) {
    if (!held_.load(std::memory_order_relaxed) && try_lock()) return;
    if (turn < kSpins) {
#if defined(__x86_64__) || defined(__i386__)
      _mm_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    } else if (turn < kSpins + kYields) {
      sched_yield();
    } else {
      const timespec pause{0, 20'000};
      nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace waldo::client
