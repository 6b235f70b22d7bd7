#include "frontends/torch/memory_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "wire/limits.h"

namespace waldo::torch_frontend {
namespace {

// Pools live for ever, one per device: each test has a device of its own.
MemoryPool& fresh_pool() {
  static c10::DeviceIndex next = 0;
  return MemoryPool::of(next++);
}

TEST(MemoryPool, CountsAsTheCachingAllocatorDoes) {
  MemoryPool& pool = fresh_pool();
  StorageRef* small = pool.take(StorageNeed(1000));
  StorageRef* large = pool.take(StorageNeed((1u << 20) + 1));
  const MemoryStats& stats = pool.stats();
  EXPECT_EQ(stats.bytes[1].current, 1024);
  EXPECT_EQ(stats.bytes[2].current, (1 << 20) + 512);
  EXPECT_EQ(stats.bytes[0].current, stats.bytes[1].current + stats.bytes[2].current);
  EXPECT_EQ(stats.requested[0].current, 1000 + (1 << 20) + 1);
  EXPECT_EQ(stats.count[0].current, 2);
  EXPECT_EQ(stats.reserved.current, 2 << 20);
  pool.give_back(small);
  pool.give_back(large);
  static_cast<void>(pool.stats());  // brings it up to date
  EXPECT_EQ(stats.bytes[0].current, 0);
  EXPECT_EQ(stats.bytes[0].peak, 1024 + (1 << 20) + 512);
  EXPECT_EQ(stats.bytes[2].freed(), (1 << 20) + 512);
  EXPECT_EQ(stats.count[0].freed(), 2);
  EXPECT_EQ(stats.reserved.current, 2 << 20);
}

TEST(MemoryPool, NothingTakesNoAddressAndIsNotCounted) {
  MemoryPool& pool = fresh_pool();
  StorageRef* nothing = pool.take(StorageNeed(0));
  EXPECT_EQ(nothing->address, nullptr);
  EXPECT_EQ(pool.stats().count[0].current, 0);
  pool.give_back(nothing);
  EXPECT_EQ(pool.stats().count[0].freed(), 0);
}

TEST(MemoryPool, BeyondTheLimitThereIsNothing) {
  MemoryPool& pool = fresh_pool();
  pool.set_limit(1024);
  StorageRef* first = pool.take(StorageNeed(512));
  EXPECT_EQ(pool.take(StorageNeed(513)), nullptr);
  EXPECT_EQ(pool.stats().out_of_memory, 1u);
  EXPECT_EQ(pool.stats().bytes[0].current, 512);
  StorageRef* second = pool.take(StorageNeed(512));
  EXPECT_NE(second, nullptr);
  pool.give_back(first);
  pool.give_back(second);
  EXPECT_EQ(pool.take(StorageNeed(limits::storage_bytes_max + 1)), nullptr);
}

TEST(MemoryPool, BlocksAreWhatLives) {
  MemoryPool& pool = fresh_pool();
  StorageRef* small = pool.take(StorageNeed(700));
  StorageRef* gone = pool.take(StorageNeed(300));
  StorageRef* large = pool.take(StorageNeed(3u << 20));
  StorageRef* nothing = pool.take(StorageNeed(0));
  pool.give_back(gone);
  const std::vector<MemoryBlock> blocks = pool.blocks();
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].address, small->address);
  EXPECT_EQ(blocks[0].bytes, 700u);
  EXPECT_EQ(blocks[0].taken, 1024u);
  EXPECT_FALSE(blocks[0].is_large);
  EXPECT_EQ(blocks[1].address, large->address);
  EXPECT_TRUE(blocks[1].is_large);
  for (StorageRef* ref : {small, large, nothing}) pool.give_back(ref);
  EXPECT_TRUE(pool.blocks().empty());
}

struct Watch final : MemoryWatch {
  bool may_take() override { return ready; }
  void taken(const StorageRef& ref) override { seen.push_back("taken " + std::to_string(ref.bytes)); }
  void given_back(const StorageRef& ref) override { seen.push_back("given back " + std::to_string(ref.bytes)); }
  void refused(c10::DeviceIndex, uint64_t bytes, uint64_t free) override {
    seen.push_back("refused " + std::to_string(bytes) + ", free " + std::to_string(free));
  }
  bool ready = true;
  std::vector<std::string> seen;
};

