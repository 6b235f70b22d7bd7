#include "base/clock.h"

#include <gtest/gtest.h>

namespace waldo {
namespace {

TEST(Clock, FakeTimeMovesOnlyWhenTold) {
  FakeClock clock;
  const auto start = clock.now();
  EXPECT_EQ(clock.now(), start);
  clock.advance(std::chrono::microseconds(100));
  EXPECT_EQ(clock.now() - start, std::chrono::microseconds(100));
}

TEST(Clock, RealTimeNeverGoesBack) {
  const auto first = Clock::real().now();
  EXPECT_LE(first, Clock::real().now());
}

}  // namespace
}  // namespace waldo
