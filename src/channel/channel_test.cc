// What depends on time: two channels on one manual loop under a clock the test moves.
#include "channel/channel.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace waldo::channel {
namespace {

using std::chrono::microseconds;
using wire::FrameKind;

class End : public Handler {
 public:
  explicit End(Loop& loop) : channel(loop, *this) {}
  void on_frame(FrameKind, Lane lane, Buffer payload) override {
    ++frames;
    channel.consumed(lane, payload.size());
  }
  void collect(std::vector<Buffer>& batch) override {
    ++collects;
    if (records == 0) return;
    batch.push_back(Buffer(24 + 4 * records));
    records = 0;
  }
  void on_link_lost(const Status& why) override { lost = why; }
  void on_closed(const Status& why) override { closed = why; }

  void record() {
    ++records;
    channel.kick(Channel::Kick::kSoon);
  }

  Channel channel;
  size_t records = 0;
  int frames = 0, collects = 0;
  std::optional<Status> lost, closed;
};

class Timing : public testing::Test {
 protected:
  Timing() {
    auto links = make_memory_links();
    EXPECT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
    EXPECT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
    settle();
  }
  // Lets everything become quiet.
  void settle() {
    for (int i = 0; i < 100; ++i) pass(microseconds(100));
  }
  void pass(microseconds time) {
    clock.advance(time);
    loop.run_ready();
  }

  FakeClock clock;
  Loop loop{Loop::Mode::kManual, clock};
  End client{loop}, worker{loop};
};

// Goal: the first record after a pause leaves at once; a stream of them leaves in batches of 100 µs and wakes nobody.
TEST_F(Timing, AStreamOfRecordsIsBatched) {
  client.record();
  loop.run_ready();
  EXPECT_EQ(worker.frames, 1);
  for (int i = 0; i < 50; ++i) client.record();
  EXPECT_EQ(loop.run_ready(), 0u);  // no kick was posted
  pass(microseconds(100));
  EXPECT_EQ(worker.frames, 2);
  for (int step = 0; step < 10; ++step) {
    for (int i = 0; i < 50; ++i) client.record();
    pass(microseconds(100));
  }
  EXPECT_EQ(worker.frames, 12);
}

TEST_F(Timing, ANowKickDoesNotWaitForTheBatch) {
  client.record();
  loop.run_ready();
  ++client.records;
  client.channel.kick(Channel::Kick::kNow);
  loop.run_ready();
  EXPECT_EQ(worker.frames, 2);
}

// Goal: a quiet channel costs nothing: no timer runs, and the other side's log is empty.
TEST_F(Timing, AQuietChannelAcknowledgesAndSleeps) {
  client.record();
  loop.run_ready();
  EXPECT_EQ(client.channel.counters().acks_received, 0u);
  settle();
  EXPECT_EQ(client.channel.counters().acks_received, 1u);
  EXPECT_EQ(loop.next_timer(), std::nullopt);
  const int collects = client.collects;
  settle();
  EXPECT_EQ(client.collects, collects);
  EXPECT_EQ(client.channel.counters().acks_received, 1u);
}

// Goal: a steady exchange is acknowledged rarely: by bytes, or by half a window, not per frame.
TEST_F(Timing, ABusyChannelAcknowledgesRarely) {
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(client.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(5000)).ok());
    pass(microseconds(50));
  }
  EXPECT_EQ(worker.frames, 1000);
  EXPECT_LE(worker.channel.counters().acks_sent, 10u);
  EXPECT_GE(worker.channel.counters().acks_sent, 4u);
}

// Goal: credit from a session that consumes late, and then in small portions, still reaches a sender that waits for it.
TEST_F(Timing, LateCreditReachesABlockedSender) {
  class Slow : public End {
   public:
    using End::End;
    void on_frame(FrameKind, Lane, Buffer) override { ++frames; }
  };
  Slow slow(loop);
  auto links = make_memory_links();
  ASSERT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
  ASSERT_TRUE(slow.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  int sent = 0;
  while (client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok()) ++sent;
  settle();
  EXPECT_EQ(slow.frames, sent);
  slow.channel.consumed(Lane::kBulk, limits::chunk_bytes);
  settle();
  EXPECT_TRUE(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok());
  EXPECT_EQ(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(1)).kind(), StatusKind::kOverloaded);
}

TEST_F(Timing, ClosingGivesUpAfterItsTimeout) {
  auto links = make_memory_links();  // nobody reads the other end
  ASSERT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
  client.record();
  client.channel.close(std::chrono::milliseconds(5));
  loop.run_ready();
  pass(microseconds(4900));
  EXPECT_FALSE(client.closed.has_value());
  pass(microseconds(200));
  ASSERT_TRUE(client.closed.has_value());
  EXPECT_EQ(client.closed->kind(), StatusKind::kDisconnected);
}

TEST_F(Timing, ClosingWithoutALinkEndsAtOnce) {
  worker.channel.abort(Status(StatusKind::kLost, "killed"));
  loop.run_ready();
  ASSERT_TRUE(client.lost.has_value());
  client.channel.close(std::chrono::milliseconds(1000));
  loop.run_ready();
  EXPECT_TRUE(client.closed.has_value());
}

