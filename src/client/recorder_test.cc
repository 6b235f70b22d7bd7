#include "client/recorder.h"

#include <gtest/gtest.h>

#include <deque>

namespace waldo::client {
namespace {

using wire::Record;
using wire::RecordKind;
using wire::RecordReader;

constexpr PlanId kAdd{0};

struct Recorded {
  wire::RecordsHeader header;
  std::vector<RecordKind> kinds;
  std::vector<uint64_t> calls;
};

Recorded parse(const Buffer& frame) {
  Recorded recorded;
  auto reader = RecordReader::open(frame);
  EXPECT_TRUE(reader.ok()) << reader.status().text();
  recorded.header = reader->header();
  Record record;
  while (reader->next(record)) {
    recorded.kinds.push_back(record.kind);
    if (record.call.raw != 0) recorded.calls.push_back(record.call.raw);
  }
  EXPECT_TRUE(reader->status().ok()) << reader->status().text();
  return recorded;
}

class RecorderTest : public testing::Test {
 protected:
  RecorderTest() : recorder_(QueueId{2}) { recorder_.plans.push_back({2, 1}); }

  bool call() {
    const Slot slots[] = {Slot::make(QueueId{2}, 0), Slot::make(QueueId{2}, 1), Slot::make(QueueId{2}, 2)};
    return recorder_.try_call(kAdd, slots, {}, &urge_);
  }
  std::vector<Buffer> take() {
    std::vector<Buffer> frames;
    recorder_.take_frames(frames, UINT64_MAX);
    recorder_.kicked.store(false);
    return frames;
  }

