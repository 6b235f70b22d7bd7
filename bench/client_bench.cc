// What recording costs, without torch: `client_bench`, or under `valgrind --tool=callgrind` with --instructions=COUNT,
// which records that many calls and nothing else.
//
// The session's channel has no link, so nothing is sent; what is recorded is thrown away whenever a real loop would
// have collected it. "call, plan hit" is one operation as a front end records it: two inputs, one new output, an input
// that died, one scalar.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>

#include "client/plan_table.h"
#include "client/recorder.h"

namespace waldo::client {
namespace {

class Operation {
 public:
  Operation() : recorder_(QueueId{0}) {
    recorder_.plans.push_back({2, 1});
    for (Slot& slot : named_) slot = recorder_.slots.take();
  }
  // c = a + b; a = c; the old a dies.
  void run() {
    Recorder::Urge urge;
    const bool recorded = recorder_.try_call_making(PlanId{0}, named_, scalars_, &urge, nobody_);
    if (!recorded) std::abort();
    recorder_.slots.drop(named_[0]);
    named_[0] = named_[2];
    if (urge == Recorder::Urge::kNow) [[unlikely]]
      throw_away();
  }
  void throw_away() {
    frames_.clear();
    recorder_.take_frames(frames_, UINT64_MAX);
  }

 private:
  Recorder recorder_;
  NoOwners nobody_;
  Slot named_[3];
  std::byte scalars_[8] = {};
  std::vector<Buffer> frames_;
};

void call_plan_hit(benchmark::State& state) {
  Operation operation;
  for (auto _ : state) operation.run();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(call_plan_hit)->Name("call, plan hit");

void in_place(benchmark::State& state) {
  Recorder recorder(QueueId{0});
  recorder.plans.push_back({2, 0});
  const Slot named[2] = {recorder.slots.take(), recorder.slots.take()};
  const std::byte scalars[8] = {};
  std::vector<Buffer> frames;
  for (auto _ : state) {
    Recorder::Urge urge;
    if (!recorder.try_call(PlanId{0}, named, scalars, &urge)) std::abort();
    if (urge == Recorder::Urge::kNow) [[unlikely]] {
      frames.clear();
      recorder.take_frames(frames, UINT64_MAX);
    }
  }
}
BENCHMARK(in_place)->Name("call in place, plan hit");

void take_and_drop(benchmark::State& state) {
  SlotTable slots(QueueId{0});
  for (auto _ : state) {
    slots.drop(slots.take());
    slots.give_back(slots.take_dropped(), [](Slot, void*) {});
  }
}
BENCHMARK(take_and_drop)->Name("take, drop and drain a slot");

void find_plan(benchmark::State& state) {
  PlanTable<const char*> table;
  constexpr uint64_t kPlans = 500;  // of a transformer's training step
  for (uint64_t i = 1; i <= kPlans; ++i) table.insert({i * 0x9e3779b97f4a7c15ull, i}, "plan");
  uint64_t i = 0;
  for (auto _ : state) {
    i = i % kPlans + 1;
    benchmark::DoNotOptimize(table.find({i * 0x9e3779b97f4a7c15ull, i}));
  }
}
BENCHMARK(find_plan)->Name("find a plan");

}  // namespace
}  // namespace waldo::client

int main(int argc, char** argv) {
  constexpr char kInstructions[] = "--instructions=";
  if (argc == 2 && std::strncmp(argv[1], kInstructions, sizeof kInstructions - 1) == 0) {
    waldo::client::Operation operation;
    for (long i = std::atol(argv[1] + sizeof kInstructions - 1); i > 0; --i) operation.run();
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
