#include "server/backends/tensorflow/queue.h"

#include <gtest/gtest.h>

#include <cstring>

#include "server/backends/tensorflow/backend.h"

namespace waldo::tensorflow_backend {
namespace {

using namespace wire::tf;

constexpr uint32_t kFloat = 1;
// AttrValue{type: DT_FLOAT}: field 6, varint 1.
const std::string kTypeFloat("\x30\x01", 2);

class TfQueueTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto made = make_backend(R"({"gpus": 2})");
    ASSERT_TRUE(made.ok()) << made.status().text();
    backend_ = std::move(*made).release();  // for all tests: starting TensorFlow takes its time
  }
  void SetUp() override {
    queue_ = backend_->open_queue(QueueId{0}).value();
    ASSERT_TRUE(define(0, make_plan()).ok());
  }

  static PlanBody make_plan() {
    PlanBody body;
    body.kind = PlanKind::kMake;
    body.inputs = {InputKind::kInline};
    body.outputs = 1;
    return body;
  }
  static PlanBody op(const std::string& name, std::vector<InputKind> inputs) {
    PlanBody body;
    body.name = name;
    body.inputs = std::move(inputs);
    body.outputs = 1;
    body.attributes = {{"T", kTypeFloat}};
    return body;
  }

  Status define(uint32_t plan, const PlanBody& body) {
    uint16_t reads = 0;
    for (auto kind : body.inputs) reads = static_cast<uint16_t>(reads + (kind == InputKind::kSlot ? 1 : 0));
    return queue_->define(PlanId{plan}, reads, body.outputs, encode(body));
  }
  static Slot slot(uint32_t index) { return Slot::make(QueueId{0}, index); }

  Status make(Slot into, const std::vector<float>& values, std::vector<int64_t> dims) {
    CallBody call;
    call.inputs.resize(1);
    call.inputs[0] = {Input::Form::kInline, {kFloat, std::move(dims)}, 0, std::as_bytes(std::span(values)), {}};
    return run(0, {into}, call);
  }
  Status run(uint32_t plan, std::vector<Slot> slots, const CallBody& call = {}, Buffer* report = nullptr) {
    Buffer scalars;
    if (!call.inputs.empty() || call.outputs_expected != 0) encode(call, scalars);
    bool conformed = false;
    return queue_->call(PlanId{plan}, slots, scalars, &conformed, report);
  }
  std::vector<float> values(Slot from, size_t count) {
    std::vector<float> result(count);
    auto read = queue_->read(from, 0, count * 4, [&](std::span<const std::byte> chunk) {
      std::memcpy(result.data(), chunk.data(), chunk.size());
      return Status();
    });
    EXPECT_TRUE(read.ok()) << read.text();
    return result;
  }

  static inline server::Backend* backend_ = nullptr;
  std::unique_ptr<server::QueueBackend> queue_;
};

TEST_F(TfQueueTest, AnOperatorRunsOnSlots) {
  ASSERT_TRUE(make(slot(1), {1, 2, 3, 4}, {2, 2}).ok());
  ASSERT_TRUE(define(1, op("MatMul", {InputKind::kSlot, InputKind::kSlot})).ok());
  const Status ran = run(1, {slot(1), slot(1), slot(2)});
  ASSERT_TRUE(ran.ok()) << ran.text();
  EXPECT_EQ(values(slot(2), 4), (std::vector<float>{7, 10, 15, 22}));
}

TEST_F(TfQueueTest, AnAskedCallSaysItsShapes) {
  ASSERT_TRUE(make(slot(1), {1, 2}, {2}).ok());
  ASSERT_TRUE(define(1, op("Square", {InputKind::kSlot})).ok());
  Buffer report;
  ASSERT_TRUE(run(1, {slot(1), slot(2)}, {}, &report).ok());
  const auto said = decode_report(report);
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(said->outputs, (std::vector<TensorMeta>{{kFloat, {2}}}));
}

