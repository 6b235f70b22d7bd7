// In a forked child everything of ours is a no-op: its threads do not exist there and its locks may be held for ever.
// An object notes the generation it was made in and compares before it touches anything. One load; no system call.
#pragma once

#include <cstdint>

namespace waldo::os {

// Changes in every forked child (pthread_atfork; posix_spawn and vfork do not count, they never run our code).
uint64_t fork_generation();

class ForkGuard {
 public:
  bool in_child() const { return fork_generation() != made_in_; }

 private:
  uint64_t made_in_ = fork_generation();
};

}  // namespace waldo::os
