// The core between two ends in one thread: no sockets, no clock, every byte where the test wants it.
#include "channel/core.h"

#include <gtest/gtest.h>

#include "channel/recorded_run.h"
#include "wire/limits.h"

namespace waldo::channel {
namespace {

using test::make_run;
using test::same_run;
using test::TestFrame;
using wire::FrameKind;

class End : public ChannelCore::Events {
 public:
  explicit End(Windows windows = default_windows) : core(*this, pool, windows) {}

  void on_frame(FrameKind kind, Lane lane, Buffer payload) override {
    if (consumes) freed[static_cast<size_t>(lane)] += payload.size();
    seen.push_back({kind, lane, std::move(payload)});
  }
  void on_credit(Lane lane, uint64_t consumed) override { credit[static_cast<size_t>(lane)] = consumed; }

  void queue_all(const std::vector<TestFrame>& run) {
    for (const auto& frame : run) core.queue(frame.lane, frame.kind, frame.payload);
  }
  void give_credit() {
    for (const Lane lane : {Lane::kRecords, Lane::kBulk}) {
      core.consumed(lane, std::exchange(freed[static_cast<size_t>(lane)], 0));
    }
    if (core.ack_due()) core.acknowledge();
  }

  BufferPool pool;
  ChannelCore core;
  bool consumes = true;
  std::array<uint64_t, 2> freed{}, credit{};
  std::vector<TestFrame> seen;
};

// Carries up to `bytes_max` bytes from one end to the other; how many there were.
size_t carry(End& from, End& to, size_t bytes_max) {
  size_t carried = 0;
  while (carried < bytes_max) {
    const auto out = from.core.to_write();
    if (out.empty()) break;
    const auto space = to.core.to_read()[0];
    const size_t size = std::min({out[0].size(), space.size(), bytes_max - carried});
    std::copy_n(out[0].begin(), size, space.begin());
    from.core.wrote(size);
    EXPECT_TRUE(to.core.got(size).ok());
    to.give_credit();
    carried += size;
  }
  return carried;
}

void replace_link(End& a, End& b) {
  const FrameNumber a_has = a.core.received(), b_has = b.core.received();
  ASSERT_TRUE(a.core.attach(b_has).ok());
  ASSERT_TRUE(b.core.attach(a_has).ok());
}

void carry_all(End& a, End& b) {
  while (carry(a, b, 100'000) + carry(b, a, 100'000) > 0) {
  }
}

// Carries exactly one frame of the run, and the ACK a new link begins with.
size_t carry_one_frame(End& from, End& to) {
  while (true) {
    const auto out = from.core.to_write();
    if (out.empty()) return 0;
    const auto header = wire::decode_header(out[0].first(wire::frame_header_bytes));
    const size_t bytes = wire::frame_header_bytes + header->payload_bytes;
    EXPECT_EQ(carry(from, to, bytes), bytes);
    if (wire::is_numbered(header->kind)) return bytes;
  }
}

// Goal: replacing the link after every single frame, in either direction, loses, repeats and reorders nothing.
TEST(ChannelCore, LinkReplacedAfterEveryFrame) {
  const auto up = make_run(1, true, 120, 3000), down = make_run(1, false, 120, 3000);
  End client, worker;
  client.queue_all(up);
  worker.queue_all(down);
  int links = 0;
  replace_link(client, worker);
  while (true) {
    const size_t sent_up = carry_one_frame(client, worker);
    replace_link(client, worker);
    const size_t sent_down = carry_one_frame(worker, client);
    replace_link(client, worker);
    links += 2;
    if (worker.seen.size() == up.size() && client.seen.size() == down.size()) break;
    ASSERT_LT(links, 3000);
    ASSERT_GT(sent_up + sent_down, 0u);
  }
  EXPECT_TRUE(same_run(up, worker.seen));
  EXPECT_TRUE(same_run(down, client.seen));
  EXPECT_GE(links, 240);
}

// Goal: the same for one cut at every byte offset of the run, in each direction, with what was in flight lost.
TEST(ChannelCore, LinkCutAtEveryByte) {
  const auto up = make_run(2, true, 12, 120), down = make_run(2, false, 12, 120);
  for (const bool cut_up : {true, false}) {
    for (size_t cut = 0;; ++cut) {
      End client, worker;
      client.queue_all(up);
      worker.queue_all(down);
      replace_link(client, worker);
      End& from = cut_up ? client : worker;
      End& to = cut_up ? worker : client;
      const bool whole = carry(from, to, cut) < cut;
      // Lost in flight: written, never read.
      if (const auto out = from.core.to_write(); !out.empty()) from.core.wrote(out[0].size());
      replace_link(client, worker);
      carry_all(client, worker);
      ASSERT_TRUE(same_run(up, worker.seen)) << "cut after byte " << cut;
      ASSERT_TRUE(same_run(down, client.seen)) << "cut after byte " << cut;
      ASSERT_EQ(client.core.log().bytes() + worker.core.log().bytes(), 0u);
      if (whole) break;
    }
  }
}

// Goal: nothing is lost when every link dies after a random number of bytes, long frames included.
TEST(ChannelCore, LinksThatDieAtRandom) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Prng prng(seed);
    const auto up = make_run(seed, true, 60, 300'000), down = make_run(seed, false, 60, 20'000);
    End client, worker;
    client.queue_all(up);
    worker.queue_all(down);
    for (int link = 0; link < 5000 && (worker.seen.size() < up.size() || client.seen.size() < down.size()); ++link) {
      replace_link(client, worker);
      for (int i = 0; i < 4; ++i) {
        carry(client, worker, prng.below(400'000));
        carry(worker, client, prng.below(50'000));
      }
    }
    ASSERT_TRUE(same_run(up, worker.seen));
    ASSERT_TRUE(same_run(down, client.seen));
    ASSERT_GT(client.core.counters().frames_replayed, 0u);
  }
}

TEST(ChannelCore, RecordsOvertakeBulk) {
  End client, worker;
  replace_link(client, worker);
  for (int i = 0; i < 8; ++i) client.core.queue(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes));
  carry(client, worker, 100);  // the first chunk is on its way
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(100));
  carry_all(client, worker);
  size_t chunks_before = 0;
  while (worker.seen.at(chunks_before).lane == Lane::kBulk) ++chunks_before;
  EXPECT_EQ(chunks_before, 1u);
}

// Goal: never more than a window of bytes is out and unconsumed, and one lane's full window does not stop the other.
TEST(ChannelCore, WindowHoldsPerLane) {
  End client, worker;
  worker.consumes = false;
  replace_link(client, worker);
  for (int i = 0; i < 200; ++i) client.core.queue(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes));
  carry_all(client, worker);
  EXPECT_EQ(worker.seen.size(), limits::bulk_window_bytes / limits::chunk_bytes);
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(100));
  carry_all(client, worker);
  EXPECT_EQ(worker.seen.back().lane, Lane::kRecords);

