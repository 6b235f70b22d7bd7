// Graphs: many calls by one.
#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "server/backends/torch/test_support.h"
#include "wire/graph_body.h"
#include "wire/limits.h"

namespace waldo::torch_backend::test {
namespace {

using wire::GraphStep;

constexpr PlanId kGraph{100};

struct Graphs : testing::Test {
  const wire::TensorMeta two = meta({2});
  const at::Tensor a = at::randn({2}), b = at::randn({2});
  Worker worker;
  PlanId add{}, double_it{};  // r, r -> new (with a scalar); in place

  void SetUp() override {
    worker.put(0, a);
    worker.put(1, b);
    add = worker
              .define(body("aten::add", "Tensor", {tensor(0, two), tensor(1, two), scalar_later(wire::ScalarTag::kInt)},
                           {fresh(2, two)}),
                      2, 1)
              .value();
    double_it = worker.define(body("aten::mul_", "Scalar", {tensor(0, two), scalar(2)}, {argument(0)}), 1, 0).value();
  }
  static std::vector<std::byte> one(int64_t value) {
    const Buffer bytes = scalars(value);
    return {bytes.begin(), bytes.end()};
  }
  Status define(const wire::GraphBody& graph, uint16_t reads, uint16_t creates) {
    return worker.queue().define(kGraph, reads, creates, wire::encode(graph));
  }
  // t = a + b; t *= 2; out = t + 3 * b
  wire::GraphBody sample() const {
    return {.value_count = 4,
            .steps = {{.plan = add, .values = {0, 1, 3}, .scalars = one(1)},
                      {.plan = double_it, .values = {3}},
                      {.plan = add, .values = {3, 1, 2}, .scalars = one(3)}}};
  }
};

TEST_F(Graphs, OneCallRunsTheSteps) {
  EXPECT_OK(define(sample(), 2, 1));
  const at::Tensor expected = at::add(at::mul(at::add(a, b), 2), b, 3);
  for (const uint32_t out : {5u, 6u, 5u}) {
    EXPECT_OK(worker.again(kGraph, {0, 1}, {out}));
    EXPECT_TRUE(same_bits(worker.get(out, two), expected));
    worker.queue().free(Worker::slot(out));
  }
  EXPECT_TRUE(same_bits(worker.get(0, two), a));
}

TEST_F(Graphs, OwnValuesAreGoneAfterTheirLastStepAndNoClientCanNameThem) {
  EXPECT_OK(define(sample(), 2, 1));
  EXPECT_OK(worker.again(kGraph, {0, 1}, {5}));
  EXPECT_FALSE(worker.status_of_read(limits::slot_count_max, 0, 8).ok());
  const auto used = [&] { return worker.command({.kind = wire::CommandKind::kMemoryInfo}).value().ints.at(2); };
  EXPECT_EQ(used(), 3 * 8);
}

TEST_F(Graphs, UninitialisedStorageIsAStep) {
  const PlanId fill =
      worker.define(body("aten::fill_", "Scalar", {tensor(0, two), scalar(7)}, {argument(0)}), 1, 0).value();
  EXPECT_OK(define({.value_count = 1,
                    .steps = {{.kind = GraphStep::Kind::kCreate, .bytes = 0, .values = {0}},
                              {.kind = GraphStep::Kind::kResize, .bytes = 8, .values = {0}},
                              {.plan = fill, .values = {0}}}},
                   0, 1));
  EXPECT_OK(worker.again(kGraph, {}, {5}));
  EXPECT_TRUE(same_bits(worker.get(5, two), at::mul(at::add(at::mul(a, 0), 7), 1)));
}

TEST_F(Graphs, AFailedStepNamesItsOperatorAndLeavesNothingBehind) {
  const PlanId broken =
      worker.define(body("aten::reshape", "", {tensor(0, two), integers({3})}, {fresh(1, meta({3}))}), 1, 1).value();
  wire::GraphBody graph = sample();
  graph.steps[2] = {.plan = broken, .values = {3, 2}};
  EXPECT_OK(define(graph, 2, 1));
  const Status failed = worker.again(kGraph, {0, 1}, {5});
  EXPECT_EQ(failed.detail().op, "aten::reshape");
  EXPECT_FALSE(worker.status_of_read(limits::slot_count_max, 0, 0).ok());
  EXPECT_FALSE(worker.status_of_read(5, 0, 0).ok());
}

TEST_F(Graphs, FromALiar) {
  wire::GraphBody graph = sample();
  graph.steps[0].plan = PlanId{99};
  EXPECT_EQ(define(graph, 2, 1).text(), "step 0 of a graph calls plan 99");
  graph = sample();
  graph.steps[1].values.push_back(0);
  EXPECT_EQ(define(graph, 2, 1).text(), "step 1 of a graph names 2 values, its plan has 1");
  graph = sample();
  EXPECT_EQ(define(graph, 4, 1).text(), "a graph with fewer values than its call has slots");

  graph.steps[0].scalars.clear();
  EXPECT_OK(define(graph, 2, 1));
  EXPECT_EQ(worker.again(kGraph, {0, 1}, {5}).kind(), StatusKind::kInvalid);
  EXPECT_FALSE(worker.again(kGraph, {0}, {5}).ok());
  EXPECT_FALSE(worker.again(kGraph, {0, 1}, {5}, scalars(int64_t{1})).ok());

  // A value that is used before it is made.
  graph = sample();
  std::swap(graph.steps[0], graph.steps[1]);
  EXPECT_OK(define(graph, 2, 1));
  EXPECT_FALSE(worker.again(kGraph, {0, 1}, {5}).ok());

  // A graph of graphs, now and by defining a step's plan anew.
  EXPECT_OK(define(sample(), 2, 1));
  const Buffer nested =
      wire::encode(wire::GraphBody{.value_count = 3, .steps = {{.plan = kGraph, .values = {0, 1, 2}}}});
  EXPECT_EQ(worker.queue().define(PlanId{101}, 2, 1, nested).kind(), StatusKind::kInvalid);
  EXPECT_OK(worker.queue().define(double_it, 1, 0, wire::encode(wire::GraphBody{.value_count = 1, .steps = {}})));
  EXPECT_FALSE(worker.again(kGraph, {0, 1}, {5}).ok());
}

TEST_F(Graphs, WithoutSteps) {
  EXPECT_OK(define({}, 0, 0));
  EXPECT_OK(worker.again(kGraph, {}));
}

}  // namespace
}  // namespace waldo::torch_backend::test
