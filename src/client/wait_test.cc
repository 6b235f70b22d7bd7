#include "client/wait.h"

#include <gtest/gtest.h>

#include <thread>

namespace waldo::client {
namespace {

// One thing to wait for that another thread makes true.
struct Flag {
  std::mutex mutex;
  std::condition_variable changed;
  bool set = false;
  std::thread raise() {
    return std::thread([this] {
      {
        std::lock_guard lock(mutex);
        set = true;
      }
      changed.notify_all();
    });
  }
  Status wait(Waits& waits, uint64_t issued) {
    std::unique_lock lock(mutex);
    return waits.block(lock, changed, issued, [this] { return set; });
  }
};

TEST(Wait, IsCountedWithThePlaceOfTheUser) {
  Waits waits;
  int line = 7;
  waits.set_hooks({.interrupted = {}, .where = [&] { return std::pair(std::string("train.py"), line++); }});
  for (int i = 0; i < 2; ++i) {
    Flag flag;
    std::thread other = flag.raise();
    EXPECT_TRUE(flag.wait(waits, Waits::issue()).ok());
    other.join();
  }
  EXPECT_EQ(waits.count(), 2u);
  const auto places = waits.places();
  ASSERT_EQ(places.size(), 2u);
  EXPECT_EQ(places[0].file, "train.py");
  EXPECT_EQ(places[0].line, 7);
  EXPECT_EQ(places[0].count, 1u);
  EXPECT_GE(places[0].seconds, 0);
}

// Goal: three reads issued together and finished one by one are one round trip, so one wait.
TEST(Wait, WhatWasIssuedTogetherIsOneWait) {
  Waits waits;
  const uint64_t first = Waits::issue(), second = Waits::issue();
  Flag flag;
  std::thread other = flag.raise();
  EXPECT_TRUE(flag.wait(waits, first).ok());
  EXPECT_TRUE(flag.wait(waits, second).ok());
  EXPECT_EQ(waits.count(), 1u);
  EXPECT_TRUE(flag.wait(waits, Waits::issue()).ok());  // issued after the first wait began: another round trip
  EXPECT_EQ(waits.count(), 2u);
  other.join();
}

TEST(Wait, EndsWhenTheUserAsksTo) {
  Waits waits;
  int asked = 0;
  waits.set_hooks({.interrupted = [&] { return ++asked == 2; }, .where = {}});
  Flag never;
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(never.wait(waits, Waits::issue()).kind(), StatusKind::kCancelled);
  EXPECT_EQ(asked, 2);
  EXPECT_GE(std::chrono::steady_clock::now() - began, 2 * Waits::kAskEvery);
}

// Goal: hooks take the interpreter's lock, so no lock of ours may be held then. Method: the hook takes ours.
TEST(Wait, HooksAreCalledWithoutALock) {
  Waits waits;
  Flag flag;
  waits.set_hooks({.interrupted =
                       [&] {
                         flag.raise().join();
                         return waits.places().size() > 1;
                       },
                   .where = [&] { return std::lock_guard(flag.mutex), std::pair(std::string("a.py"), 1); }});
  EXPECT_TRUE(flag.wait(waits, Waits::issue()).ok());
}

TEST(Wait, AFunctionThatDoesNotBlockIsNotCounted) {
  Waits waits;
  EXPECT_TRUE(waits.block([](const std::function<bool()>&) { return Status(); }).ok());
  EXPECT_EQ(waits.count(), 0u);
  EXPECT_TRUE(waits.block([](const std::function<bool()>& interrupted) { return (void)interrupted(), Status(); }).ok());
  EXPECT_EQ(waits.count(), 1u);
}

}  // namespace
}  // namespace waldo::client
