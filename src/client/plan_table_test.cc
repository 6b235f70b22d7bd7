#include "client/plan_table.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/prng.h"

namespace waldo::client {
namespace {

PlanKey key(uint64_t number) {
  Prng prng(number);
  return {prng.next(), prng.next()};
}

TEST(PlanTable, FindsWhatWasPutIn) {
  PlanTable<uint32_t> table(16);
  for (uint32_t i = 1; i <= 5000; ++i) EXPECT_TRUE(table.insert(key(i), i));
  for (uint32_t i = 1; i <= 5000; ++i) EXPECT_EQ(table.find(key(i)), i);
  EXPECT_EQ(table.find(key(5001)), 0u);
  EXPECT_EQ(table.size(), 5000u);
}

// Goal: half a key is never enough; the whole 128 bits decide.
TEST(PlanTable, KeysThatShareAHalfAreDifferent) {
  PlanTable<uint32_t> table;
  EXPECT_TRUE(table.insert({7, 1}, 1));
  EXPECT_TRUE(table.insert({7, 2}, 2));
  EXPECT_TRUE(table.insert({7 + 1024, 1}, 3));
  EXPECT_EQ(table.find({7, 1}), 1u);
  EXPECT_EQ(table.find({7, 2}), 2u);
  EXPECT_EQ(table.find({7 + 1024, 1}), 3u);
  EXPECT_EQ(table.find({7, 3}), 0u);
}

TEST(PlanTable, TheFirstValueStays) {
  PlanTable<const char*> table;
  const char *first = "first", *second = "second";
  EXPECT_TRUE(table.insert(key(1), first));
  EXPECT_FALSE(table.insert(key(1), second));
  EXPECT_EQ(table.find(key(1)), first);
}

// Goal: readers without a lock see nothing or the right value, also while the table grows under them.
TEST(PlanTable, ReadersNeedNoLockWhileItGrows) {
  PlanTable<uint64_t> table(16);
  constexpr uint64_t kCount = 20'000;
  std::atomic<uint64_t> inserted{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      for (uint64_t done = 0; done < kCount;) {
        done = inserted.load(std::memory_order_acquire);
        for (uint64_t i = 1; i <= done; i += 97) ASSERT_EQ(table.find(key(i)), i);
        const uint64_t ahead = table.find(key(done + 1));
        ASSERT_TRUE(ahead == 0 || ahead == done + 1);
      }
    });
  }
  for (uint64_t i = 1; i <= kCount; ++i) {
    table.insert(key(i), i);
    inserted.store(i, std::memory_order_release);
  }
  for (auto& reader : readers) reader.join();
}

}  // namespace
}  // namespace waldo::client
