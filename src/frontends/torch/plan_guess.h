// Which plan will a call need? Programs repeat themselves, so the operator and the plans that ran just before it on the
// same thread name one, as a processor foretells a branch. A guess is only where to look first: whoever takes it
// compares the whole key. It saves forming and hashing a key of one's own.
//
// Owns:    nothing; plans live for ever.
// Threads: any. The table is everybody's, the history each thread's own: threads that run different plans have
//          different histories, and so rarely the same place.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace waldo::torch_frontend {

// The plans that ran last on this thread, in a word: the last two wholly, the third and fourth in part.
class PlanHistory {
 public:
  static uint64_t word() { return word_; }
  static void add(const void* plan) { word_ = word_ << 20 ^ reinterpret_cast<uintptr_t>(plan) >> 4; }
  static void clear_for_test() { word_ = 0; }

 private:
  // As SpareMemory::mine_.
  [[gnu::tls_model("initial-exec")]] inline static constinit thread_local uint64_t word_ = 0;
};

template <typename Plan>
class PlanGuesses {
 public:
  using Place = std::atomic<Plan*>;

  // Where the guess for a call of this operator stands, here and now; null in it: none yet.
  Place& place(uint64_t op_id) {
    constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;
    return places_[(PlanHistory::word() + op_id * kOdd) * kOdd >> (64 - kBits)];
  }

 private:
  static constexpr unsigned kBits = 14;  // a training step has some thousand calls, most of them like another one
  std::array<Place, size_t{1} << kBits> places_{};
};

}  // namespace waldo::torch_frontend
