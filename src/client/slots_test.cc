#include "client/slots.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace waldo::client {
namespace {

std::vector<Slot> drain(SlotTable& slots) {
  std::vector<Slot> drained;
  slots.give_back(slots.take_dropped(), [&](Slot slot, void*) { drained.push_back(slot); });
  return drained;
}

// Goal: a slot is not given out again before it was drained, which is when its FREE is recorded.
TEST(Slots, AreTakenAgainOnlyAfterTheyWereDrained) {
  SlotTable slots(QueueId{3});
  const Slot a = slots.take(), b = slots.take();
  EXPECT_EQ(a, Slot::make(QueueId{3}, 0));
  EXPECT_EQ(b, Slot::make(QueueId{3}, 1));
  slots.drop(a);
  EXPECT_TRUE(slots.any_dropped());
  EXPECT_EQ(slots.take(), Slot::make(QueueId{3}, 2));
  EXPECT_EQ(drain(slots), std::vector{a});
  EXPECT_FALSE(slots.any_dropped());
  EXPECT_EQ(slots.take(), a);
}

TEST(Slots, DrainGivesTheOldestFirst) {
  SlotTable slots(QueueId{0});
  std::vector<Slot> taken;
  for (int i = 0; i < 5; ++i) taken.push_back(slots.take());
  const std::vector dropped{taken[3], taken[0], taken[4], taken[1]};
  for (const Slot slot : dropped) slots.drop(slot);
  EXPECT_EQ(drain(slots), dropped);
  EXPECT_EQ(slots.live(), 1u);
  EXPECT_TRUE(drain(slots).empty());
}

// Goal: deleters on many threads, under no lock, against one recorder: every slot comes back exactly once.
TEST(Slots, ManyThreadsDropWhileOneTakes) {
  SlotTable slots(QueueId{1});
  constexpr int kThreads = 4, kEach = 20'000;
  std::vector<std::vector<Slot>> taken(kThreads);
  for (auto& mine : taken) {
    for (int i = 0; i < kEach; ++i) mine.push_back(slots.take());
  }
  std::atomic<int> running{kThreads};
  std::vector<std::thread> threads;
  for (auto& mine : taken) {
    threads.emplace_back([&] {
      for (const Slot slot : mine) slots.drop(slot);
      --running;
    });
  }
  std::set<uint32_t> seen;
  while (running != 0 || slots.any_dropped()) {
    slots.give_back(slots.take_dropped(), [&](Slot slot, void*) { EXPECT_TRUE(seen.insert(slot.raw).second); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(seen.size(), size_t{kThreads} * kEach);
  EXPECT_EQ(slots.live(), 0u);
  for (int i = 0; i < kThreads * kEach; ++i) EXPECT_TRUE(seen.contains(slots.take().raw));
}

TEST(SlotsDeathTest, DroppingTwiceIsOurOwnBug) {
  SlotTable slots(QueueId{0});
  const Slot slot = slots.take();
  slots.drop(slot);
  EXPECT_DEATH(slots.drop(slot), "slots.h");
}

}  // namespace
}  // namespace waldo::client
