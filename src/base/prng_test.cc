#include "base/prng.h"

#include <gtest/gtest.h>

#include <array>

namespace waldo {
namespace {

// Goal: a seed means the same run on every machine, for ever (the published splitmix64 sequence of seed 1234567).
TEST(Prng, SequenceOfASeedIsFixed) {
  Prng prng(1234567);
  EXPECT_EQ(prng.next(), 6457827717110365317ull);
  EXPECT_EQ(prng.next(), 3203168211198807973ull);
  EXPECT_EQ(prng.next(), 9817491932198370423ull);
}

TEST(Prng, BoundsHoldAndEveryValueComes) {
  Prng prng(1);
  std::array<int, 7> seen{};
  for (int i = 0; i < 7000; ++i) ++seen.at(prng.below(7));
  for (const int count : seen) EXPECT_GT(count, 800);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = prng.between(10, 12);
    EXPECT_TRUE(value >= 10 && value <= 12);
    const double unit = prng.unit();
    EXPECT_TRUE(unit >= 0 && unit < 1);
  }
}

}  // namespace
}  // namespace waldo
