// Calls that fail, users who interrupt, workers that go away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "client/test_support.h"

namespace waldo::client {
namespace {

using testing::Each;
using testing::HasSubstr;
using namespace std::chrono_literals;

// Goal: a failure that the program notices 300 calls later: nothing recorded after it ran, it is told once with its
// detail, and work goes on from there with the values from before.
TEST(Failure, IsToldOnceAndNothingAfterItRan) {
  TestSession session;
  const PlanId slow = session.plan("slow", 0, 0), oom = session.plan("oom", 0, 1),
               add_into = session.plan("add_into_u8", 2, 0);
  const Slot parameter = session.full(8, 10), one = session.full(8, 1);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(slow, {}, {}).ok());
  const Slot made[1] = {session.queue().new_slot()};
  ASSERT_TRUE(session.queue().call(oom, made, {}).ok());
  const CallNumber failing = session.queue().last_call();
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(session.queue().call(add_into, std::vector{parameter, one}, {}).ok());
  session.queue().free_slot(made[0]);
  session.backend.gate().open();

  const Status told = session.queue().synchronize();
  EXPECT_EQ(told.kind(), StatusKind::kDevice);
  EXPECT_EQ(told.detail().call, failing.raw);
  EXPECT_NE(told.detail().error_class, 0);
  EXPECT_TRUE(session.queue().synchronize().ok());
  EXPECT_THAT(session.read(parameter, 8), Each(10));
  ASSERT_TRUE(session.queue().call(add_into, std::vector{parameter, one}, {}).ok());
  EXPECT_THAT(session.read(parameter, 8), Each(11));
  session.queue().free_slot(parameter);
  session.queue().free_slot(one);
  ASSERT_TRUE(session.queue().synchronize().ok());
  EXPECT_EQ(session.backend.live_slots(), 0u);
}

// Goal: a program that never reads hears of it at its next call.
TEST(Failure, IsToldAtTheNextCall) {
  TestSession session;
  const PlanId fail = session.plan("fail", 0, 0), nop = session.plan("nop", 0, 0);
  ASSERT_TRUE(session.queue().call(fail, {}, {}).ok());
  Status told;
  while (told.ok()) told = session.queue().call(nop, {}, {});
  EXPECT_THAT(told.text(), HasSubstr("made to fail"));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(session.queue().call(nop, {}, {}).ok());
  EXPECT_TRUE(session.queue().synchronize().ok());
}

TEST(Failure, ReleasesEveryReadBehindItAndIsStillToldOnce) {
  TestSession session;
  const Slot a = session.full(8, 1);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  uint8_t early[8], late[2][8];
  auto before = session.queue().start_read(a, 0, early, 8);
  ASSERT_TRUE(session.queue().call(session.plan("fail", 0, 0), {}, {}).ok());
  auto first = session.queue().start_read(a, 0, late[0], 8), second = session.queue().start_read(a, 0, late[1], 8);
  auto event = session.queue().record_time();
  ASSERT_TRUE(before.ok() && first.ok() && second.ok() && event.ok());
  session.backend.gate().open();
  EXPECT_TRUE(session.queue().finish_read(*before).ok());
  EXPECT_THAT(early, Each(1));
  EXPECT_EQ(session.queue().finish_read(*first).kind(), StatusKind::kDevice);
  EXPECT_EQ(session.queue().finish_read(*second).kind(), StatusKind::kDevice);
  EXPECT_TRUE(session.queue().reached(*event));
  EXPECT_FALSE(session.queue().time_ns(*event).ok());
  EXPECT_THAT(session.read(a, 8), Each(1));
}

// Goal: a GPU that fails at work from before a call that failed: whoever waits for that work hears of it, and the
// call's failure is still told.
TEST(Failure, ThatComesLateBehindAnotherIsToldToWhoWaits) {
  TestSession session;
  session.backend.answer_later();
  const Slot a = session.full(8, 1);
  session.backend.gate().shut();
  uint8_t bytes[8];
  const auto read = session.queue().start_read(a, 0, bytes, 8);
  ASSERT_TRUE(read.ok());
  ASSERT_TRUE(session.queue().call(session.plan("fail", 0, 0), {}, {}).ok());
  while (session.backend.log() != std::vector<std::string>{"0:full_u8", "0:fail"}) std::this_thread::yield();
  session.backend.break_device();
  session.backend.gate().open();
  EXPECT_THAT(session.queue().finish_read(*read).text(), HasSubstr("the device broke"));
  EXPECT_THAT(session.queue().call(session.plan("nop", 0, 0), {}, {}).text(), HasSubstr("made to fail"));
}

TEST(Failure, OfAnUnknownOperatorNamesIt) {
  TestSession session;
  const PlanId strange = session.plan("aten::strange", 0, 0);
  ASSERT_TRUE(session.queue().call(strange, {}, {}).ok());
  const Status told = session.queue().synchronize();
  EXPECT_EQ(told.kind(), StatusKind::kUnsupported);
  EXPECT_THAT(told.text() + told.detail().op, HasSubstr("aten::strange"));
}

TEST(Failure, OfOneQueueLeavesTheOtherAlone) {
  TestSession session(2);
  ASSERT_TRUE(session.queue(0).call(session.plan("fail", 0, 0, 0), {}, {}).ok());
  const Slot b = session.full(4, 7, 1);
  EXPECT_THAT(session.read(b, 4), Each(7));
  EXPECT_FALSE(session.queue(0).synchronize().ok());
  EXPECT_TRUE(session.queue(1).synchronize().ok());
}

// Goal: many failures in a row, each told, none twice, whatever was under way.
TEST(Failure, CanHappenAgainAndAgain) {
  TestSession session;
  const PlanId fail = session.plan("fail", 0, 0), nop = session.plan("nop", 0, 0);
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(session.queue().call(fail, {}, {}).ok()) << round;
    for (int i = 0; i < round; ++i) {
      if (!session.queue().call(nop, {}, {}).ok()) goto told;  // it came this early
    }
    EXPECT_FALSE(session.queue().synchronize().ok());
  told:
    EXPECT_TRUE(session.queue().synchronize().ok());
  }
}

