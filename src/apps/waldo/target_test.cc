#include "apps/waldo/target.h"

#include <gtest/gtest.h>

namespace waldo::apps {
namespace {

TEST(Target, KnowsItsForms) {
  EXPECT_EQ(parse_target("local")->kind, Target::Kind::kLocal);
  EXPECT_EQ(parse_target("unix:/run/w.sock")->where, "/run/w.sock");
  for (const char* host :
       {"lab", "me@lab", "gpu-7.cluster.example.org", "10.0.0.7", "::1", "fe80::1%eth0", "ssh://me@lab:2222"}) {
    auto target = parse_target(host);
    ASSERT_TRUE(target.ok()) << host;
    EXPECT_EQ(target->kind, Target::Kind::kSsh);
    EXPECT_EQ(target->where, host);
  }
}

// Goal: nothing that ssh would take for an option or a shell for a word of its own gets through; each refusal says what
// to write instead.
TEST(Target, RefusesTheRest) {
  for (const char* text : {"", "-oProxyCommand=sh", "a b", "lab;ls", "unix:", "$(ls)", "lab:", "ssh://", "ssh://lab:x",
                           "http://lab", "me@", "@lab", "ssh://me@", "ssh://lab:65536"}) {
    auto target = parse_target(text);
    ASSERT_FALSE(target.ok()) << text;
    EXPECT_EQ(target.status().kind(), StatusKind::kInvalid) << text;
  }
  EXPECT_NE(parse_target("lab:2222").status().text().find("ssh://lab:2222"), std::string::npos);
  EXPECT_EQ(parse_target("tcp:lab:9000").status().kind(), StatusKind::kUnsupported);
}

}  // namespace
}  // namespace waldo::apps
