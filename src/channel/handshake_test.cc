#include "channel/handshake.h"

#include <gtest/gtest.h>

namespace waldo::channel {
namespace {

using wire::FrameKind;

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

Buffer frame(FrameKind kind, const Buffer& payload) {
  return wire::encode_frame(kind, wire::Lane::kRecords, FrameNumber{}, payload);
}

// What read_hello() makes of these bytes, after which the client closes.
Result<ReceivedHello> read(std::span<const std::byte> bytes, Buffer* next = nullptr) {
  auto pair = os::make_socketpair();
  EXPECT_TRUE(os::write_all(pair->first.get(), bytes, soon()).ok());
  pair->first.reset();
  auto hello = read_hello(pair->second.get(), soon());
  if (next != nullptr) {
    EXPECT_TRUE(os::read_exactly(pair->second.get(), *next, soon()).ok());
  }
  return hello;
}

// Goal: a HELLO arrives as it was said, may be passed on as it came, and nothing behind it is swallowed.
TEST(Handshake, HelloArrives) {
  Buffer bytes = frame(FrameKind::kHello, encode(hello()));
  Writer(bytes).put_bytes(as_bytes("next"));
  Buffer next(4);
  const auto got = read(bytes, &next);
  ASSERT_TRUE(got.ok()) << got.status().to_string();
  EXPECT_EQ(got->hello.session.raw, 77u);
  EXPECT_EQ(got->hello.secret, hello().secret);
  EXPECT_EQ(got->hello.received.raw, 41u);
  EXPECT_EQ(parse_hello(got->frame)->info_json, hello().info_json);
  EXPECT_TRUE(check_version(got->hello).ok());
  EXPECT_EQ(as_text(next), "next");
}

TEST(Handshake, OtherThingsThanAHelloAreSaid) {
  EXPECT_EQ(read(as_bytes("GET / HTTP/1.1\r\nHost: here\r\n\r\n")).status().text(), "not a Waldo frame (wrong magic)");
  EXPECT_EQ(read({}).status().kind(), StatusKind::kDisconnected);
  EXPECT_EQ(read(frame(FrameKind::kPing, {})).status().text(), "PING instead of HELLO");
  Buffer damaged = frame(FrameKind::kHello, encode(hello()));
  damaged[damaged.size() - 1] ^= std::byte{1};
  EXPECT_EQ(read(damaged).status().text(), "checksum of frame 0 (HELLO) does not match");
  EXPECT_EQ(parse_hello(std::span(damaged).first(10)).status().text(), "HELLO is cut short");
  auto quiet = os::make_socketpair();
  EXPECT_EQ(read_hello(quiet->first.get(), std::chrono::steady_clock::now()).status().kind(),
            StatusKind::kDisconnected);
}

TEST(Handshake, AnswersAreFrames) {
  auto pair = os::make_socketpair();
  wire::Welcome welcome;
  welcome.received = FrameNumber{40};
  ASSERT_TRUE(write_welcome(pair->first.get(), welcome, soon()).ok());
  Buffer bytes(frame(FrameKind::kWelcome, encode(welcome)).size());
  ASSERT_TRUE(os::read_exactly(pair->second.get(), bytes, soon()).ok());
  EXPECT_EQ(bytes, frame(FrameKind::kWelcome, encode(welcome)));
  const wire::Refuse refuse{1, StatusKind::kOverloaded, 6, "no device free"};
  ASSERT_TRUE(write_refuse(pair->first.get(), refuse, soon()).ok());
  bytes.resize(frame(FrameKind::kRefuse, encode(refuse)).size());
  ASSERT_TRUE(os::read_exactly(pair->second.get(), bytes, soon()).ok());
  EXPECT_EQ(bytes, frame(FrameKind::kRefuse, encode(refuse)));
}

TEST(Handshake, AnotherVersionIsSaidWithItsExitCode) {
  wire::Hello newer = hello();
  newer.version = 99;
  EXPECT_EQ(check_version(newer).kind(), StatusKind::kUnsupported);
  EXPECT_EQ(check_version(newer).detail().exit_code, 5);
}

}  // namespace
}  // namespace waldo::channel