TEST_F(TfQueueTest, AnUploadBecomesATensorWhenItsShapeIsSaid) {
  PlanBody shape;
  shape.kind = PlanKind::kShape;
  shape.inputs = {InputKind::kSlot};
  ASSERT_TRUE(define(1, shape).ok());
  server::UploadedBytes bytes;
  bytes.data = {new (std::align_val_t(64)) std::byte[12],
                [](std::byte* data) { ::operator delete[](data, std::align_val_t(64)); }};
  bytes.size = 12;
  const float content[3] = {5, 6, 7};
  std::memcpy(bytes.data.get(), content, 12);
  ASSERT_TRUE(queue_->write(slot(1), 0, std::move(bytes)).ok());
  CallBody call;
  call.inputs.resize(1);
  call.inputs[0] = {Input::Form::kView, {kFloat, {3}}, 0, {}, {}};
  const Status said = run(1, {slot(1)}, call);
  ASSERT_TRUE(said.ok()) << said.text();
  EXPECT_EQ(values(slot(1), 3), (std::vector<float>{5, 6, 7}));
  EXPECT_FALSE(run(1, {slot(1)}, call).ok()) << "there is no upload any more";
}

TEST_F(TfQueueTest, AViewIsAPartOfItsValueWithAShapeOfItsOwn) {
  ASSERT_TRUE(make(slot(1), {1, 2, 3, 4}, {2, 2}).ok());
  ASSERT_TRUE(define(1, op("Square", {InputKind::kSlot})).ok());
  CallBody call;
  call.inputs.resize(1);
  call.inputs[0] = {Input::Form::kView, {kFloat, {2}}, 8, {}, {}};
  ASSERT_TRUE(run(1, {slot(1), slot(2)}, call).ok());
  EXPECT_EQ(values(slot(2), 2), (std::vector<float>{9, 16}));
  call.inputs[0].meta.dims = {3};
  EXPECT_FALSE(run(1, {slot(1), slot(3)}, call).ok()) << "past the end";
}

TEST_F(TfQueueTest, WhatFailsSaysTensorFlowsCodeAndOperator) {
  ASSERT_TRUE(make(slot(1), {1, 2, 3}, {3}).ok());
  ASSERT_TRUE(define(1, op("MatMul", {InputKind::kSlot, InputKind::kSlot})).ok());
  const Status failed = run(1, {slot(1), slot(1), slot(2)});
  EXPECT_EQ(failed.kind(), StatusKind::kDevice);
  EXPECT_EQ(failed.detail().error_class, TF_INVALID_ARGUMENT);
  EXPECT_EQ(failed.detail().op, "MatMul");
  EXPECT_FALSE(queue_->read(slot(2), 0, 4, [](auto) { return Status(); }).ok());
}

TEST_F(TfQueueTest, HostileBodiesAreRefused) {
  EXPECT_EQ(queue_->define(PlanId{5}, 0, 0, {}).kind(), StatusKind::kInvalid);
  PlanBody body = op("Square", {InputKind::kSlot});
  EXPECT_EQ(queue_->define(PlanId{5}, 2, 1, encode(body)).kind(), StatusKind::kInvalid);
  EXPECT_FALSE(make(slot(1), {1, 2}, {3}).ok()) << "fewer bytes than the shape says";
  EXPECT_FALSE(make(slot(1), {}, {1ll << 40, 1ll << 40}).ok());
  ASSERT_TRUE(make(slot(1), {1, 2}, {2}).ok());
  EXPECT_FALSE(queue_->read(slot(1), 0, 400, [](auto) { return Status(); }).ok());
  EXPECT_FALSE(queue_->read(slot(1), ~0ull, 4, [](auto) { return Status(); }).ok());
}

TEST_F(TfQueueTest, SlotsOfAnotherQueueCanBeNamed) {
  auto second = backend_->open_queue(QueueId{1}).value();
  ASSERT_TRUE(make(slot(1), {4}, {1}).ok());
  PlanBody alias;
  alias.kind = PlanKind::kAlias;
  alias.inputs = {InputKind::kSlot};
  alias.outputs = 1;
  ASSERT_TRUE(second->define(PlanId{0}, 1, 1, encode(alias)).ok());
  const Slot there = Slot::make(QueueId{1}, 1);
  bool conformed;
  const Slot slots[2] = {slot(1), there};
  ASSERT_TRUE(second->call(PlanId{0}, slots, {}, &conformed, nullptr).ok());
  queue_->free(slot(1));
  EXPECT_EQ(values(there, 1), (std::vector<float>{4}));
}

}  // namespace
}  // namespace waldo::tensorflow_backend
