#include "server/doorman.h"

#include <gtest/gtest.h>

namespace waldo::server {
namespace {

wire::Hello hello(uint64_t link_number, uint8_t secret = 7) {
  wire::Hello hello;
  hello.link_number = link_number;
  hello.secret.fill(std::byte{secret});
  return hello;
}

TEST(Doorman, TheNewestLinkWins) {
  Doorman door(hello(1));
  EXPECT_TRUE(door.admit(hello(2)).ok());
  EXPECT_TRUE(door.admit(hello(5)).ok());
  EXPECT_EQ(door.admit(hello(3)).kind(), StatusKind::kDisconnected);
  EXPECT_EQ(door.admit(hello(5)).kind(), StatusKind::kDisconnected);
  EXPECT_TRUE(door.admit(hello(6)).ok());
}

// Goal: who knows a session's number but not its secret gets nothing, and does not make the next link too old.
TEST(Doorman, AWrongSecretIsNobody) {
  Doorman door(hello(1));
  EXPECT_EQ(door.admit(hello(1000, 8)).kind(), StatusKind::kLost);
  wire::Hello almost = hello(1000);
  almost.secret.back() = std::byte{0};
  EXPECT_EQ(door.admit(almost).kind(), StatusKind::kLost);
  EXPECT_TRUE(door.admit(hello(2)).ok());
}

TEST(Doorman, AnotherVersionIsRefused) {
  Doorman door(hello(1));
  wire::Hello other = hello(2);
  other.version = 999;
  EXPECT_EQ(door.admit(other).kind(), StatusKind::kUnsupported);
}

}  // namespace
}  // namespace waldo::server
