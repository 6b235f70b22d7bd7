// One suite over every kind of link: two channels on two loops, real threads. A new link adds a line at the end.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/os/process.h"
#include "base/os/socket.h"
#include "channel/channel.h"
#include "channel/recorded_run.h"
#include "wire/limits.h"
#include "wire/messages.h"

namespace waldo::channel {
namespace {

using test::make_run;
using test::same_run;
using test::TestFrame;
using wire::FrameKind;
using LinkPair = std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>>;

constexpr std::chrono::seconds kPatience(60);  // a test that waits so long has failed

class End : public Handler {
 public:
  End() : channel(loop, *this) {}

  void on_frame(FrameKind kind, Lane lane, Buffer payload) override {
    const uint64_t bytes = payload.size();
    {
      const std::lock_guard lock(mutex_);
      seen_.push_back({kind, lane, std::move(payload)});
      if (!consumes_) unconsumed_[static_cast<size_t>(lane)] += bytes;
      if (!consumes_) return changed_.notify_all();
    }
    changed_.notify_all();
    channel.consumed(lane, bytes);
  }
  void collect(std::vector<Buffer>& batch) override {
    const std::lock_guard lock(mutex_);
    if (outbox_.empty()) return;
    for (auto& payload : outbox_) batch.push_back(std::move(payload));
    outbox_.clear();
    changed_.notify_all();
  }
  void on_link_lost(const Status& why) override { set(lost_, why); }
  void on_closed(const Status& why) override {
    closings_.fetch_add(1);  // before who waits hears of it
    set(closed_, why);
  }

  void put_in_outbox(Buffer payload) {
    const std::lock_guard lock(mutex_);
    outbox_.push_back(std::move(payload));
  }
  void stop_consuming() {
    const std::lock_guard lock(mutex_);
    consumes_ = false;
  }
  void consume_all() {
    for (const Lane lane : {Lane::kRecords, Lane::kBulk}) {
      std::unique_lock lock(mutex_);
      consumes_ = true;
      const uint64_t bytes = std::exchange(unconsumed_[static_cast<size_t>(lane)], 0);
      lock.unlock();
      channel.consumed(lane, bytes);
    }
  }
  std::vector<TestFrame> wait_for(size_t frames) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return seen_.size() >= frames; })) << seen_.size();
    return seen_;
  }
  Status wait_lost() { return wait(lost_); }
  void wait_lost_or_seen(size_t frames) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return lost_.has_value() || seen_.size() >= frames; }));
    lost_.reset();
  }
  Status wait_closed() { return wait(closed_); }
  size_t seen() {
    const std::lock_guard lock(mutex_);
    return seen_.size();
  }
  int closings() const { return closings_; }

 private:
  void set(std::optional<Status>& where, const Status& what) {
    const std::lock_guard lock(mutex_);
    where = what;
    changed_.notify_all();
  }
  Status wait(std::optional<Status>& what) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return what.has_value(); }));
    return std::exchange(what, std::nullopt).value_or(Status(StatusKind::kInternal, "did not come"));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TestFrame> seen_;
  std::vector<Buffer> outbox_;
  std::array<uint64_t, 2> unconsumed_{};
  bool consumes_ = true;
  std::optional<Status> lost_, closed_;
  std::atomic<int> closings_{0};

 public:
  Loop loop;  // these end first: until then a link that closes is told to what stands above
  Channel channel;
};

struct LinkMaker {
  const char* name;
  LinkPair (*make)();
};

LinkPair make_socketpair_links() {
  auto pair = os::make_socketpair();
  return {make_socket_link(std::move(pair->first)), make_socket_link(std::move(pair->second))};
}

LinkPair make_unix_links() {
  char folder[] = "/tmp/waldo-test-XXXXXX";
  const std::string path = std::string(::mkdtemp(folder)) + "/s";
  auto listener = os::listen_unix(path);
  auto client = os::connect_unix(path);
  auto server = os::accept_unix(listener->get());
  ::unlink(path.c_str());
  ::rmdir(folder);
  return {make_socket_link(std::move(*client)), make_socket_link(std::move(*server))};
}

