#include "server/fault.h"

#include <gtest/gtest.h>

namespace waldo::server {
namespace {

TEST(Fault, ReadsAList) {
  auto faults = parse_faults("oom@0:12,crash@3:18446744073709551615");
  ASSERT_TRUE(faults.ok());
  ASSERT_EQ(faults->size(), 2u);
  EXPECT_EQ((*faults)[0].call.raw, 12u);
  EXPECT_EQ((*faults)[1].queue.raw, 3u);
  EXPECT_EQ((*faults)[1].kind, Fault::Kind::kCrash);
}

TEST(Fault, NamesWhatIsWrong) {
  for (const char* text : {"oom", "oom@1", "oom@:1", "oom@1:", "boom@1:1", "oom@1:2x", "oom@-1:2", "oom@70000:1"}) {
    auto faults = parse_faults(text);
    ASSERT_FALSE(faults.ok()) << text;
    EXPECT_EQ(faults.status().kind(), StatusKind::kInvalid);
    EXPECT_NE(faults.status().text().find(text), std::string::npos);
  }
}

TEST(Fault, HitsItsCallOnly) {
  FaultPlan plan({Fault{Fault::Kind::kOutOfMemory, QueueId{1}, CallNumber{5}}});
  EXPECT_TRUE(plan.check(QueueId{0}, CallNumber{5}).ok());
  EXPECT_TRUE(plan.check(QueueId{1}, CallNumber{4}).ok());
  EXPECT_EQ(plan.check(QueueId{1}, CallNumber{5}).kind(), StatusKind::kDevice);
}

}  // namespace
}  // namespace waldo::server