// --- interrupts ------------------------------------------------------------------------------------------------------

// Goal: Ctrl-C while a read waits: the session and its tensors are as before, the late answer goes nowhere.
TEST(Interrupt, OfAReadLeavesTheSessionUsable) {
  TestSession session;
  const Slot a = session.full(1 << 20, 3);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  session.waits.set_hooks({.interrupted = [] { return true; }, .where = {}});
  {
    std::vector<uint8_t> gone(1 << 20);
    EXPECT_EQ(session.queue().read(a, 0, gone.data(), gone.size()).kind(), StatusKind::kCancelled);
  }  // its memory is freed before the answer comes
  EXPECT_EQ(session.queue().synchronize().kind(), StatusKind::kCancelled);
  session.waits.set_hooks({});
  session.backend.gate().open();
  EXPECT_THAT(session.read(a, 1 << 20), Each(3));
}

// Goal: Ctrl-C in a large upload over a link that is held up: the call comes back, the value arrives whole all the
// same.
TEST(Interrupt, OfAnUploadFinishesItInTheBackground) {
  TestSession session;
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  session.waits.set_hooks({.interrupted = [] { return true; }, .where = {}});
  const uint64_t bytes = limits::staging_bytes_max + 3 * limits::bulk_window_bytes;
  const Slot slot = session.queue().new_slot();
  {
    const std::vector<uint8_t> content(bytes, 8);
    EXPECT_EQ(session.queue().upload(slot, 0, content.data(), bytes).kind(), StatusKind::kCancelled);
  }
  session.waits.set_hooks({});
  session.backend.gate().open();
  const auto content = session.read(slot, bytes);
  EXPECT_TRUE(std::all_of(content.begin(), content.end(), [](uint8_t byte) { return byte == 8; }));
}

// Goal: a worker that does not keep up does not make the program's memory grow without end; and that wait ends like
// any.
TEST(BackPressure, BoundsWhatIsRecordedAhead) {
  TestSession session;
  const PlanId slow = session.plan("slow", 0, 0), fat = session.plan("nop", 0, 0);
  const std::vector<std::byte> scalars(1000);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(slow, {}, {}).ok());
  session.waits.set_hooks({.interrupted = [] { return true; }, .where = {}});
  uint64_t recorded = 0;
  Status status;
  while (status.ok() && recorded < 200'000) {
    status = session.queue().call(fat, {}, scalars);
    recorded += status.ok();
  }
  EXPECT_EQ(status.kind(), StatusKind::kCancelled);
  EXPECT_LT(recorded * scalars.size(), 2 * (limits::records_window_bytes + Recorder::kWaitingBytesMax));
  session.waits.set_hooks({});
  session.backend.gate().open();
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(session.queue().call(fat, {}, scalars).ok());
  ASSERT_TRUE(session.queue().synchronize().ok());
  EXPECT_EQ(session.backend.log().size(), recorded + 10'000 + 1);
}

