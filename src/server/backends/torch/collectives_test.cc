#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "server/backends/torch/test_support.h"
#include "wire/collectives.h"

// Workers of one group, all in this process, over loopback.

namespace waldo::torch_backend::test {
namespace {

constexpr uint32_t kGroup = 3;
const auto kIgnored = std::signal(SIGPIPE, SIG_IGN);  // as a worker does

wire::TensorMeta floats(int64_t count) { return meta({count}); }

wire::PlanBody allreduce(wire::TensorMeta of, wire::ReduceKind kind = wire::ReduceKind::kSum) {
  return body(
      "waldo::c10d_allreduce_", "",
      {tensors({0}, {std::move(of)}), integer(kGroup), integer(static_cast<int64_t>(kind)), number(1.0), integer(0)});
}

class Ranks : public ::testing::Test {
 protected:
  void make(int size, int64_t timeout_ms = 10'000) {
    std::vector<wire::RankAddresses> said;
    for (int rank = 0; rank < size; ++rank) {
      workers_.push_back(std::make_unique<Worker>());
      auto opened = workers_.back()->command(
          {.kind = wire::CommandKind::kOpenGroup, .generator = kGroup, .ints = {rank, size, timeout_ms}});
      ASSERT_TRUE(opened.ok()) << opened.status().to_string();
      said.push_back(*wire::decode_addresses(opened->bytes));
    }
    for (size_t rank = 0; rank < workers_.size(); ++rank) {
      wire::RankAddresses of_all;
      for (const auto& addresses : said) of_all.push_back(addresses[rank]);
      EXPECT_TRUE(
          worker(rank)
              .command(
                  {.kind = wire::CommandKind::kJoinGroup, .generator = kGroup, .bytes = wire::encode_addresses(of_all)})
              .ok());
    }
  }
  Worker& worker(size_t rank) { return *workers_[rank]; }
  static Status leave(Worker& worker) {
    return worker.command({.kind = wire::CommandKind::kLeaveGroup, .generator = kGroup, .value = 1000}).status();
  }

  std::vector<std::unique_ptr<Worker>> workers_;
};

// Goal: a collective's operator returns at once, and whoever reads its tensor waits for it.
TEST_F(Ranks, AReadWaitsForTheCollective) {
  make(2);
  for (size_t rank = 0; rank < 2; ++rank) {
    worker(rank).put(1, at::full({100}, static_cast<double>(rank + 1)));
    worker(rank).put(2, at::ones({4}));
  }
  EXPECT_OK(worker(0).call(allreduce(floats(100)), {1}));         // rank 1 is not there yet
  EXPECT_TRUE(at::ones({4}).equal(worker(0).get(2, floats(4))));  // and what it does not use is free
  std::thread other([&] {
    EXPECT_OK(worker(1).call(allreduce(floats(100)), {1}));
    EXPECT_TRUE(at::full({100}, 3.0).equal(worker(1).get(1, floats(100))));
  });
  EXPECT_TRUE(at::full({100}, 3.0).equal(worker(0).get(1, floats(100))));
  other.join();
}

// Goal: a storage that was freed while a collective uses it lives until that has ended.
TEST_F(Ranks, FreeWaitsForNothing) {
  make(2);
  worker(0).put(1, at::ones({1000}));
  worker(1).put(1, at::ones({1000}));
  EXPECT_OK(worker(0).call(allreduce(floats(1000)), {1}));
  worker(0).queue().free(Worker::slot(1));
  worker(0).put(1, at::full({8}, 5.0));  // the slot's next life
  EXPECT_OK(worker(1).call(allreduce(floats(1000)), {1}));
  EXPECT_TRUE(at::full({1000}, 2.0).equal(worker(1).get(1, floats(1000))));
  EXPECT_TRUE(at::full({8}, 5.0).equal(worker(0).get(1, floats(8))));
}

// Goal: ranks that disagree both fail, once, and may go on.
TEST_F(Ranks, AMismatchFailsBothAndIsToldOnce) {
  make(2);
  for (size_t rank = 0; rank < 2; ++rank) {
    const auto size = static_cast<int64_t>(4 + rank);
    worker(rank).put(1, at::ones({size}));
    EXPECT_OK(worker(rank).call(allreduce(floats(size)), {1}));
  }
  for (size_t rank = 0; rank < 2; ++rank) {
    const Status told = worker(rank).queue().synchronize();
    EXPECT_NE(told.text().find("Detected mismatch"), std::string::npos) << told.text();
    EXPECT_OK(worker(rank).queue().synchronize());
    worker(rank).put(2, at::ones({2}));
    EXPECT_OK(worker(rank).call(allreduce(floats(2)), {2}));
  }
  for (size_t rank = 0; rank < 2; ++rank) EXPECT_TRUE(at::full({2}, 2.0).equal(worker(rank).get(2, floats(2))));
}

// Goal: when a rank leaves, the others' collective fails, and later ones of that group are refused.
TEST_F(Ranks, ARankThatLeavesFailsTheOthers) {
  make(2, 60'000);
  worker(0).put(1, at::ones({4}));
  EXPECT_OK(worker(0).call(allreduce(floats(4)), {1}));
  EXPECT_OK(leave(worker(1)));
  const Status told = worker(0).status_of_read(1, 0, 4);
  EXPECT_EQ(told.detail().error_class, static_cast<uint16_t>(wire::ErrorClass::kDistBackend)) << told.to_string();
  EXPECT_FALSE(worker(0).call(allreduce(floats(4)), {1}).ok());
  EXPECT_OK(worker(0).status_of_read(1, 0, 4));
}

// Goal: what a hostile client sends is refused before memory is touched.
TEST_F(Ranks, RefusesWhatIsNoGroup) {
  make(1);
  Worker& one = worker(0);
  one.put(1, at::arange(6, at::kFloat));
  const auto refused = [&](const wire::Command& command) { return !one.command(command).ok(); };
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kOpenGroup, .generator = 9, .ints = {0, 0, 5}}));
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kOpenGroup, .generator = 9, .ints = {3, 2, 5}}));
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kOpenGroup, .generator = 9, .ints = {0, 1 << 30, 5}}));
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kOpenGroup, .generator = kGroup, .ints = {0, 1, 5}}));
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kJoinGroup, .generator = 9}));
  EXPECT_TRUE(refused({.kind = wire::CommandKind::kJoinGroup, .generator = kGroup, .bytes = {std::byte{7}}}));
  const auto call = [&](std::vector<wire::Argument> rest, const char* op) {
    std::vector<wire::Argument> arguments = {tensors({0}, {floats(6)})};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    return one.call(body(op, "", std::move(arguments)), {1});
  };
  EXPECT_FALSE(call({integer(77), integer(0), number(1), integer(0)}, "waldo::c10d_allreduce_").ok());
  EXPECT_FALSE(call({integer(kGroup), integer(99), number(1), integer(0)}, "waldo::c10d_allreduce_").ok());
  EXPECT_FALSE(call({integer(kGroup), integer(5), integer(0)}, "waldo::c10d_broadcast_").ok());
  // Overlapping: its memory would be written past its end.
  wire::TensorMeta overlapping = meta({4, 4});
  overlapping.strides = {0, 1};
  EXPECT_FALSE(one.call(allreduce(overlapping), {1}).ok());
  EXPECT_OK(call({integer(kGroup), integer(0), number(1), integer(0)}, "waldo::c10d_allreduce_"));
  EXPECT_TRUE(at::arange(6, at::kFloat).equal(one.get(1, floats(6))));
}

}  // namespace
}  // namespace waldo::torch_backend::test
