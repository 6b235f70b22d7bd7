#include "channel/shared_chunks.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

namespace waldo::channel {
namespace {

const auto kNever = [] { return false; };
const auto kAtOnce = [] { return true; };

class SharedChunksTest : public ::testing::Test {
 protected:
  std::unique_ptr<SharedChunks> client_ = SharedChunks::make().value();
  std::unique_ptr<SharedChunks> worker_ = SharedChunks::take_up(client_->offer()).value();
};

// Goal: what one end puts the other finds, both ways at once, without one way disturbing the other.
TEST_F(SharedChunksTest, CarriesContentBothWays) {
  const Buffer up(limits::chunk_bytes, std::byte{1}), down(100, std::byte{2});
  const auto sent_up = client_->put(up, kNever), sent_down = worker_->put(down, kNever);
  ASSERT_TRUE(sent_up && sent_down);
  EXPECT_EQ(to_buffer(worker_->find(*sent_up).value()), up);
  EXPECT_EQ(to_buffer(client_->find(*sent_down).value()), down);
  worker_->give_back(*sent_up);
  EXPECT_EQ(client_->bytes_put(), up.size());
  EXPECT_EQ(worker_->bytes_got(), up.size());
  EXPECT_EQ(worker_->bytes_put(), down.size());
}

// Goal: the memory is bounded: when all chunks are the receiver's the sender waits, and goes on when one comes back.
TEST_F(SharedChunksTest, WaitsForAChunk) {
  const Buffer content(10, std::byte{3});
  std::vector<wire::SharedPiece> sent;
  for (uint32_t i = 0; i < limits::shared_chunk_count; ++i) sent.push_back(client_->put(content, kNever).value());
  EXPECT_FALSE(client_->put(content, kAtOnce));

  std::promise<void> waits;
  bool asked = false;
  auto next = std::async(std::launch::async, [&] {
    return client_->put(content, [&] {
      if (!std::exchange(asked, true)) waits.set_value();
      return false;
    });
  });
  waits.get_future().get();
  worker_->give_back(sent[7]);
  EXPECT_EQ(next.get()->chunk, sent[7].chunk);
}

// Goal: no wake-up is lost, whoever is faster.
TEST_F(SharedChunksTest, PassesMoreThanItHolds) {
  constexpr int kPieces = 20'000;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<wire::SharedPiece> on_the_way;
  std::thread sender([&] {
    for (int i = 0; i < kPieces; ++i) {
      const auto piece = client_->put(std::as_bytes(std::span(&i, 1)), kNever);
      const std::lock_guard lock(mutex);
      on_the_way.push_back(*piece);
      changed.notify_one();
    }
  });
  for (int i = 0; i < kPieces; ++i) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !on_the_way.empty(); });
    const wire::SharedPiece piece = on_the_way.front();
    on_the_way.pop_front();
    lock.unlock();
    int value = -1;
    std::memcpy(&value, worker_->find(piece)->data(), sizeof(value));
    ASSERT_EQ(value, i);
    worker_->give_back(piece);
  }
  sender.join();
}

TEST_F(SharedChunksTest, WhatWasNotSentIsTakenBack) {
  const auto piece = client_->put(Buffer(5), kNever);
  client_->take_back(*piece);
  EXPECT_EQ(client_->bytes_put(), 0u);
  EXPECT_EQ(client_->put(Buffer(5), kNever)->chunk, piece->chunk);
}

// Goal: a liar that names one chunk again and again is found out, so the chunks bound what we hold.
TEST_F(SharedChunksTest, AChunkIsNamedOnce) {
  const auto piece = client_->put(Buffer(5), kNever);
  EXPECT_TRUE(worker_->find(*piece).ok());
  EXPECT_EQ(worker_->find(*piece).status().kind(), StatusKind::kInvalid);
  worker_->give_back(*piece);
  EXPECT_TRUE(worker_->find(*piece).ok());
}

// Goal: a worker takes up nothing but memory of this kind, and nothing once the client has closed the door.
TEST_F(SharedChunksTest, RefusesWhatIsNotOffered) {
  auto offer = client_->offer();
  offer.bytes += 1;
  EXPECT_EQ(SharedChunks::take_up(offer).status().kind(), StatusKind::kInvalid);
  offer = client_->offer();
  offer.fd = 0;
  EXPECT_FALSE(SharedChunks::take_up(offer).ok());
  offer = client_->offer();
  client_->taken_up();
  EXPECT_FALSE(SharedChunks::take_up(offer).ok());
  EXPECT_FALSE(SharedChunks::take_up({}).ok());
}

}  // namespace
}  // namespace waldo::channel