  Recorder recorder_;
  NoOwners nobody_;
  Recorder::Urge urge_ = Recorder::Urge::kNone;
};

TEST_F(RecorderTest, TheFirstRecordIsSentSoonAndAFullSegmentNow) {
  EXPECT_TRUE(call());
  EXPECT_EQ(urge_, Recorder::Urge::kSoon);
  int quiet = 0;
  while (call() && urge_ == Recorder::Urge::kNone) ++quiet;
  EXPECT_EQ(urge_, Recorder::Urge::kNow);
  EXPECT_GE(recorder_.waiting_bytes(), Recorder::kUrgentBytes);
  EXPECT_TRUE(call());
  EXPECT_EQ(urge_, Recorder::Urge::kNone);  // said once
  EXPECT_GT(quiet, 100);
}

// Goal: frames leave whole, but what waits is bounded: when nobody collects, the quick way ends.
TEST_F(RecorderTest, WhoRecordsCutsFramesUntilTheLoopIsBehind) {
  while (call()) {
  }
  EXPECT_LE(recorder_.waiting_bytes(), 2 * limits::records_bytes_soft + Recorder::kUrgentBytes);
  const auto frames = take();
  ASSERT_GT(frames.size(), limits::records_bytes_soft / Recorder::kUrgentBytes);
  for (size_t i = 0; i + 1 < frames.size(); ++i) EXPECT_LT(frames[i].size(), Recorder::kUrgentBytes + 100);
  EXPECT_TRUE(call());
}

// Goal: the frame says which call its first numbered record is, also when records without numbers come first.
TEST_F(RecorderTest, FramesGoOnCounting) {
  EXPECT_TRUE(call());
  EXPECT_TRUE(call());
  auto frames = take();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(parse(frames[0]).calls, (std::vector<uint64_t>{1, 2}));
  const Slot dropped = recorder_.slots.take();
  recorder_.slots.drop(dropped);
  EXPECT_TRUE(call());
  frames = take();
  const Recorded recorded = parse(frames[0]);
  EXPECT_EQ(recorded.header.queue, QueueId{2});
  EXPECT_EQ(recorded.header.first_call, CallNumber{3});
  EXPECT_EQ(recorded.kinds, (std::vector{RecordKind::kFree, RecordKind::kCall}));
  EXPECT_EQ(recorded.calls, std::vector<uint64_t>{3});
}

// Goal: the record that names a slot anew comes after the FREE of its old value, in the same stream.
TEST_F(RecorderTest, ADroppedSlotIsFreedBeforeTheNextCallTakesIt) {
  recorder_.plans.push_back({0, 1});
  Slot made[1];
  EXPECT_TRUE(recorder_.try_call_making(PlanId{1}, made, {}, &urge_, nobody_));
  const Slot first = made[0];
  recorder_.slots.drop(first);
  EXPECT_TRUE(recorder_.try_call_making(PlanId{1}, made, {}, &urge_, nobody_));
  EXPECT_EQ(made[0], first);
  EXPECT_EQ(parse(take()[0]).kinds, (std::vector{RecordKind::kCall, RecordKind::kFree, RecordKind::kCall}));
  EXPECT_EQ(recorder_.frees, 1u);
}

struct Owners {
  explicit Owners(bool room) : room(room) {}
  bool admit() { return room; }
  void* name(size_t, Slot slot) { return &named.emplace_back(slot); }
  bool room;
  std::deque<Slot> named;
};
std::vector<Slot> g_released;  // in the order of their FREEs

// Goal: whoever owns a slot is told once, when its FREE is recorded, and before another call can take the slot.
TEST_F(RecorderTest, AnOwnerIsToldWhenItsSlotIsFreed) {
  g_released.clear();
  recorder_.released = [](void* owner) noexcept { g_released.push_back(*static_cast<Slot*>(owner)); };
  recorder_.plans.push_back({0, 2});
  Owners owners(true);
  Slot made[2], again[2];
  EXPECT_TRUE(recorder_.try_call_making(PlanId{1}, made, {}, &urge_, owners));
  EXPECT_EQ(owners.named, (std::deque{made[0], made[1]}));
  recorder_.slots.drop(made[1]);
  recorder_.slots.drop(made[0]);
  EXPECT_TRUE(g_released.empty());
  EXPECT_TRUE(recorder_.try_call_making(PlanId{1}, again, {}, &urge_, owners));
  EXPECT_EQ(g_released, (std::vector{made[1], made[0]}));
  recorder_.slots.drop(again[0]);
  recorder_.trouble.store(Recorder::kLost);  // nothing is recorded any more, and nobody forgotten
  recorder_.put_dropped_slow();
  EXPECT_EQ(g_released.size(), 3u);
}

TEST_F(RecorderTest, WhatFindsNoRoomIsNotRecorded) {
  recorder_.plans.push_back({0, 1});
  Owners owners(false);
  Slot made[1];
  EXPECT_TRUE(recorder_.try_call_making(PlanId{1}, made, {}, &urge_, owners));
  EXPECT_EQ(urge_, Recorder::Urge::kNoRoom);
  EXPECT_EQ(recorder_.waiting_bytes(), 0u);
  EXPECT_EQ(recorder_.slots.live(), 0u);
}

TEST_F(RecorderTest, WhatIsNotOrdinaryGoesTheSlowWay) {
  const Slot foreign[] = {Slot::make(QueueId{2}, 0), Slot::make(QueueId{1}, 1), Slot::make(QueueId{2}, 2)};
  EXPECT_FALSE(recorder_.try_call(kAdd, foreign, {}, &urge_));
  EXPECT_FALSE(recorder_.try_call(kAdd, std::span(foreign).first(2), {}, &urge_));
  EXPECT_FALSE(recorder_.try_call(PlanId{7}, foreign, {}, &urge_));
  recorder_.trouble.store(Recorder::kFailed);
  EXPECT_FALSE(call());
  EXPECT_EQ(recorder_.waiting_bytes(), 0u);
}

// Goal: megabytes become frames within the limit, in order, and can be taken in parts.
TEST_F(RecorderTest, ManyRecordsBecomeManyFrames) {
  const std::vector<std::byte> scalars(100'000);
  constexpr uint64_t kCalls = 20;
  const Slot slots[3] = {Slot::make(QueueId{2}, 0), Slot::make(QueueId{2}, 1), Slot::make(QueueId{2}, 2)};
  for (uint64_t i = 0; i < kCalls; ++i) {
    recorder_.make_room(100'100);
    recorder_.builder.call(kAdd, slots, scalars);
  }
  uint64_t expected = 1, left = recorder_.waiting_bytes();
  EXPECT_GT(left, kCalls * 100'000);
  while (left != 0) {
    std::vector<Buffer> frames;
    left = recorder_.take_frames(frames, 512 << 10);
    EXPECT_LE(frames.size(), 3u);
    for (const Buffer& frame : frames) {
      EXPECT_LE(frame.size(), limits::frame_payload_bytes_max);
      for (const uint64_t call : parse(frame).calls) EXPECT_EQ(call, expected++);
    }
  }
  EXPECT_EQ(expected, kCalls + 1);
}

TEST_F(RecorderTest, ThousandsOfDropsAreFewFrees) {
  std::vector<Slot> taken;
  for (int i = 0; i < 100'000; ++i) taken.push_back(recorder_.slots.take());
  for (const Slot slot : taken) recorder_.slots.drop(slot);
  EXPECT_TRUE(call());
  size_t frees = 0;
  for (const Buffer& frame : take()) {
    for (const RecordKind kind : parse(frame).kinds) frees += kind == RecordKind::kFree;
  }
  EXPECT_EQ(frees, 25u);
  EXPECT_EQ(recorder_.frees, 100'000u);
}

}  // namespace
}  // namespace waldo::client
