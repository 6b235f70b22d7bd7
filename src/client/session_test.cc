// The client against a real server session: order, names, contents, failures, counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/prng.h"
#include "client/test_support.h"

namespace waldo::client {
namespace {

using testing::Each;
using testing::HasSubstr;

TEST(Session, CallsRunInTheOrderTheyWereRecorded) {
  TestSession session;
  const PlanId add = session.plan("add_u8", 2, 1), add_into = session.plan("add_into_u8", 2, 0);
  const Slot a = session.full(16, 1), b = session.full(16, 2);
  Slot abc[3] = {a, b, {}};
  ASSERT_TRUE(session.queue().call_making(add, abc, {}).ok());
  const Slot cb[2] = {abc[2], b};
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(session.queue().call(add_into, cb, {}).ok());
  EXPECT_THAT(session.read(abc[2], 16), Each(3 + 10 * 2));
}

// Goal: names are used again, values are not: a long run needs a handful of slots on both sides.
TEST(Session, SlotsRecycle) {
  TestSession session;
  const PlanId add = session.plan("add_u8", 2, 1);
  Slot sum = session.full(4, 0);
  const Slot one = session.full(4, 1);
  for (int i = 0; i < 200; ++i) {
    Slot named[3] = {sum, one, {}};
    ASSERT_TRUE(session.queue().call_making(add, named, {}).ok());
    session.queue().free_slot(sum);
    sum = named[2];
    EXPECT_LT(sum.index(), 4u);
  }
  EXPECT_THAT(session.read(sum, 4), Each(200));
  EXPECT_EQ(session.backend.live_slots(), 2u);
  session.queue().free_slot(sum);
  session.queue().free_slot(one);
  ASSERT_TRUE(session.queue().synchronize().ok());
  EXPECT_EQ(session.backend.live_slots(), 0u);
}

// Goal: the last tensors of a program are freed on the worker too, though no call follows.
TEST(Session, DroppedSlotsAreFreedWithoutAFurtherCall) {
  TestSession session;
  const Slot a = session.full(4, 1);
  ASSERT_TRUE(session.queue().synchronize().ok());
  session.queue().free_slot(a);
  while (session.backend.live_slots() != 0) std::this_thread::yield();  // the test's time limit ends a failure
}

class Contents : public testing::TestWithParam<Content> {};
INSTANTIATE_TEST_SUITE_P(Ways, Contents, testing::Values(Content::kInline, Content::kShared),
                         [](const auto& info) { return info.param == Content::kShared ? "Shared" : "Inline"; });

TEST_P(Contents, UploadsAndReadsOfEverySizeKeepTheirBytes) {
  TestSession session(GetParam());
  Prng prng(7);
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{4096}, uint64_t{limits::shared_bytes_min - 1},
        uint64_t{limits::shared_bytes_min}, uint64_t{limits::chunk_bytes - 1}, uint64_t{limits::chunk_bytes},
        uint64_t{limits::chunk_bytes} + 1, uint64_t{5'000'001},
        uint64_t{limits::staging_bytes_max + limits::bulk_window_bytes + 12'345}}) {
    std::vector<uint8_t> content(bytes);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(prng.next());
    const Slot slot = session.queue().new_slot();
    ASSERT_TRUE(session.queue().upload(slot, 0, content.data(), bytes).ok()) << bytes;
    EXPECT_TRUE(session.read(slot, bytes) == content) << bytes;
    session.queue().free_slot(slot);
  }
}

TEST_P(Contents, AnUploadReplacesAPartAndAReadTakesOne) {
  TestSession session(GetParam());
  const Slot slot = session.full(100, 9);
  const uint8_t part[3] = {1, 2, 3};
  ASSERT_TRUE(session.queue().upload(slot, 50, part, 3).ok());
  uint8_t got[5] = {};
  ASSERT_TRUE(session.queue().read(slot, 49, got, 5).ok());
  EXPECT_THAT(got, testing::ElementsAre(9, 1, 2, 3, 9));
}

// Goal: an upload's memory is the caller's again when it returns.
TEST_P(Contents, UploadCopiesBeforeItReturns) {
  TestSession session(GetParam());
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  std::vector<uint8_t> content(1 << 20, 5);
  const Slot slot = session.queue().new_slot();
  ASSERT_TRUE(session.queue().upload(slot, 0, content.data(), content.size()).ok());
  std::fill(content.begin(), content.end(), uint8_t{6});
  session.backend.gate().open();
  EXPECT_THAT(session.read(slot, content.size()), Each(5));
}

TEST(Session, AsksGiveTheReport) {
  TestSession session;
  const PlanId full = session.plan("full_u8", 0, 1);
  const Slot slot[1] = {session.queue().new_slot()};
  Buffer report;
  ASSERT_TRUE(session.queue().ask(full, slot, full_scalars(77, 1), &report).ok());
  uint64_t bytes = 0;
  ASSERT_EQ(report.size(), sizeof bytes);
  std::memcpy(&bytes, report.data(), sizeof bytes);
  EXPECT_EQ(bytes, 77u);
  ASSERT_TRUE(session.queue().ask_command(as_bytes("hello"), &report).ok());
  EXPECT_EQ(as_text(report), "hello");
  EXPECT_EQ(session.counters().asks, 2u);
}

TEST(Session, ConformedPlansAreToldOnce) {
  TestSession session;
  const PlanId conform = session.plan("conform_u8", 1, 1);
  const Slot a = session.full(4, 1);
  EXPECT_FALSE(session.queue().any_conformed());
  for (int i = 0; i < 3; ++i) {
    Slot named[2] = {a, {}};
    ASSERT_TRUE(session.queue().call_making(conform, named, {}).ok());
  }
  ASSERT_TRUE(session.queue().synchronize().ok());
  EXPECT_TRUE(session.queue().conformed(conform));
  EXPECT_EQ(session.counters().conforms, 3u);
  PlanId told;
  ASSERT_TRUE(session.queue().any_conformed());
  ASSERT_TRUE(session.queue().take_conformed(&told));
  EXPECT_EQ(told, conform);
  EXPECT_FALSE(session.queue().take_conformed(&told));
  EXPECT_FALSE(session.queue().any_conformed());
}

TEST(Session, EventsTellTheWorkersTime) {
  TestSession session;
  const auto first = session.queue().record_time();
  session.full(4, 1);
  const auto second = session.queue().record_time();
  ASSERT_TRUE(first.ok() && second.ok());
  const auto end = session.queue().time_ns(*second), begin = session.queue().time_ns(*first);
  ASSERT_TRUE(begin.ok() && end.ok());
  EXPECT_GT(*end, *begin);
  EXPECT_TRUE(session.queue().reached(*first));
  EXPECT_EQ(session.counters().waits, 1u);  // the second question needs no answer from afar
  session.queue().forget_time(*first);
  session.queue().forget_time(*second);
  EXPECT_EQ(session.queue().time_ns(*first).status().kind(), StatusKind::kInvalid);
}

TEST(Session, WhatIsWrongIsSaidAtOnce) {
  TestSession session(2);
  const PlanId add = session.plan("add_u8", 2, 1);
  const Slot a = session.full(4, 1);
  const Slot two[2] = {a, a};
  EXPECT_EQ(session.queue().call(add, two, {}).kind(), StatusKind::kInvalid);
  EXPECT_EQ(session.queue().call(PlanId{99}, two, {}).kind(), StatusKind::kInvalid);
  const Slot nowhere[3] = {a, Slot::make(QueueId{9}, 0), a}, none[3] = {a, Slot{}, a};
  EXPECT_EQ(session.queue().call(add, nowhere, {}).kind(), StatusKind::kInvalid);
  EXPECT_EQ(session.queue().call(add, none, {}).kind(), StatusKind::kInvalid);
  EXPECT_EQ(session.queue(1).create(a, 4).kind(), StatusKind::kInvalid);
  uint8_t byte;
  EXPECT_EQ(session.queue(1).read(a, 0, &byte, 1).kind(), StatusKind::kInvalid);
  EXPECT_EQ(session.queue().finish_read({CallNumber{12'345}}).kind(), StatusKind::kInvalid);
  const std::vector<std::byte> body(limits::plan_body_bytes_max + 1);
  const PlanId too_long = session.queue().define_plan(0, 0, body);
  EXPECT_EQ(session.queue().call(too_long, {}, {}).kind(), StatusKind::kUnsupported);
  EXPECT_THAT(session.read(a, 4), Each(1));  // the session is none the worse
}

// --- counts ----------------------------------------------------------------------------------------------------------

TEST(Counts, AreExact) {
  TestSession session;
  const Counters before = session.counters();
  const PlanId add = session.plan("add_u8", 2, 1);
  const Slot a = session.full(16, 1);
  Slot named[3] = {a, a, {}};
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(session.queue().call_making(add, named, {}).ok());
    session.queue().free_slot(named[2]);
  }
  session.read(a, 16);
  ASSERT_TRUE(session.queue().synchronize().ok());
  const Counters after = session.counters();
  EXPECT_EQ(after.calls - before.calls, 1u + 50u + 1u + 1u);
  EXPECT_EQ(after.plans - before.plans, 1u);
  EXPECT_EQ(after.frees - before.frees, 50u);
  EXPECT_EQ(after.waits - before.waits, 2u);
  EXPECT_EQ(after.asks, before.asks);
  EXPECT_GT(after.bytes_up, before.bytes_up + 50 * 20);
  EXPECT_GT(after.messages, before.messages);
}

// Goal: reads issued together cost one wait; what was read before costs none.
TEST(Counts, ReadsIssuedTogetherAreOneWait) {
  TestSession session;
  const Slot a = session.full(16, 1), b = session.full(16, 2), c = session.full(16, 3);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  uint8_t got[3][16];
  std::vector<ReadTicket> tickets;
  int i = 0;
  for (const Slot slot : {a, b, c}) {
    auto ticket = session.queue().start_read(slot, 0, got[i++], 16);
    ASSERT_TRUE(ticket.ok());
    tickets.push_back(*ticket);
  }
  EXPECT_FALSE(session.queue().read_done(tickets[0]));
  session.waits.set_hooks({.interrupted = {}, .where = [&] {
                             session.backend.gate().open();
                             return std::pair(std::string("program.py"), 3);
                           }});
  for (const ReadTicket ticket : tickets) EXPECT_TRUE(session.queue().finish_read(ticket).ok());
  EXPECT_THAT(got[0], Each(1));
  EXPECT_THAT(got[1], Each(2));
  EXPECT_THAT(got[2], Each(3));
  const Counters counters = session.counters();
  EXPECT_EQ(counters.waits, 1u);
  ASSERT_EQ(counters.waits_at.size(), 1u);
  EXPECT_EQ(counters.waits_at[0].file, "program.py");
  EXPECT_EQ(counters.waits_at[0].count, 1u);
}

TEST(Counts, AReadThatArrivedMeanwhileIsNoWait) {
  TestSession session;
  const Slot a = session.full(16, 4);
  uint8_t got[16];
  auto ticket = session.queue().start_read(a, 0, got, 16);
  ASSERT_TRUE(ticket.ok());
  while (!session.queue().read_done(*ticket)) std::this_thread::yield();
  EXPECT_TRUE(session.queue().finish_read(*ticket).ok());
  EXPECT_THAT(got, Each(4));
  EXPECT_EQ(session.counters().waits, 0u);
}

// Goal: a large upload that the worker does not take yet blocks many times and is one wait.
TEST_P(Contents, AnUploadThatBlocksIsOneWait) {
  TestSession session(GetParam());
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  session.waits.set_hooks({.interrupted = {}, .where = [&] {
                             session.backend.gate().open();
                             return std::pair(std::string("program.py"), 4);
                           }});
  const std::vector<uint8_t> content(limits::staging_bytes_max + 8 * limits::bulk_window_bytes);
  ASSERT_TRUE(session.queue().upload(session.queue().new_slot(), 0, content.data(), content.size()).ok());
  EXPECT_EQ(session.counters().waits, 1u);
}

// Goal: content is counted whichever way it took, and a link carries none of what went through shared memory.
TEST_P(Contents, BytesAreCounted) {
  TestSession session(GetParam());
  const std::vector<uint8_t> content(1 << 20);
  const auto before = session.counters();
  const Slot slot = session.queue().new_slot();
  ASSERT_TRUE(session.queue().upload(slot, 0, content.data(), content.size()).ok());
  (void)session.read(slot, content.size());
  const auto after = session.counters();
  EXPECT_GE(after.bytes_up - before.bytes_up, content.size());
  EXPECT_GE(after.bytes_down - before.bytes_down, content.size());
  EXPECT_LT(after.bytes_up - before.bytes_up, content.size() + 4096);
  EXPECT_LT(after.bytes_down - before.bytes_down, content.size() + 4096);
  const bool on_the_link = session.client->channel_counters().bytes_sent >= content.size();
  EXPECT_EQ(on_the_link, GetParam() == Content::kInline);
}

// Goal: a link that is replaced in the middle of large contents takes nothing with it, neither way.
TEST_P(Contents, LinksMayBeReplacedOnTheWay) {
  TestSession session(GetParam(), LinkLoss::kKeepsSession);
  session.server->keep_for(std::chrono::hours(1));
  std::vector<uint8_t> content(2 * limits::bulk_window_bytes);
  Prng prng(9);
  for (uint8_t& byte : content) byte = static_cast<uint8_t>(prng.next());
  std::atomic<bool> done{false};
  std::thread cutter([&] {
    while (!done) session.swap_links();
  });
  const Slot slot = session.queue().new_slot();
  EXPECT_TRUE(session.queue().upload(slot, 0, content.data(), content.size()).ok());
  EXPECT_TRUE(session.read(slot, content.size()) == content);
  done = true;
  cutter.join();
}

// --- queues ----------------------------------------------------------------------------------------------------------

// Goal: a call that uses another queue's slot runs after what was recorded there, and before what is recorded there
// later.
TEST(Queues, UseOfEachOthersSlotsKeepsTheOrder) {
  TestSession session(2);
  const PlanId copy = session.plan("copy_u8", 1, 1, 1), fill = session.plan("fill_u8", 1, 0, 0);
  const PlanId slow0 = session.plan("slow", 0, 0, 0), slow1 = session.plan("slow", 0, 0, 1);
  const auto filled_with = [](uint64_t value) {
    std::vector<std::byte> scalars(8);
    std::memcpy(scalars.data(), &value, 8);
    return scalars;
  };
  const Slot a = session.full(8, 1, 0);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue(0).call(slow0, {}, {}).ok());
  ASSERT_TRUE(session.queue(0).call(fill, std::vector{a}, filled_with(2)).ok());
  ASSERT_TRUE(session.queue(1).call(slow1, {}, {}).ok());
  const Slot b = session.queue(1).new_slot();
  ASSERT_TRUE(session.queue(1).call(copy, std::vector{a, b}, {}).ok());           // must see 2
  ASSERT_TRUE(session.queue(0).call(fill, std::vector{a}, filled_with(3)).ok());  // must not be seen
  session.queue(0).free_slot(a);                                                  // nor this
  session.backend.gate().open();
  EXPECT_THAT(session.read(b, 8), Each(2));
}

TEST(Queues, ThreadsThatUseEachOthersQueuesNeitherBlockNorMixUp) {
  TestSession session(2);
  const PlanId copies[2] = {session.plan("copy_u8", 1, 1, 0), session.plan("copy_u8", 1, 1, 1)};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const size_t mine = t % 2, other = 1 - mine;
      for (int i = 0; i < 100; ++i) {
        const auto value = static_cast<uint8_t>(t * 50 + static_cast<size_t>(i) % 50);
        const Slot a = session.full(8, value, mine);
        Slot there[2] = {a, {}}, back[2];
        ASSERT_TRUE(session.queue(other).call_making(copies[other], there, {}).ok());
        session.queue(other).free_slot(a);  // any queue takes any slot back
        back[0] = there[1];
        ASSERT_TRUE(session.queue(mine).call_making(copies[mine], back, {}).ok());
        session.queue(other).free_slot(there[1]);
        EXPECT_THAT(session.read(back[1], 8), Each(value));
        session.queue(mine).free_slot(back[1]);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(session.queue(0).synchronize().ok());
  ASSERT_TRUE(session.queue(1).synchronize().ok());
  EXPECT_EQ(session.backend.live_slots(), 0u);
}

TEST(Queues, AfterMakesOneQueueWaitForACallOfAnother) {
  TestSession session(2);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue(0).call(session.plan("slow", 0, 0, 0), {}, {}).ok());
  ASSERT_TRUE(session.queue(1).after(session.queue(0), session.queue(0).last_call()).ok());
  const PlanId nop = session.plan("nop", 0, 0, 1);
  ASSERT_TRUE(session.queue(1).call(nop, {}, {}).ok());
  session.backend.gate().wait_until_waiters(1);
  EXPECT_EQ(session.backend.log(), std::vector<std::string>{});  // "slow" is noted when it ends
  session.backend.gate().open();
  ASSERT_TRUE(session.queue(1).synchronize().ok());
  EXPECT_EQ(session.backend.log(), (std::vector<std::string>{"0:slow", "1:nop"}));
}

}  // namespace
}  // namespace waldo::client
