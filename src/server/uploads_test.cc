#include "server/uploads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

// Sanitizers end the process where the system's allocator says no; this is about hearing the no.
#define WALDO_TEST_VISIBLE __attribute__((visibility("default"), used))
extern "C" WALDO_TEST_VISIBLE const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" WALDO_TEST_VISIBLE const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

namespace waldo::server {
namespace {

Credit cost(uint64_t window_bytes) { return Credit{.window_bytes = window_bytes, .shared = {}}; }

class UploadsTest : public ::testing::Test {
 protected:
  std::vector<std::byte> pattern(size_t size) {
    std::vector<std::byte> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7);
    return bytes;
  }
  Status add(uint64_t id, uint64_t total, uint64_t offset, size_t size) {
    const auto whole = pattern(total);
    return uploads_.add(UploadId{id}, total, offset, std::span(whole).subspan(offset, size), cost(size));
  }

  std::atomic<uint64_t> granted_{0};
  Uploads uploads_{[this](const Credit& credit) { granted_ += credit.window_bytes; }, 1000};
};

// Goal: chunks become one aligned run of bytes, and their credit comes back at once.
TEST_F(UploadsTest, ChunksBecomeOneRun) {
  ASSERT_TRUE(add(1, 500, 0, 200).ok());
  ASSERT_TRUE(add(1, 500, 200, 300).ok());
  EXPECT_EQ(granted_, 500u);
  auto taken = uploads_.take(UploadId{1}, 500);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->size, 500u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(taken->data.get()) % 64, 0u);
  EXPECT_EQ(std::memcmp(taken->data.get(), pattern(500).data(), 500), 0);
  EXPECT_EQ(uploads_.staged_bytes_for_test(), 0u);
}

// Goal: past the staging limit credit is kept back, and comes back when an upload is taken.
TEST_F(UploadsTest, CreditIsHeldPastTheLimit) {
  ASSERT_TRUE(add(1, 700, 0, 700).ok());
  ASSERT_TRUE(add(2, 700, 0, 700).ok());
  EXPECT_EQ(granted_, 700u);
  EXPECT_EQ(uploads_.held_window_bytes_for_test(), 700u);
  ASSERT_TRUE(uploads_.take(UploadId{1}, 700).ok());
  EXPECT_EQ(granted_, 1400u);
}

// Goal: an upload far larger than the staging limit arrives when a call waits for it (no deadlock with ourselves).
TEST_F(UploadsTest, ABlockedTakeReleasesCredit) {
  const uint64_t total = 5000;
  ASSERT_TRUE(add(1, total, 0, 2000).ok());
  EXPECT_EQ(granted_, 0u);
  std::thread executor([&] {
    auto taken = uploads_.take(UploadId{1}, total);
    ASSERT_TRUE(taken.ok());
    EXPECT_EQ(std::memcmp(taken->data.get(), pattern(total).data(), total), 0);
  });
  for (uint64_t sent = 2000; sent < total; sent += 1000) {
    while (granted_ < sent) std::this_thread::yield();  // a peer with a window of nothing more
    ASSERT_TRUE(add(1, total, sent, 1000).ok());
  }
  executor.join();
  EXPECT_EQ(granted_, total);
}

// Goal: what belongs to a dropped record takes no memory, whether it arrived before, after or around the drop.
TEST_F(UploadsTest, SkippedUploadsVanish) {
  ASSERT_TRUE(add(1, 900, 0, 900).ok());
  ASSERT_TRUE(add(2, 900, 0, 300).ok());
  ASSERT_TRUE(uploads_.skip(UploadId{1}, 900).ok());
  ASSERT_TRUE(uploads_.skip(UploadId{2}, 900).ok());
  ASSERT_TRUE(uploads_.skip(UploadId{3}, 900).ok());
  EXPECT_EQ(uploads_.staged_bytes_for_test(), 0u);
  ASSERT_TRUE(add(2, 900, 300, 600).ok());
  ASSERT_TRUE(add(3, 900, 0, 900).ok());
  EXPECT_EQ(uploads_.staged_bytes_for_test(), 0u);
  EXPECT_EQ(granted_, 2700u);
}

TEST_F(UploadsTest, RulesAreChecked) {
  EXPECT_EQ(add(1, 0, 0, 0).kind(), StatusKind::kInvalid);
  EXPECT_EQ(uploads_.add(UploadId{1}, limits::storage_bytes_max + 1, 0, pattern(1), cost(1)).kind(),
            StatusKind::kInvalid);
  ASSERT_TRUE(add(2, 100, 0, 50).ok());
  EXPECT_EQ(add(2, 101, 50, 50).kind(), StatusKind::kInvalid);                                        // another total
  EXPECT_EQ(add(2, 100, 60, 40).kind(), StatusKind::kInvalid);                                        // a gap
  EXPECT_EQ(uploads_.add(UploadId{2}, 100, 50, pattern(51), cost(51)).kind(), StatusKind::kInvalid);  // too many
  ASSERT_TRUE(add(3, 100, 0, 100).ok());
  EXPECT_EQ(uploads_.take(UploadId{3}, 99).status().kind(), StatusKind::kInvalid);
  ASSERT_TRUE(uploads_.skip(UploadId{4}, 5).ok());
  EXPECT_EQ(uploads_.skip(UploadId{4}, 5).kind(), StatusKind::kInvalid);
}

// Goal: a peer that announces the largest size and sends one byte costs a page or a failed call, never the process.
TEST_F(UploadsTest, AnnouncingTerabytesTakesNoMemory) {
  for (uint64_t id = 1; id <= 50; ++id) {
    ASSERT_TRUE(uploads_.add(UploadId{id}, limits::storage_bytes_max, 0, pattern(1), cost(1)).ok());
  }
}

TEST_F(UploadsTest, StopReleasesWaiters) {
  std::thread executor([&] { EXPECT_EQ(uploads_.take(UploadId{1}, 5).status().kind(), StatusKind::kCancelled); });
  uploads_.stop();
  executor.join();
}

}  // namespace
}  // namespace waldo::server
