#include "base/os/fork.h"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>

namespace waldo::os {
namespace {

std::atomic<uint64_t> generation{0};

// Plain numbers without a lock, because the child may look at them only with async-signal-safe means. 0: free;
// else descriptor + 1.
std::array<std::atomic<int>, 1024> closed_in_child{};

void on_child() {
  generation.fetch_add(1);
  for (auto& place : closed_in_child) {
    const int value = place.exchange(0);
    if (value != 0) ::close(value - 1);
  }
}

}  // namespace

uint64_t fork_generation() {
  static const int registered = ::pthread_atfork(nullptr, nullptr, on_child);
  static_cast<void>(registered);
  return generation.load(std::memory_order_relaxed);
}

CloseInChild::CloseInChild(int fd) {
  static_cast<void>(fork_generation());  // registers the handler
  for (size_t i = 0; i < closed_in_child.size(); ++i) {
    int free_place = 0;
    if (closed_in_child[i].compare_exchange_strong(free_place, fd + 1)) {
      place_ = static_cast<int>(i);
      return;
    }
  }
}

CloseInChild::~CloseInChild() {
  if (place_ >= 0) closed_in_child[static_cast<size_t>(place_)].store(0);
}

}  // namespace waldo::os
