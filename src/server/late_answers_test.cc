#include "server/late_answers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <vector>

namespace waldo::server {
namespace {

// A device whose work ends when the test says so; the n-th piece of work is behind those before it.
class FakeDevice {
 public:
  LateAnswers::Ready work() {
    return [this, mine = given_++]() -> Result<bool> {
      if (broken_) return Status(StatusKind::kDevice, "an illegal memory access");
      return ended_ > mine;
    };
  }
  void end(int count) { ended_ += count; }
  void break_down() { broken_ = true; }

 private:
  int given_ = 0;
  std::atomic<int> ended_{0};
  std::atomic<bool> broken_{false};
};

// Keeps what it was told; waits without a limit, so that a test that fails says so by its time-out.
class Told {
 public:
  void add(std::string text) {
    std::lock_guard lock(mutex_);
    texts_.push_back(std::move(text));
    changed_.notify_all();
  }
  std::vector<std::string> wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return texts_.size() >= count; });
    return texts_;
  }
  std::vector<std::string> now() { return wait(0); }
  LateAnswers::Tell as(std::string name) {
    return
        [this, name = std::move(name)](const Status& status) { add(name + " " + std::string(name_of(status.kind()))); };
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> texts_;
};

using Texts = std::vector<std::string>;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Goal: nobody waits who adds, and answers are told in their order, each once the device has come to it.
TEST(LateAnswers, AreToldInOrderWhenTheDeviceIsThere) {
  FakeDevice device;
  Told told;
  LateAnswers answers(100);
  for (const char* name : {"a", "b", "c"}) answers.add(0, device.work(), told.as(name));
  EXPECT_TRUE(told.now().empty());
  device.end(2);
  EXPECT_EQ(told.wait(2), (Texts{"a kOk", "b kOk"}));
  device.end(1);
  EXPECT_EQ(told.wait(3).back(), "c kOk");
}

TEST(LateAnswers, AFailureOfTheDeviceIsTheAnswer) {
  FakeDevice device;
  Told told;
  LateAnswers answers(100);
  answers.add(0, device.work(), told.as("a"));
  device.break_down();
  EXPECT_EQ(told.wait(1), Texts{"a kDevice"});
}

// Goal: the memory that answers hold is bounded: more waits until some was told; one that is larger than all is taken.
TEST(LateAnswers, RoomIsMadeByTelling) {
  FakeDevice device;
  Told told;
  LateAnswers answers(100);
  answers.make_room(500);
  answers.add(500, device.work(), told.as("large"));
  auto more = std::async(std::launch::async, [&] {
    answers.make_room(60);
    told.add("room");
  });
  EXPECT_TRUE(told.now().empty());
  device.end(1);
  more.wait();
  EXPECT_EQ(told.now(), (Texts{"large kOk", "room"}));
}

TEST(LateAnswers, WhatIsLeftAtTheEndIsCancelled) {
  FakeDevice device;
  Told told;
  {
    LateAnswers answers(100);
    answers.add(0, device.work(), told.as("a"));
    answers.add(0, device.work(), told.as("b"));
  }
  EXPECT_EQ(told.now(), (Texts{"a kCancelled", "b kCancelled"}));
}

// A storage of which pieces are copied, as a device's queue would: at once in order, seen later.
struct Storage {
  std::string content;
  FakeDevice device;
  int fails_at = -1;
  std::vector<uint64_t> sizes;

  Result<StagedPiece> stage(uint64_t offset, uint64_t bytes) {
    if (static_cast<int>(sizes.size()) == fails_at) return Status(StatusKind::kDevice, "no pinned memory");
    sizes.push_back(bytes);
    auto copy = std::make_shared<std::string>(content.substr(offset, bytes));
    return StagedPiece{std::as_bytes(std::span(*copy)), device.work(), copy};
  }
  StagePiece stager() {
    return [this](uint64_t offset, uint64_t bytes) { return stage(offset, bytes); };
  }
};

LateRead read_into(Told& told) {
  return {.sink =
              [&](std::span<const std::byte> bytes) {
                told.add(text_of(bytes));
                return Status();
              },
          .done = told.as("done")};
}

// Goal: a read is what the storage held when it was recorded, whatever is written afterwards.
TEST(LateReads, AreOfTheMomentTheyWereRecordedIn) {
  Told told;
  Storage storage{.content = "abcdefgh"};
  LateAnswers answers(100);
  ASSERT_TRUE(read_in_pieces(answers, 8, 3, storage.stager(), read_into(told)).ok());
  storage.content = "????????";
  EXPECT_TRUE(told.now().empty());
  storage.device.end(3);
  EXPECT_EQ(told.wait(4), (Texts{"abc", "def", "gh", "done kOk"}));
}

// Goal: a large read holds no more memory than the limit; its recorder waits for the pieces before, never for all.
TEST(LateReads, HoldNoMoreThanTheLimit) {
  Told told;
  Storage storage{.content = "abcdefgh"};
  LateAnswers answers(4);
  auto recorded = std::async(std::launch::async, [&] {
    EXPECT_TRUE(read_in_pieces(answers, 8, 2, storage.stager(), read_into(told)).ok());
    told.add("recorded");
  });
  storage.device.end(2);
  told.wait(2);
  storage.device.end(2);
  recorded.wait();
  const Texts all = told.wait(6);
  EXPECT_EQ(storage.sizes, std::vector<uint64_t>(4, 2));
  EXPECT_NE(all.front(), "recorded");
}

TEST(LateReads, EndAtTheFirstFailure) {
  Told told;
  Storage storage{.content = "abcdefgh"};
  LateAnswers answers(100);
  ASSERT_TRUE(read_in_pieces(answers, 8, 2, storage.stager(), read_into(told)).ok());
  storage.device.end(1);
  EXPECT_EQ(told.wait(1), Texts{"ab"});
  storage.device.break_down();
  answers.add(
      0, [] { return true; }, told.as("next"));
  EXPECT_EQ(told.wait(3), (Texts{"ab", "done kDevice", "next kOk"}));
}

// Goal: a read that cannot be staged to its end fails where it is recorded, and is not also told.
TEST(LateReads, AFailedStagingIsTheCallsOwn) {
  Told told;
  Storage storage{.content = "abcdefgh", .fails_at = 2};
  LateAnswers answers(100);
  EXPECT_EQ(read_in_pieces(answers, 8, 2, storage.stager(), read_into(told)).kind(), StatusKind::kDevice);
  storage.device.end(2);
  answers.add(
      0, [] { return true; }, told.as("next"));
  EXPECT_EQ(told.wait(1), Texts{"next kOk"});
}

}  // namespace
}  // namespace waldo::server