LinkPair make_pipe_links() {
  auto up = os::make_pipe(), down = os::make_pipe();
  return {make_pipe_link(std::move(down->first), std::move(up->second)),
          make_pipe_link(std::move(up->first), std::move(down->second))};
}

class Conformance : public testing::TestWithParam<LinkMaker> {
 protected:
  // Both ends get a new link, as after a lost one or with a newer one.
  void connect(CutAfter cut = {}) {
    auto links = GetParam().make();
    const FrameNumber client_has = client.channel.received(), worker_has = worker.channel.received();
    ASSERT_TRUE(client.channel.attach(make_cut_link(std::move(links.first), cut), worker_has).ok());
    ASSERT_TRUE(worker.channel.attach(std::move(links.second), client_has).ok());
  }
  static void send(End& end, const TestFrame& frame) {
    const Status status = end.channel.send(frame.lane, frame.kind, frame.payload);
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  static void send_all(End& end, const std::vector<TestFrame>& run) {
    for (const auto& frame : run) send(end, frame);
  }

  End client, worker;
};

TEST_P(Conformance, BothLanesBothWaysInOrderExactlyOnce) {
  const auto up = make_run(1, true, 400, 20'000), down = make_run(1, false, 400, 20'000);
  connect();
  std::thread sender([&] { send_all(client, up); });
  send_all(worker, down);
  sender.join();
  EXPECT_TRUE(same_run(up, worker.wait_for(up.size())));
  EXPECT_TRUE(same_run(down, client.wait_for(down.size())));
}

TEST_P(Conformance, BigFrames) {
  connect();
  TestFrame big{FrameKind::kUploadData, Lane::kBulk, Buffer(limits::frame_payload_bytes_max)};
  Prng prng(5);
  for (auto& byte : big.payload) byte = static_cast<std::byte>(prng.next());
  const std::vector<TestFrame> run(5, big);
  send_all(client, run);
  EXPECT_EQ(worker.wait_for(run.size()), run);
}

// Goal: the link is replaced after every frame of a recorded run, with the next one under way in half of the cases:
// nothing is lost, repeated or reordered.
TEST_P(Conformance, LinkReplacedAfterEveryFrame) {
  const auto up = make_run(3, true, 60, 5'000), down = make_run(3, false, 60, 5'000);
  connect();
  size_t sent = 0;
  const auto send_next = [&] {
    if (sent == up.size()) return;
    send(client, up[sent]);
    send(worker, down[sent]);
    ++sent;
  };
  for (size_t i = 1; i <= up.size(); ++i) {
    if (sent < i) send_next();
    worker.wait_for(i);
    connect();
    client.wait_for(i);
    if (i % 2 == 0) send_next();
    connect();
  }
  EXPECT_TRUE(same_run(up, worker.wait_for(up.size())));
  EXPECT_TRUE(same_run(down, client.wait_for(down.size())));
  EXPECT_GE(client.channel.counters().links, 120u);
}

// Goal: the same when links break by themselves, after any number of bytes, in the middle of frames.
TEST_P(Conformance, LinksThatBreakAnywhere) {
  Prng prng(4);
  const auto up = make_run(4, true, 150, 4'000), down = make_run(4, false, 150, 4'000);
  std::thread up_sender([&] { send_all(client, up); });
  std::thread down_sender([&] { send_all(worker, down); });
  for (int links = 0; worker.seen() < up.size() || client.seen() < down.size(); ++links) {
    ASSERT_LT(links, 10'000);
    connect({prng.between(1, 20'000), prng.between(1, 20'000)});
    client.wait_lost_or_seen(down.size());
    worker.wait_lost_or_seen(up.size());
  }
  up_sender.join();
  down_sender.join();
  EXPECT_TRUE(same_run(up, worker.wait_for(up.size())));
  EXPECT_TRUE(same_run(down, client.wait_for(down.size())));
}

// Goal: a write that finds the other end closed does not throw away what that end had sent.
TEST_P(Conformance, WhatCameBeforeTheLinkBrokeIsRead) {
  auto links = GetParam().make();
  for (int i = 0; i < 4; ++i) send(client, {FrameKind::kRecords, Lane::kRecords, Buffer(1000, std::byte{7})});
  send(worker, {FrameKind::kDone, Lane::kRecords, Buffer(1000, std::byte{8})});
  // Links in drops hold next to nothing on its way: there one byte comes, and no frame.
  const bool holds = GetParam().name != std::string_view("memory_in_drops");
  CutAfter cut;
  cut.written_bytes = holds ? 3000 : 1;
  ASSERT_TRUE(client.channel.attach(make_cut_link(std::move(links.first), cut), FrameNumber{0}).ok());
  EXPECT_EQ(client.wait_lost().kind(), StatusKind::kDisconnected);
  ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  EXPECT_EQ(worker.wait_lost().kind(), StatusKind::kDisconnected);
  EXPECT_EQ(worker.seen(), holds ? 2u : 0u);
}

TEST_P(Conformance, AFullWindowBlocksUntilThePeerConsumes) {
  connect();
  worker.stop_consuming();
  const size_t fits = limits::bulk_window_bytes / limits::chunk_bytes;
  for (size_t i = 0; i < fits; ++i) {
    ASSERT_TRUE(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok());
  }
  int asked = 0;
  const auto interrupt = [&] { return ++asked == 1; };
  EXPECT_EQ(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(10), interrupt).kind(),
            StatusKind::kCancelled);
  ASSERT_TRUE(client.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(10)).ok());  // the other lane is open
  worker.wait_for(fits + 1);
  std::thread sender(
      [&] { EXPECT_TRUE(client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes)).ok()); });
  worker.consume_all();
  sender.join();
  EXPECT_EQ(worker.wait_for(fits + 2).size(), fits + 2);  // the interrupted one never came
}

