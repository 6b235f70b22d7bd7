#include "server/wishes.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace waldo::server {
namespace {

using namespace std::chrono_literals;

TEST(Wishes, AreRead) {
  const Wishes wishes = parse_wishes(
      R"({"frontend": "tensorflow", "gpus": 2, "grace_s": 30, "pid": 77, "shared_memory": {"fd": 5, "bytes": 4096}})");
  EXPECT_EQ(wishes.gpus, 2);
  EXPECT_EQ(wishes.backend, "tensorflow");
  EXPECT_EQ(wishes.grace, 30s);
  ASSERT_TRUE(wishes.shared_memory.has_value());
  EXPECT_EQ(wishes.shared_memory->pid, 77);
  EXPECT_EQ(wishes.shared_memory->fd, 5);
  EXPECT_EQ(wishes.shared_memory->bytes, 4096u);
}

TEST(Wishes, WhoSaysNothingSensibleGetsWhatIsUsual) {
  for (const char* info : {"", "{}", "[]", "3", "{", R"({"gpus": "2", "grace_s": [], "frontend": 7})",
                           R"({"gpus": -3, "frontend": "theano"})", R"({"gpus": 1.5, "grace_s": null})"}) {
    const Wishes wishes = parse_wishes(info);
    EXPECT_EQ(wishes.gpus, 0) << info;
    EXPECT_EQ(wishes.backend, "torch") << info;
    EXPECT_EQ(wishes.grace, 15min) << info;
    EXPECT_FALSE(wishes.shared_memory.has_value()) << info;
  }
}

TEST(Wishes, KeepWithinTheirLimits) {
  EXPECT_EQ(parse_wishes(R"({"grace_s": 0})").grace, 1s);
  EXPECT_EQ(parse_wishes(R"({"grace_s": 9000000000000000000})").grace.count(), limits::grace_seconds_max);
  EXPECT_GT(parse_wishes(R"({"gpus": 9000000000000000000})").gpus, 0);
  const Wishes wishes = parse_wishes(R"({"pid": 3, "shared_memory": "all of it"})");
  ASSERT_TRUE(wishes.shared_memory.has_value());
  EXPECT_EQ(wishes.shared_memory->fd, -1);
}

}  // namespace
}  // namespace waldo::server