  worker.core.consumed(Lane::kBulk, 3 * limits::chunk_bytes);
  worker.core.acknowledge();
  const size_t before = worker.seen.size();
  carry_all(client, worker);
  EXPECT_EQ(worker.seen.size(), before + 3);
  EXPECT_EQ(client.credit[1], 3u * limits::chunk_bytes);
}

// Goal: credit that was given on a link that died before its ACK arrived is given again.
TEST(ChannelCore, CreditSurvivesALostAck) {
  End client(Windows{{1000, 1000}}), worker(Windows{{1000, 1000}});
  replace_link(client, worker);
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(1000));
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(500));
  carry(client, worker, SIZE_MAX);
  ASSERT_EQ(worker.seen.size(), 1u);
  const auto ack = worker.core.to_write();  // made, written, lost
  worker.core.wrote(ack[0].size());
  replace_link(client, worker);
  carry_all(client, worker);
  EXPECT_EQ(worker.seen.size(), 2u);
}

// Goal: a frame that the peer acknowledges before we hear that it was written stays alive until then.
TEST(ChannelCore, AckMayOvertakeTheEndOfAWrite) {
  End client, worker;
  replace_link(client, worker);
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(5000, std::byte{7}));
  std::vector<std::vector<std::byte>> copies;
  size_t total = 0;
  for (const auto part : client.core.to_write()) {
    const auto space = worker.core.to_read()[0];
    std::copy(part.begin(), part.end(), space.begin());
    ASSERT_TRUE(worker.core.got(part.size()).ok());
    total += part.size();
  }
  worker.give_credit();
  carry(worker, client, SIZE_MAX);  // the ACK
  EXPECT_GT(client.core.log().bytes(), 0u);
  EXPECT_EQ(client.core.to_write()[1][0], std::byte{7});
  client.core.wrote(total);
  EXPECT_EQ(client.core.log().bytes(), 0u);
}

TEST(ChannelCore, AcksAreUrgentByBytesAndByHalfAWindow) {
  End client, worker;
  worker.consumes = false;
  replace_link(client, worker);
  EXPECT_FALSE(worker.core.ack_due());
  client.core.queue(Lane::kBulk, FrameKind::kUploadData, Buffer(1000));
  const auto deliver = [&] {
    for (auto out = client.core.to_write(); !out.empty(); out = client.core.to_write()) {
      const auto space = worker.core.to_read()[0];
      const size_t size = std::min(space.size(), out[0].size());
      std::copy_n(out[0].begin(), size, space.begin());
      client.core.wrote(size);
      ASSERT_TRUE(worker.core.got(size).ok());
    }
  };
  deliver();
  EXPECT_TRUE(worker.core.ack_due());
  EXPECT_FALSE(worker.core.ack_urgent());
  for (int i = 0; i < 4; ++i) client.core.queue(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes));
  deliver();
  EXPECT_TRUE(worker.core.ack_urgent());
  worker.core.acknowledge();
  static_cast<void>(worker.core.to_write());
  EXPECT_FALSE(worker.core.ack_due());
}