TEST_P(Conformance, OutboxesAreCollectedWhenKicked) {
  connect();
  std::vector<TestFrame> run;
  for (uint64_t i = 0; i < 200; ++i) {
    TestFrame frame{FrameKind::kRecords, Lane::kRecords, Buffer(8)};
    std::memcpy(frame.payload.data(), &i, 8);
    run.push_back(frame);
    client.put_in_outbox(frame.payload);
    client.channel.kick(i % 3 == 0 ? Channel::Kick::kNow : Channel::Kick::kSoon);
    if (i % 50 == 0) worker.wait_for(run.size());  // lets the loop fall asleep now and then
  }
  EXPECT_EQ(worker.wait_for(run.size()), run);
}

// Goal: a channel that has nothing to do says so to the other side, which then keeps no frame.
TEST_P(Conformance, AQuietChannelAcknowledges) {
  connect();
  send_all(client, make_run(6, true, 10, 100));
  worker.wait_for(10);
  while (client.channel.counters().acks_received == 0) std::this_thread::yield();
}

TEST_P(Conformance, ALostLinkIsSaidAndAnotherGoesOn) {
  connect();
  send(client, {FrameKind::kRecords, Lane::kRecords, Buffer(10)});
  worker.wait_for(1);
  auto links = GetParam().make();  // the worker alone gets a newer one: its older one is closed, the client hears it
  ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  EXPECT_EQ(client.wait_lost().kind(), StatusKind::kDisconnected);
  send(client, {FrameKind::kRecords, Lane::kRecords, Buffer(20)});
  ASSERT_TRUE(client.channel.attach(std::move(links.first), worker.channel.received()).ok());
  EXPECT_EQ(worker.wait_for(2).back().payload.size(), 20u);
}

