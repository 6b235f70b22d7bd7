#include "frontends/torch/plan_guess.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <thread>
#include <vector>

namespace waldo::torch_frontend {
namespace {

struct FakePlan {
  std::array<char, 224> as_large_as_a_plan;
};
// Never looked into, so any addresses will do; always the same ones, because places depend on them.
FakePlan* plan(size_t number) { return reinterpret_cast<FakePlan*>(0x7f0000001000) + number; }

struct Call {
  uint64_t op;
  FakePlan* plan;
};
// As forward.cc does it. True when the guess was right.
bool run(PlanGuesses<FakePlan>& guesses, Call call) {
  auto& place = guesses.place(call.op);
  const bool right = place.load() == call.plan;
  if (!right) place.store(call.plan);
  PlanHistory::add(call.plan);
  return right;
}
size_t misses(PlanGuesses<FakePlan>& guesses, const std::vector<Call>& calls) {
  size_t count = 0;
  for (const Call& call : calls) count += !run(guesses, call);
  return count;
}

// Goal: a loop is known from its second turn on, whatever surrounds its first call, and also where one operator comes
// with several shapes in a row (a loop over parameters).
TEST(PlanGuess, ALoopIsKnownFromItsThirdTurnOn) {
  auto guesses = std::make_unique<PlanGuesses<FakePlan>>();
  PlanHistory::clear_for_test();
  std::vector<Call> step;
  for (size_t layer = 0; layer < 4; ++layer) {
    for (uint64_t op = 0; op < 5; ++op) step.push_back({op, plan(op)});
  }
  for (const size_t shape : {7, 8, 7, 9, 9, 7, 8, 8}) step.push_back({6, plan(shape)});
  EXPECT_GT(misses(*guesses, step), 0u);
  misses(*guesses, step);
  EXPECT_EQ(misses(*guesses, step), 0u);
  EXPECT_EQ(misses(*guesses, step), 0u);
}

// Goal: something that happens now and then costs a few wrong guesses, not the loop.
TEST(PlanGuess, ADetourIsForgottenSoon) {
  auto guesses = std::make_unique<PlanGuesses<FakePlan>>();
  PlanHistory::clear_for_test();
  std::vector<Call> step;
  for (uint64_t i = 0; i < 40; ++i) step.push_back({i % 7, plan(i)});
  for (int turn = 0; turn < 3; ++turn) misses(*guesses, step);
  EXPECT_EQ(misses(*guesses, {{50, plan(100)}, {51, plan(101)}}), 2u);
  EXPECT_LE(misses(*guesses, step), 5u);
  EXPECT_EQ(misses(*guesses, step), 0u);
}

// Goal: a history is its thread's own.
TEST(PlanGuess, ThreadsDoNotDisturbEachOther) {
  auto guesses = std::make_unique<PlanGuesses<FakePlan>>();
  const auto thread = [&](size_t first_plan) {
    return std::thread([&guesses, first_plan] {
      std::vector<Call> step;
      for (uint64_t i = 0; i < 20; ++i) step.push_back({i % 3, plan(first_plan + i)});
      for (int turn = 0; turn < 200; ++turn) misses(*guesses, step);
      EXPECT_LE(misses(*guesses, step), 2u);  // one place of both, at most
    });
  };
  std::thread one = thread(0), two = thread(1000);
  one.join();
  two.join();
}

}  // namespace
}  // namespace waldo::torch_frontend
