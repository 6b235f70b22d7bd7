#include "base/prng.h"

#include "base/check.h"

namespace waldo {

uint64_t Prng::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t Prng::below(uint64_t bound) {
  WALDO_CHECK(bound > 0);
  const uint64_t reject_below = -bound % bound;  // 2^64 mod bound: makes every remainder equally likely
  while (true) {
    const uint64_t value = next();
    if (value >= reject_below) return value % bound;
  }
}

uint64_t Prng::between(uint64_t low, uint64_t high) {
  WALDO_CHECK(low <= high);
  const uint64_t span = high - low;
  return span == UINT64_MAX ? next() : low + below(span + 1);
}

double Prng::unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

}  // namespace waldo