// --- the peer at fault
// -------------------------------------------------------------------------------------------------

Status feed(End& end, std::span<const std::byte> bytes) {
  Status status;
  while (!bytes.empty() && status.ok()) {
    const auto space = end.core.to_read()[0];
    const size_t size = std::min(space.size(), bytes.size());
    std::copy_n(bytes.begin(), size, space.begin());
    status = end.core.got(size);
    bytes = bytes.subspan(size);
  }
  return status;
}

Buffer frame(uint64_t number, Buffer payload = Buffer(8), FrameKind kind = FrameKind::kDone) {
  return wire::encode_frame(kind, Lane::kRecords, FrameNumber{number}, payload);
}

TEST(ChannelCore, BrokenPeersAreRefused) {
  const auto refused = [](const Buffer& bytes, std::string_view why) {
    End end;
    const Status status = feed(end, bytes);
    EXPECT_EQ(status.kind(), StatusKind::kInvalid) << why;
    EXPECT_NE(status.text().find(why), std::string::npos) << status.text();
    EXPECT_TRUE(end.seen.empty());
    EXPECT_FALSE(feed(end, frame(1)).ok());  // for good
  };
  refused(to_buffer(as_bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), "magic");
  refused(frame(2), "frame 2 follows frame 0");
  Buffer flipped = frame(1);
  flipped[flipped.size() - 1] ^= std::byte{1};
  refused(flipped, "checksum of frame 1");
  const auto ack = [](uint64_t received, uint64_t consumed) {
    return wire::encode_frame(FrameKind::kAck, Lane::kRecords, FrameNumber{},
                              wire::encode(wire::Ack{FrameNumber{received}, consumed, 0}));
  };
  refused(ack(1, 0), "frame 1 acknowledged, but 0");
  refused(ack(0, 1), "more consumed than was sent");
  refused(wire::encode_frame(FrameKind::kHello, Lane::kRecords, FrameNumber{}, wire::encode(wire::Hello())),
          "HELLO after the greeting");
}

TEST(ChannelCore, APeerThatIgnoresTheWindowIsRefused) {
  End end(Windows{{100, 100}});
  end.consumes = false;
  EXPECT_TRUE(feed(end, frame(1, Buffer(100))).ok());
  EXPECT_EQ(feed(end, frame(2, Buffer(1))).text(), "frame 2 passes the window of its lane");
}

TEST(ChannelCore, FramesThatCameAlreadyAreDropped) {
  End end;
  EXPECT_TRUE(feed(end, frame(1)).ok());
  EXPECT_TRUE(feed(end, frame(1)).ok());
  EXPECT_TRUE(feed(end, frame(2)).ok());
  EXPECT_EQ(end.seen.size(), 2u);
}

// Goal: a peer whose ACK says more than its greeting did (it had more from the link before) does not trip us up.
TEST(ChannelCore, AnAckMayPassTheReplay) {
  End client, worker;
  replace_link(client, worker);
  client.queue_all(make_run(9, true, 5, 50));
  carry(client, worker, SIZE_MAX);
  ASSERT_TRUE(client.core.attach(FrameNumber{1}).ok());
  const Buffer ack =
      wire::encode_frame(FrameKind::kAck, Lane::kRecords, FrameNumber{}, wire::encode(wire::Ack{FrameNumber{4}, 0, 0}));
  EXPECT_TRUE(feed(client, ack).ok());
  const auto out = client.core.to_write();
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(wire::decode_header(out[0])->number.raw, 5u);
}

TEST(ChannelCore, APeerThatClaimsTheFutureIsRefused) {
  End end;
  end.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(8));
  EXPECT_EQ(end.core.attach(FrameNumber{1}).kind(), StatusKind::kInvalid);
  EXPECT_TRUE(end.core.attach(FrameNumber{0}).ok());
  static_cast<void>(end.core.to_write());
  EXPECT_TRUE(end.core.attach(FrameNumber{1}).ok());
}

TEST(ChannelCore, GoodbyeComesLastAndIsAcknowledged) {
  End client, worker;
  replace_link(client, worker);
  client.core.queue(Lane::kRecords, FrameKind::kRecords, Buffer(8));
  client.core.goodbye({StatusKind::kOk, "done"});
  carry_all(client, worker);
  EXPECT_EQ(worker.seen.size(), 1u);
  ASSERT_TRUE(worker.core.peer_goodbye().has_value());
  EXPECT_EQ(worker.core.peer_goodbye()->text, "done");
  EXPECT_TRUE(client.core.goodbye_acknowledged() && client.core.goodbye_written());
}

TEST(ChannelCore, PingIsAnswered) {
  End end;
  EXPECT_TRUE(feed(end, wire::encode_frame(FrameKind::kPing, Lane::kRecords, FrameNumber{}, {})).ok());
  const auto out = end.core.to_write();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(static_cast<FrameKind>(out[0][16]), FrameKind::kAck);
}

}  // namespace
}  // namespace waldo::channel