// --- the end ---------------------------------------------------------------------------------------------------------

TEST(Lost, ReleasesWhoWaitsAndTellsEverybodyLater) {
  TestSession session;
  const Slot a = session.full(8, 1);
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  std::thread killer;
  session.waits.set_hooks({.interrupted = {}, .where = [&] {
                             if (!killer.joinable()) killer = std::thread([&] { session.kill_server(); });
                             return std::pair(std::string(), 0);
                           }});
  uint8_t got[8];
  auto first = session.queue().start_read(a, 0, got, 8), second = session.queue().start_read(a, 0, got, 8);
  ASSERT_TRUE(first.ok() && second.ok());
  const auto began = std::chrono::steady_clock::now();
  const Status status = session.queue().finish_read(*first);
  // The gate opens as the server goes, so this read may still be answered; the next word is that it is gone.
  EXPECT_TRUE(status.ok() || status.kind() == StatusKind::kLost);
  (void)session.queue().finish_read(*second);
  session.waits.set_hooks({});
  Status told;
  while (told.ok()) told = session.queue().synchronize();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 2s);
  killer.join();
  EXPECT_EQ(told.kind(), StatusKind::kLost);
  EXPECT_THAT(told.text(), HasSubstr("the worker of `local` is gone ("));
  EXPECT_TRUE(session.client->lost());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(session.queue().read(a, 0, got, 8).kind(), StatusKind::kLost);
    EXPECT_EQ(session.queue().create(a, 8).kind(), StatusKind::kLost);
    EXPECT_EQ(session.queue().upload(a, 0, got, 8).kind(), StatusKind::kLost);
  }
  session.queue().free_slot(a);
}

TEST(Lost, EndsABlockedUpload) {
  TestSession session;
  session.backend.gate().shut();
  ASSERT_TRUE(session.queue().call(session.plan("slow", 0, 0), {}, {}).ok());
  std::thread killer;
  session.waits.set_hooks({.interrupted = {}, .where = [&] {
                             if (!killer.joinable()) killer = std::thread([&] { session.cut_client(); });
                             return std::pair(std::string(), 0);
                           }});
  const std::vector<uint8_t> content(limits::staging_bytes_max + 4 * limits::bulk_window_bytes);
  const Status status = session.queue().upload(session.queue().new_slot(), 0, content.data(), content.size());
  EXPECT_EQ(status.kind(), StatusKind::kLost);
  EXPECT_THAT(status.text(), HasSubstr("the worker of `local` is gone ("));
  killer.join();
}

TEST(End, FlushesSaysGoodbyeAndMakesTheRestNoOps) {
  TestSession session;
  const PlanId nop = session.plan("nop", 0, 0);
  const Slot a = session.full(8, 1);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(session.queue().call(nop, {}, {}).ok());
  session.client->end(1000ms);
  EXPECT_TRUE(session.server_end().ok());
  uint8_t got[8];
  EXPECT_TRUE(session.queue().call(nop, {}, {}).ok());
  EXPECT_TRUE(session.queue().create(a, 8).ok());
  EXPECT_TRUE(session.queue().upload(a, 0, got, 8).ok());
  EXPECT_EQ(session.queue().read(a, 0, got, 8).kind(), StatusKind::kLost);
  session.queue().free_slot(a);
}

// --- fork ------------------------------------------------------------------------------------------------------------

// Goal: a forked child (a DataLoader worker) gets CUDA's own error, hangs nowhere, even where the parent's other
// threads held locks, and the parent's session goes on.
TEST(Fork, AChildGetsCudasErrorAndTheParentGoesOn) {
  TestSession session;
  const PlanId nop = session.plan("nop", 0, 0);
  const Slot a = session.full(8, 5);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) ASSERT_TRUE(session.queue().call(nop, {}, {}).ok());
  });
  for (int round = 0; round < 10; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      session.client->in_forked_child();  // Runtime has pthread_atfork call it
      uint8_t got[8];
      int wrong = 0;
      for (const Status& status : {session.queue().call(nop, {}, {}), session.queue().read(a, 0, got, 8),
                                   session.queue().upload(a, 0, got, 8), session.queue().synchronize()}) {
        wrong += status.kind() != StatusKind::kInvalid ||
                 status.text().find("Cannot re-initialize CUDA in forked subprocess") == std::string::npos;
      }
      session.queue().free_slot(a);
      session.client->end(1000ms);
      _exit(wrong);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  stop = true;
  busy.join();
  EXPECT_THAT(session.read(a, 8), Each(5));
}

}  // namespace
}  // namespace waldo::client
