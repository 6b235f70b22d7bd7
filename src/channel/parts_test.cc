// The small parts: loop, timers, pool, replay log, gate.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "channel/buffer_pool.h"
#include "channel/flow.h"
#include "channel/loop.h"
#include "channel/replay_log.h"

namespace waldo::channel {
namespace {

using wire::FrameKind;

TEST(Loop, RunsWhatIsPostedInOrderOnItsOwnThread) {
  Loop loop;
  std::vector<int> order;
  bool there = false;
  for (int i = 0; i < 100; ++i) loop.post([&order, i] { order.push_back(i); });
  EXPECT_TRUE(loop.run_there([&] { there = loop.on_loop_thread(); }));
  EXPECT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_TRUE(there);
  EXPECT_FALSE(loop.on_loop_thread());
  loop.stop();
  EXPECT_FALSE(loop.run_there([] { FAIL(); }));
}

TEST(Loop, ItsThreadTakesNoSignals) {
  Loop loop;
  sigset_t mask;
  loop.run_there([&] { ::pthread_sigmask(SIG_SETMASK, nullptr, &mask); });
  for (const int signal : {SIGINT, SIGPIPE, SIGCHLD, SIGTERM}) EXPECT_EQ(sigismember(&mask, signal), 1);
}

TEST(Loop, AThreadedTimerFires) {
  Loop loop;
  auto timer = std::make_unique<Timer>(loop);
  std::atomic<bool> fired{false};
  loop.run_there([&] { timer->arm(loop.now() + std::chrono::microseconds(100), [&] { fired = true; }); });
  while (!fired) std::this_thread::yield();
  loop.run_there([&] { timer.reset(); });
}

TEST(Timer, FiresInOrderOfTimeAndCanBeSetAnewOrCancelled) {
  FakeClock clock;
  Loop loop(Loop::Mode::kManual, clock);
  Timer a(loop), b(loop), c(loop);
  std::string fired;
  using std::chrono::microseconds;
  b.arm(clock.now() + microseconds(200), [&] { fired += 'b'; });
  a.arm(clock.now() + microseconds(100), [&] { fired += 'a'; });
  c.arm(clock.now() + microseconds(50), [&] { fired += 'c'; });
  c.arm(clock.now() + microseconds(300), [&] { fired += 'C'; });
  EXPECT_EQ(loop.run_ready(), 0u);
  clock.advance(microseconds(250));
  EXPECT_EQ(loop.run_ready(), 2u);
  EXPECT_EQ(fired, "ab");
  c.cancel();
  clock.advance(microseconds(250));
  EXPECT_EQ(loop.run_ready(), 0u);
  EXPECT_EQ(loop.next_timer(), std::nullopt);
}

TEST(BufferPool, GivesBackWhatFitsAndKeepsABoundedAmount) {
  BufferPool pool;
  Buffer buffer = pool.take(256 << 10);
  const auto* where = buffer.data();
  pool.give(std::move(buffer));
  EXPECT_EQ(pool.take(200 << 10).data(), where);
  pool.give(Buffer(100));
  EXPECT_EQ(pool.kept_bytes(), 0u);
  for (int i = 0; i < 100; ++i) pool.give(Buffer(256 << 10));
  EXPECT_EQ(pool.kept_bytes(), BufferPool::kept_bytes_max);
  EXPECT_EQ(pool.take(10).size(), 10u);
}

TEST(ReplayLog, NumbersAndForgetsInOrder) {
  BufferPool pool;
  ReplayLog log(pool);
  for (size_t i = 1; i <= 5; ++i) log.append(FrameKind::kDone, Lane::kRecords, Buffer(i));
  EXPECT_EQ(log.last().raw, 5u);
  EXPECT_EQ(log.bytes(), 5 * wire::frame_header_bytes + 15);
  log.acknowledge(FrameNumber{3});
  log.acknowledge(FrameNumber{2});  // an older one changes nothing
  EXPECT_EQ(log.at(FrameNumber{4}).payload.size(), 4u);
  EXPECT_EQ(log.bytes(), 2 * wire::frame_header_bytes + 9);
}

SendGate::Item item(size_t bytes) { return {Lane::kRecords, FrameKind::kRecords, Buffer(bytes)}; }

TEST(SendGate, AWindowIsNeverPassedAndCreditOpensIt) {
  SendGate gate(Windows{{100, 100}});
  EXPECT_TRUE(gate.push(item(60), SendGate::Wait::kNever, {}).ok());
  EXPECT_EQ(gate.push(item(41), SendGate::Wait::kNever, {}).kind(), StatusKind::kOverloaded);
  EXPECT_FALSE(gate.full(Lane::kRecords));
  EXPECT_TRUE(gate.push(item(40), SendGate::Wait::kNever, {}).ok());
  EXPECT_TRUE(gate.full(Lane::kRecords));
  std::thread sender([&] { EXPECT_TRUE(gate.push(item(50), SendGate::Wait::kBlock, {}).ok()); });
  gate.set_consumed(Lane::kRecords, 60);
  sender.join();
  std::vector<SendGate::Item> items;
  gate.take(items);
  EXPECT_EQ(items.size(), 3u);
}

TEST(SendGate, ABlockedSenderCanBeInterruptedAndIsWokenByTheEnd) {
  SendGate gate(Windows{{10, 10}});
  EXPECT_TRUE(gate.push(item(10), SendGate::Wait::kBlock, {}).ok());
  int asked = 0;
  const auto status = gate.push(item(1), SendGate::Wait::kBlock, [&] { return ++asked == 1; });
  EXPECT_EQ(status.kind(), StatusKind::kCancelled);
  EXPECT_EQ(asked, 1);  // asked at once, not after the first 50 ms
  std::atomic<bool> blocked{false};
  std::thread sender([&] {
    const auto ended = gate.push(item(1), SendGate::Wait::kBlock, [&] { return blocked = true, false; });
    EXPECT_EQ(ended.to_string(), "kLost: gone");
  });
  while (!blocked) std::this_thread::yield();
  gate.close(Status(StatusKind::kLost, "gone"));
  sender.join();
  EXPECT_EQ(gate.push(item(1), SendGate::Wait::kBlock, {}).kind(), StatusKind::kLost);
}

}  // namespace
}  // namespace waldo::channel
