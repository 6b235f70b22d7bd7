// Seeds that found something, and properties of the simulator itself. The many seeds are `sim --seeds N` (CMakeLists).
#include <gtest/gtest.h>

#include "sim/run.h"

namespace waldo::sim {
namespace {

TEST(Sim, ASeedIsARun) {
  for (const uint64_t seed : {3u, 4u, 5u}) {
    const Outcome a = run_seed(seed), b = run_seed(seed);
    EXPECT_EQ(a.failure, "");
    EXPECT_EQ(a.fingerprint, b.fingerprint);
    EXPECT_EQ(a.steps, b.steps);
    EXPECT_EQ(a.digest, b.digest);
  }
  EXPECT_NE(run_seed(3).fingerprint, run_seed(4).fingerprint);
}

// Goal: what is read does not depend on the network.
TEST(Sim, ABadNetworkChangesNoValue) {
  for (uint64_t seed = 100; seed < 120; ++seed) {
    Plan plan;
    plan.seed = seed;
    plan.bad_links = 0;
    const Outcome uncut = run_plan(plan, 60);
    plan.bad_links = 25;
    const Outcome cut = run_plan(plan, 60);
    EXPECT_EQ(uncut.failure, "") << seed;
    EXPECT_EQ(cut.failure, "") << seed;
    EXPECT_EQ(uncut.links, 1u);
    EXPECT_EQ(uncut.digest, cut.digest) << seed;
  }
}

// Goal: a small recorded run, cut after every single byte of each direction in turn, comes to the same values.
class EveryByte : public testing::TestWithParam<bool> {};
TEST_P(EveryByte, OfARecordedRun) {
  const bool up = GetParam();
  Plan plan;
  plan.seed = 7;
  plan.bad_links = 0;
  constexpr size_t kNever = std::numeric_limits<size_t>::max();
  plan.first_link_cut = {kNever, kNever};
  const Outcome uncut = run_plan(plan, 25);
  ASSERT_EQ(uncut.failure, "");
  const size_t total = up ? uncut.bytes_up : uncut.bytes_down;
  size_t came_back = 0;
  for (size_t byte = 0; byte < total; ++byte) {
    plan.first_link_cut = up ? std::pair{byte, kNever} : std::pair{kNever, byte};
    const Outcome cut = run_plan(plan, 25);
    ASSERT_EQ(cut.failure, "") << "after byte " << byte;
    ASSERT_EQ(cut.digest, uncut.digest) << "after byte " << byte;
    came_back += cut.links > 1;
  }
  EXPECT_GT(came_back, total - 100) << "only within the goodbye there is nothing to come back for";
}
INSTANTIATE_TEST_SUITE_P(Directions, EveryByte, testing::Values(true, false),
                         [](const auto& info) { return info.param ? "Up" : "Down"; });

}  // namespace
}  // namespace waldo::sim