TEST_P(Conformance, GoodbyeComesAfterEverythingAndEndsBoth) {
  connect();
  const auto run = make_run(7, true, 50, 50'000);
  send_all(client, run);
  client.put_in_outbox(Buffer(12));
  client.channel.close(kPatience);
  EXPECT_TRUE(client.wait_closed().ok());
  EXPECT_TRUE(worker.wait_closed().ok());
  EXPECT_EQ(worker.wait_for(51).size(), 51u);
  EXPECT_EQ(client.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(8)).kind(), StatusKind::kLost);
  EXPECT_EQ(worker.channel.send(Lane::kRecords, FrameKind::kDone, Buffer(8)).kind(), StatusKind::kLost);
  client.channel.close(kPatience);  // safe to repeat
  client.loop.run_there([] {});
  EXPECT_EQ(client.closings(), 1);
  EXPECT_EQ(worker.closings(), 1);
}

TEST_P(Conformance, AbortWakesBlockedSenders) {
  connect();
  worker.stop_consuming();
  std::atomic<bool> blocked{false};
  std::thread sender([&] {
    Status status;
    while (status.ok()) {
      status = client.channel.send(Lane::kBulk, FrameKind::kUploadData, Buffer(limits::chunk_bytes),
                                   [&] { return blocked = true, false; });
    }
    EXPECT_EQ(status.to_string(), "kLost: the worker is gone");
  });
  while (!blocked) std::this_thread::yield();
  client.channel.abort(Status(StatusKind::kLost, "the worker is gone"));
  sender.join();
  EXPECT_EQ(client.wait_closed().text(), "the worker is gone");
  EXPECT_EQ(worker.wait_lost().kind(), StatusKind::kDisconnected);
}

// Goal: malformed bytes end the channel that reads them, with the reason, and only that one.
TEST_P(Conformance, MalformedBytesEndIt) {
  auto links = GetParam().make();
  Loop loop;
  auto& raw = links.first;
  std::atomic<bool> done{false};
  const std::string_view garbage = "this is no frame of ours, whatever the length may say";
  const std::span<const std::byte> parts[] = {as_bytes(garbage)};
  loop.run_there([&] {
    raw->start(loop);
    raw->async_write(parts, [&](const Status&, size_t) { done = true; });
  });
  ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  const Status why = worker.wait_closed();
  EXPECT_EQ(why.kind(), StatusKind::kInvalid);
  EXPECT_NE(why.text().find("wrong magic"), std::string::npos) << why.text();
  while (!done) std::this_thread::yield();
  loop.run_there([&] { raw.reset(); });
}

TEST_P(Conformance, DestroyedChannelsDropTheirLinkAtOnce) {
  auto links = GetParam().make();
  ASSERT_TRUE(worker.channel.attach(std::move(links.second), FrameNumber{0}).ok());
  {
    End passing;
    ASSERT_TRUE(passing.channel.attach(std::move(links.first), FrameNumber{0}).ok());
    send(passing, {FrameKind::kRecords, Lane::kRecords, Buffer(10)});
    worker.wait_for(1);
  }
  EXPECT_EQ(worker.wait_lost().kind(), StatusKind::kDisconnected);
}

// Goal: a forked child can do nothing to its parent's session, and ends without waiting for anything.
TEST_P(Conformance, AForkedChildIsHarmless) {
  connect();
  const pid_t pid = ::fork();
  if (pid == 0) {
    const bool refused =
        client.channel.send(Lane::kRecords, FrameKind::kRecords, Buffer(8)).kind() == StatusKind::kLost;
    client.channel.kick(Channel::Kick::kNow);
    client.channel.close(std::chrono::milliseconds(0));
    client.channel.~Channel();
    ::_exit(refused ? 42 : 1);
  }
  EXPECT_EQ(*os::wait_process(pid), 42);
  send(client, {FrameKind::kRecords, Lane::kRecords, Buffer(10)});
  EXPECT_EQ(worker.wait_for(1).size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Links, Conformance,
                         testing::Values(LinkMaker{"socketpair", make_socketpair_links},
                                         LinkMaker{"unix", make_unix_links}, LinkMaker{"pipe", make_pipe_links},
                                         LinkMaker{"memory", [] { return make_memory_links(); }},
                                         LinkMaker{"memory_in_drops", [] { return make_memory_links(1499); }}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace waldo::channel
