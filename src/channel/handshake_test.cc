#include "channel/handshake.h"

#include <gtest/gtest.h>

#include <thread>

namespace waldo::channel {
namespace {

os::Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

wire::Hello hello() {
  wire::Hello message;
  message.link_number = 3;
  message.session = SessionId{77};
  message.secret[5] = std::byte{9};
  message.received = FrameNumber{41};
  message.info_json = R"({"frontend":"torch"})";
  return message;
}

TEST(Handshake, HelloAndWelcomeArriveAsTheyWereSaid) {
  auto pair = os::make_socketpair();
  std::thread worker([&] {
    auto got = read_hello(pair->second.get(), soon());
    ASSERT_TRUE(got.ok()) << got.status().to_string();
    EXPECT_EQ(got->hello.session.raw, 77u);
    EXPECT_EQ(got->hello.secret, hello().secret);
    EXPECT_EQ(got->hello.received.raw, 41u);
    EXPECT_EQ(parse_hello(got->frame)->info_json, hello().info_json);  // as the daemon passes it on
    EXPECT_TRUE(check_version(got->hello).ok());
    wire::Welcome welcome;
    welcome.link_number = got->hello.link_number;
    welcome.received = FrameNumber{40};
    ASSERT_TRUE(write_welcome(pair->second.get(), welcome, soon()).ok());
    ASSERT_TRUE(os::write_all(pair->second.get(), as_bytes("next"), soon()).ok());
  });
  auto welcome = greet(pair->first.get(), pair->first.get(), hello(), soon());
  worker.join();
  ASSERT_TRUE(welcome.ok()) << welcome.status().to_string();
  EXPECT_EQ(welcome->received.raw, 40u);
  Buffer next(4);  // nothing behind the frame was swallowed
  ASSERT_TRUE(os::read_exactly(pair->first.get(), next, soon()).ok());
  EXPECT_EQ(as_text(next), "next");
}

TEST(Handshake, RefusalIsAStatusWithItsExitCode) {
  auto pair = os::make_socketpair();
  ASSERT_TRUE(write_refuse(pair->second.get(), {1, StatusKind::kOverloaded, 6, "no device free"}, soon()).ok());
  const auto status = greet(pair->first.get(), pair->first.get(), hello(), soon()).status();
  EXPECT_EQ(status.to_string(), "kOverloaded: no device free");
  EXPECT_EQ(status.detail().exit_code, 6);
}

TEST(Handshake, OtherThingsThanAnAnswerAreSaid) {
  const auto answer = [](std::string_view bytes) {
    auto pair = os::make_socketpair();
    EXPECT_TRUE(os::write_all(pair->second.get(), as_bytes(bytes), soon()).ok());
    pair->second.reset();
    return greet(pair->first.get(), pair->first.get(), hello(), soon()).status();
  };
  EXPECT_EQ(answer("bash: line 1: waldo: command not found\n").kind(), StatusKind::kInvalid);
  EXPECT_EQ(answer("").kind(), StatusKind::kDisconnected);
  EXPECT_EQ(answer(as_text(wire::encode_frame(wire::FrameKind::kPing, wire::Lane::kRecords, FrameNumber{}, {}))).text(),
            "PING instead of WELCOME");
  auto quiet = os::make_socketpair();
  EXPECT_EQ(greet(quiet->first.get(), quiet->first.get(), hello(), std::chrono::steady_clock::now()).status().kind(),
            StatusKind::kDisconnected);
}

TEST(Handshake, AnotherVersionIsSaidWithItsExitCode) {
  wire::Hello newer = hello();
  newer.version = 99;
  EXPECT_EQ(check_version(newer).kind(), StatusKind::kUnsupported);
  EXPECT_EQ(check_version(newer).detail().exit_code, 5);
}

}  // namespace
}  // namespace waldo::channel
