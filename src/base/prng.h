// Reproducible random numbers for simulation, jitter and tests: the same seed gives the same sequence everywhere.
// Not for secrets; those come from base/os/entropy.h.
#pragma once

#include <cstdint>

namespace waldo {

// splitmix64: 64 bits of state, every seed is good, passes BigCrush. One thread.
class Prng {
 public:
  explicit Prng(uint64_t seed) : state_(seed) {}

  uint64_t next();
  uint64_t below(uint64_t bound);                 // uniform in [0, bound); bound > 0
  uint64_t between(uint64_t low, uint64_t high);  // uniform in [low, high]
  double unit();                                  // uniform in [0, 1)
  bool one_in(uint64_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

}  // namespace waldo
