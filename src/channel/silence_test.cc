// A peer that is silent: when it is found, and when a quiet one is left in peace.
#include <gtest/gtest.h>

#include "channel/channel.h"

namespace waldo::channel {
namespace {

using namespace std::chrono_literals;
using wire::FrameKind;

// Takes every byte and says nothing: the other end hangs, or what lies between swallows.
class DeafLink final : public Link {
 public:
  void start(Loop& loop) override { loop_ = &loop; }
  void async_read(std::span<const std::span<std::byte>>, Done) override {}
  void async_write(std::span<const std::span<const std::byte>> from, Done done) override {
    size_t bytes = 0;
    for (const auto& part : from) bytes += part.size();
    loop_->post([done = std::move(done), bytes] { done(Status(), bytes); });
  }
  std::string_view name() const override { return "deaf"; }

 private:
  Loop* loop_ = nullptr;
};

class End : public Handler {
 public:
  explicit End(Loop& loop) : channel(loop, *this) {}
  void on_frame(FrameKind, Lane lane, Buffer payload) override { channel.consumed(lane, payload.size()); }
  void on_link_lost(const Status& why) override { lost = why; }
  bool waits_for_peer() override { return waits; }
  void on_silence(Duration silence) override { silent_for = silence; }
  void on_closed(const Status&) override {}

  Channel channel;
  bool waits = false;
  Duration silent_for{0};
  std::optional<Status> lost;
};

class Silence : public testing::Test {
 protected:
  void be_alone() { ASSERT_TRUE(client.channel.attach(std::make_unique<DeafLink>(), FrameNumber{0}).ok()); }
  void be_together() {
    auto links = make_memory_links();
    ASSERT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
    ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  }
  void pass(Duration time) {
    for (Duration passed{0}; passed < time && !client.lost; passed += 50ms) {
      clock.advance(50ms);
      took += 50ms;
      loop.run_ready();
    }
  }

  FakeClock clock;
  Loop loop{Loop::Mode::kManual, clock};
  End client{loop}, worker{loop};
  Duration took{0};
};

TEST_F(Silence, IsFoundWithin5SecondsWhenAFrameIsOutstanding) {
  client.channel.watch_peer();
  be_alone();
  ASSERT_TRUE(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(100)).ok());
  pass(60s);
  ASSERT_TRUE(client.lost.has_value());
  EXPECT_EQ(client.lost->text(), silent_peer_text);
  EXPECT_LE(took, 5s);
  EXPECT_GE(client.silent_for, 2s);  // the banner could be shown
}

TEST_F(Silence, IsFoundWithin5SecondsWhenSomebodyWaits) {
  client.channel.watch_peer();
  client.waits = true;
  be_alone();
  pass(60s);
  ASSERT_TRUE(client.lost.has_value());
  EXPECT_LE(took, 5s);
}

TEST_F(Silence, IsFoundWithin45SecondsWhenIdle) {
  client.channel.watch_peer();
  be_alone();
  pass(60s);
  ASSERT_TRUE(client.lost.has_value());
  EXPECT_GT(took, 15s);
  EXPECT_LE(took, 45s);
  EXPECT_EQ(client.silent_for, Duration::zero()) << "nobody waits: no banner";
}

// Goal: a worker that computes for minutes while its client waits is not taken for a dead one.
TEST_F(Silence, OfAPeerThatAnswersPingsIsNone) {
  client.channel.watch_peer();
  worker.channel.watch_peer();
  client.waits = true;
  be_together();
  pass(10min);
  EXPECT_FALSE(client.lost.has_value());
  EXPECT_FALSE(worker.lost.has_value());
  EXPECT_EQ(client.silent_for, Duration::zero());
  EXPECT_LT(client.channel.counters().frames_sent, 1300u);  // a ping or an answer to one per second
}

TEST_F(Silence, OfTwoIdleEndsCostsLittle) {
  client.channel.watch_peer();
  worker.channel.watch_peer();
  be_together();
  pass(10min);
  EXPECT_FALSE(client.lost.has_value());
  EXPECT_LT(client.channel.counters().frames_sent, 100u);
}

// Goal: a process that was stopped, or starved, does not blame its peer for that.
TEST_F(Silence, OfOurOwnIsNotThePeers) {
  client.channel.watch_peer();
  client.waits = true;
  be_together();
  pass(3s);
  for (int i = 0; i < 5; ++i) {
    clock.advance(30s);
    loop.run_ready();
    EXPECT_FALSE(client.lost.has_value());
    pass(100ms);
  }
}

TEST_F(Silence, IsNotLookedForUnlessAsked) {
  client.waits = true;
  be_alone();
  pass(10min);
  EXPECT_FALSE(client.lost.has_value());
}

}  // namespace
}  // namespace waldo::channel