TEST(MemoryPool, AWatchIsToldOfAllThatHasAnAddress) {
  MemoryPool& pool = fresh_pool();
  Watch watch;
  StorageRef* before = pool.take(StorageNeed(5));
  pool.set_watch(&watch);
  pool.set_limit(2048);  // a limit set meanwhile counts, and hides nothing
  StorageRef* ref = pool.take(StorageNeed(700));
  StorageRef* nothing = pool.take(StorageNeed(0));
  EXPECT_EQ(pool.take(StorageNeed(1000)), nullptr);
  for (StorageRef* each : {before, ref, nothing}) pool.give_back_watched(each);
  EXPECT_EQ(watch.seen,
            (std::vector<std::string>{"taken 700", "refused 1000, free 512", "given back 5", "given back 700"}));
  pool.set_watch(nullptr);
  pool.give_back_watched(pool.take(StorageNeed(1)));
  EXPECT_EQ(pool.take(StorageNeed(4096)), nullptr);
  EXPECT_EQ(watch.seen.size(), 4u);
}

// No frames yet: nothing is taken or counted, not even as out of memory, and the next try may work.
TEST(MemoryPool, AWatchMayWantItTriedAgain) {
  MemoryPool& pool = fresh_pool();
  Watch watch;
  watch.ready = false;
  pool.set_watch(&watch);
  EXPECT_EQ(pool.take(StorageNeed(1)), nullptr);
  EXPECT_EQ(pool.stats().out_of_memory, 0u);
  EXPECT_TRUE(pool.blocks().empty());
  EXPECT_NE(pool.take(StorageNeed(0)), nullptr);
  watch.ready = true;
  EXPECT_NE(pool.take(StorageNeed(1)), nullptr);
  EXPECT_EQ(watch.seen, std::vector<std::string>{"taken 1"});
  pool.set_watch(nullptr);
}

TEST(MemoryPool, WhatIsGivenBackIsTakenAgainBySameSizes) {
  MemoryPool& pool = fresh_pool();
  StorageRef* ref = pool.take(StorageNeed(700));
  pool.give_back(ref);
  StorageRef* other = pool.take(StorageNeed(300));
  EXPECT_NE(other, ref);
  EXPECT_EQ(pool.take(StorageNeed(1024)), ref);  // 700 and 1024 both take two steps
  EXPECT_EQ(ref->bytes, 1024u);
}

// Live storages never overlap, each has room for its bytes, and an address names its device.
TEST(MemoryPool, AddressesAreTheirOwn) {
  const c10::DeviceIndex device = 9;
  MemoryPool& pool = MemoryPool::of(device);
  std::mt19937_64 random(7);
  std::map<uintptr_t, StorageRef*> live;
  for (int i = 0; i < 3000; ++i) {
    if (!live.empty() && random() % 3 == 0) {
      auto victim = live.lower_bound(random());
      if (victim == live.end()) victim = live.begin();
      pool.give_back(victim->second);
      live.erase(victim);
      continue;
    }
    const uint64_t bytes = 1 + random() % (uint64_t{1} << (1 + random() % 34));
    StorageRef* ref = pool.take(StorageNeed(bytes));
    ASSERT_NE(ref, nullptr) << bytes;
    const auto at = reinterpret_cast<uintptr_t>(ref->address);
    ASSERT_EQ(at % MemoryPool::kStepBytes, 0u);
    const auto after = live.lower_bound(at);
    ASSERT_LE(at + bytes, after == live.end() ? UINTPTR_MAX : after->first);
    if (after != live.begin()) {
      const StorageRef* before = std::prev(after)->second;
      ASSERT_LE(reinterpret_cast<uintptr_t>(before->address) + before->bytes, at);
    }
    EXPECT_EQ(device_of_address(ref->address), device);
    EXPECT_EQ(device_of_address(static_cast<std::byte*>(ref->address) + bytes - 1), device);
    live.emplace(at, ref);
  }
  int on_the_stack = 0;
  EXPECT_EQ(device_of_address(&on_the_stack), -1);
  EXPECT_EQ(device_of_address(nullptr), -1);
}

}  // namespace
}  // namespace waldo::torch_frontend
