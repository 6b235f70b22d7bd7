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

// While it lives, `fd` is closed in every forked child: a child that lives on (a DataLoader worker) must not keep a
// connection open whose owner is gone. Up to 1024 at a time; beyond that it does nothing.
class CloseInChild {
 public:
  explicit CloseInChild(int fd);
  ~CloseInChild();
  CloseInChild(const CloseInChild&) = delete;
  CloseInChild& operator=(const CloseInChild&) = delete;

 private:
  int place_ = -1;
};

}  // namespace waldo::os
