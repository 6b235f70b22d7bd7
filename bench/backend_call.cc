// What the worker's own code adds to a small operator: decode, bind, verify, keep. Each line of the backend stands
// beside the same operator called boxed, with the tensors at hand.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>

#include <thread>

#include "server/backends/torch/test_support.h"

namespace waldo::torch_backend::test {
namespace {

using wire::ScalarTag;

c10::OperatorHandle op(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
}

// The loop of a benchmark over calls of one plan.
void run(benchmark::State& state, Worker& worker, const wire::PlanBody& body, std::vector<Slot> slots, uint16_t reads,
         const Buffer& values) {
  const auto plan = worker.define(body, reads, slots.size() - reads);
  if (!plan.ok()) return state.SkipWithError(plan.status().to_string().c_str());
  bool conformed = false;
  for (auto _ : state) {
    const Status status = worker.queue().call(plan.value(), slots, values, &conformed, nullptr);
    if (!status.ok()) return state.SkipWithError(status.to_string().c_str());
  }
}

void BackendAdd(benchmark::State& state) {
  Worker worker;
  worker.put(0, at::randn({8, 64}));
  worker.put(1, at::randn({8, 64}));
  const auto m = meta({8, 64});
  run(state, worker,
      body("aten::add", "Tensor", {tensor(0, m), tensor(1, m), scalar_later(ScalarTag::kInt)}, {fresh(2, m)}),
      {Worker::slot(0), Worker::slot(1), Worker::slot(2)}, 2, scalars(int64_t{1}));
}
BENCHMARK(BackendAdd);

void BoxedAdd(benchmark::State& state) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto add = op("aten::add", "Tensor");
  const at::Tensor a = at::randn({8, 64}), b = at::randn({8, 64});
  torch::jit::Stack stack;
  for (auto _ : state) {
    stack.clear();
    stack.emplace_back(a);
    stack.emplace_back(b);
    stack.emplace_back(int64_t{1});
    add.callBoxed(stack);
  }
}
BENCHMARK(BoxedAdd);

void BackendAddInPlace(benchmark::State& state) {
  Worker worker;
  worker.put(0, at::randn({8, 64}));
  worker.put(1, at::randn({8, 64}));
  const auto m = meta({8, 64});
  run(state, worker,
      body("aten::add_", "Tensor", {tensor(0, m), tensor(1, m), scalar_later(ScalarTag::kInt)}, {argument(0)}),
      {Worker::slot(0), Worker::slot(1)}, 2, scalars(int64_t{1}));
}
BENCHMARK(BackendAddInPlace);

void BoxedAddInPlace(benchmark::State& state) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto add = op("aten::add_", "Tensor");
  const at::Tensor a = at::randn({8, 64}), b = at::randn({8, 64});
  torch::jit::Stack stack;
  for (auto _ : state) {
    stack.clear();
    stack.emplace_back(a);
    stack.emplace_back(b);
    stack.emplace_back(int64_t{1});
    add.callBoxed(stack);
  }
}
BENCHMARK(BoxedAddInPlace);

// A view whose place changes from call to call is built anew each time.
void BackendMovingView(benchmark::State& state) {
  Worker worker;
  worker.put(0, at::randn({64, 64}));
  auto row = meta({64});
  row.dynamic_offset = true;
  const auto plan = worker.define(body("aten::zero_", "", {tensor(0, row)}, {argument(0)}), 1, 0);
  const std::vector<Slot> slots = {Worker::slot(0)};
  std::vector<Buffer> values;
  for (int64_t i = 0; i < 64; ++i) values.push_back(scalars(i * 64));
  bool conformed = false;
  size_t i = 0;
  for (auto _ : state) {
    if (!worker.queue().call(plan.value(), slots, values[i++ % 64], &conformed, nullptr).ok())
      return state.SkipWithError("failed");
  }
}
BENCHMARK(BackendMovingView);

void BackendForeachAdd100(benchmark::State& state) {
  Worker worker;
  std::vector<uint16_t> indices;
  std::vector<wire::TensorMeta> metas;
  std::vector<Slot> slots;
  for (uint32_t i = 0; i < 100; ++i) {
    worker.put(i, at::randn({16}));
    indices.push_back(static_cast<uint16_t>(i));
    metas.push_back(meta({16}));
    slots.push_back(Worker::slot(i));
  }
  run(state, worker, body("aten::_foreach_add_", "Scalar", {tensors(indices, metas), scalar_later(ScalarTag::kFloat)}),
      slots, 100, scalars(0.5));
}
BENCHMARK(BackendForeachAdd100);

void BoxedForeachAdd100(benchmark::State& state) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto add = op("aten::_foreach_add_", "Scalar");
  c10::List<at::Tensor> list;
  for (int i = 0; i < 100; ++i) list.push_back(at::randn({16}));
  torch::jit::Stack stack;
  for (auto _ : state) {
    stack.clear();
    stack.emplace_back(list);
    stack.emplace_back(at::Scalar(0.5));
    add.callBoxed(stack);
  }
}
BENCHMARK(BoxedForeachAdd100);

}  // namespace
}  // namespace waldo::torch_backend::test

BENCHMARK_MAIN();