// Goal: a handler may attach the next link from the callback that says the last one is gone.
TEST_F(Timing, AHandlerMayAttachFromOnLinkLost) {
  class Reconnecting : public End {
   public:
    using End::End;
    void on_link_lost(const Status&) override {
      if (next == nullptr) return;
      EXPECT_TRUE(channel.attach(std::move(next), FrameNumber{0}).ok());
    }
    std::unique_ptr<Link> next;
  };
  Reconnecting end(loop);
  auto first = make_memory_links(), second = make_memory_links();
  ASSERT_TRUE(end.channel.attach(std::move(first.first), FrameNumber{0}).ok());
  ASSERT_TRUE(worker.channel.attach(std::move(first.second), FrameNumber{0}).ok());
  end.next = std::move(second.first);
  ASSERT_TRUE(worker.channel.attach(std::move(second.second), FrameNumber{0}).ok());
  loop.run_ready();
  EXPECT_EQ(end.channel.counters().links, 2u);
  ASSERT_TRUE(end.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(8)).ok());
  loop.run_ready();
  EXPECT_EQ(worker.frames, 1);
}

// A client whose first write is under way and cannot end: its link takes 64 bytes and nobody reads yet.
class Writing : public Timing {
 protected:
  Writing() {
    auto links = make_memory_links(64);
    EXPECT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
    other_end = std::move(links.second);
    client.records = 100;
    client.channel.kick(Channel::Kick::kNow);
    loop.run_ready();
    EXPECT_EQ(client.records, 0u);  // collected, and on its way
  }
  std::unique_ptr<Link> other_end;
};

// Goal: nobody wakes the loop for what could not be sent anyway, and no alarm rings meanwhile; the end of the write
// takes it all: records as one frame, what send() queued, and the credit for what was consumed.
TEST_F(Writing, WhatComesMeanwhileLeavesWithItsEnd) {
  for (int i = 0; i < 50; ++i) client.record();
  client.channel.kick(Channel::Kick::kNow);
  ASSERT_TRUE(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(1000)).ok());
  EXPECT_EQ(loop.run_ready(), 0u);
  EXPECT_EQ(loop.next_timer(), std::nullopt);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(client.records, 50u);
  ASSERT_TRUE(worker.channel.attach(std::move(other_end), FrameNumber{0}).ok());
  loop.run_ready();  // no time passes
  EXPECT_EQ(worker.frames, 3);
  EXPECT_EQ(client.records, 0u);
}

// Goal: a write that never ends holds up neither what comes in nor the end of a session.
TEST_F(Writing, ClosingGivesUpAfterItsTimeout) {
  client.channel.close(std::chrono::milliseconds(5));
  loop.run_ready();
  client.record();
  pass(std::chrono::milliseconds(4));
  EXPECT_FALSE(client.closed.has_value());
  pass(std::chrono::milliseconds(2));
  ASSERT_TRUE(client.closed.has_value());
  EXPECT_EQ(client.closed->kind(), StatusKind::kDisconnected);
}

TEST_F(Writing, ALostLinkLosesNothingThatCameMeanwhile) {
  client.record();
  other_end.reset();
  loop.run_ready();
  ASSERT_TRUE(client.lost.has_value());
  client.record();
  auto links = make_memory_links();
  ASSERT_TRUE(client.channel.attach(std::move(links.first), FrameNumber{0}).ok());
  ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  settle();
  EXPECT_GE(worker.frames, 2);
  EXPECT_EQ(client.records, 0u);
  EXPECT_EQ(client.channel.counters().acks_received, 1u);
}

// Goal: credit given during the write reaches a sender on the other side that waits for it.
// Method: the worker reads nothing of a link whose room is 64 bytes but keeps writing; then it reads.
TEST_F(Writing, CreditGivenMeanwhileIsToldAfterwards) {
  class Slow : public End {
   public:
    using End::End;
    void on_frame(FrameKind, Lane, Buffer) override { ++frames; }
  };
  Slow slow(loop), fast(loop);
  auto links = make_memory_links(64);
  ASSERT_TRUE(slow.channel.attach(std::move(links.first), FrameNumber{0}).ok());
  ASSERT_TRUE(fast.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  int sent = 0;
  while (fast.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok()) ++sent;
  settle();
  ASSERT_EQ(slow.frames, sent);
  for (int i = 0; i < sent; ++i) {  // as a session that runs: it records, and consumes in between
    slow.record();
    slow.channel.consumed(Lane::kBulk, limits::chunk_bytes);
  }
  loop.run_ready();
  EXPECT_TRUE(fast.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok());
}

TEST_F(Timing, CountersAreExact) {
  ASSERT_TRUE(client.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(100)).ok());
  settle();
  const auto sent = client.channel.counters(), received = worker.channel.counters();
  EXPECT_EQ(sent.frames_sent, 1u);
  EXPECT_EQ(sent.bytes_sent, 124u);
  EXPECT_EQ(received.frames_received, 1u);
  EXPECT_EQ(received.bytes_received, 124u);
  EXPECT_EQ(received.acks_sent, 1u);
  EXPECT_EQ(sent.bytes_received, received.bytes_sent);
}

}  // namespace
}  // namespace waldo::channel
