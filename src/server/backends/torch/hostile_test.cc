// Plans, calls and commands that no front end of ours would send: each is an error, none harms the worker.
#include <ATen/ops/ones.h>

#include <limits>
#include <random>

#include "server/backends/torch/test_support.h"

namespace waldo::torch_backend::test {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

class Hostile : public ::testing::Test {
 protected:
  void SetUp() override { worker_.put(0, at::ones({8})); }

  // Neither defining nor calling it may work.
  void refuse(const wire::PlanBody& body, std::vector<uint32_t> creates = {}, const Buffer& values = {}) {
    EXPECT_FALSE(worker_.call(body, {0}, std::move(creates), values).ok());
    EXPECT_TRUE(same_bits(worker_.get(0, meta({8})), at::ones({8})));
  }
  void refuse_input(const wire::TensorMeta& meta) { refuse(body("aten::neg_", "", {tensor(0, meta)}, {argument(0)})); }

  Worker worker_;
};

TEST_F(Hostile, DescriptorsBeyondTheStorage) {
  refuse_input(meta({9}));
  refuse_input(meta({8}, wire::DType::kFloat64));
  wire::TensorMeta shifted = meta({8});
  shifted.offset = 1;
  refuse_input(shifted);
  wire::TensorMeta strided = meta({5});
  strided.strides = {2};
  refuse_input(strided);
  wire::TensorMeta far = meta({1});
  far.offset = kMax;
  refuse_input(far);
}

TEST_F(Hostile, DescriptorsThatOverflow) {
  for (const auto& [sizes, strides] :
       std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{{{kMax}, {1}},
                                                                          {{kMax, kMax}, {1, 1}},
                                                                          {{2}, {kMax}},
                                                                          {{3, 3}, {kMax / 2, kMax / 2}},
                                                                          {{1 << 30, 1 << 30, 1 << 30}, {0, 0, 0}},
                                                                          {{0, kMax, kMax}, {1, kMax, kMax}},
                                                                          {{kMax / 4}, {0}}}) {
    wire::TensorMeta bad;
    bad.sizes = sizes;
    bad.strides = strides;
    refuse_input(bad);
  }
}

TEST_F(Hostile, NegativeSizesStridesAndOffsets) {
  for (int what = 0; what < 3; ++what) {
    wire::TensorMeta bad = meta({4});
    (what == 0 ? bad.sizes[0] : what == 1 ? bad.strides[0] : bad.offset) = -1;
    refuse_input(bad);
  }
}

TEST_F(Hostile, DynamicOffsets) {
  wire::TensorMeta moved = meta({4});
  moved.dynamic_offset = true;
  const auto plan = worker_.define(body("aten::neg_", "", {tensor(0, moved)}, {argument(0)}), 1, 0);
  ASSERT_TRUE(plan.ok());
  for (const int64_t offset : {int64_t{5}, int64_t{-1}, kMax, kMax / 4, std::numeric_limits<int64_t>::min()}) {
    EXPECT_FALSE(worker_.again(*plan, {0}, {}, scalars(offset)).ok()) << offset;
  }
  EXPECT_OK(worker_.again(*plan, {0}, {}, scalars(int64_t{4})));
}

TEST_F(Hostile, SlotsThatTheCallDoesNotHave) {
  refuse(body("aten::neg_", "", {tensor(1, meta({8}))}, {argument(0)}));
  refuse(body("aten::neg_", "", {tensor(wire::kNoSlot, meta({8}))}, {argument(0)}));
  refuse(body("aten::neg", "", {tensor(0, meta({8}))}, {fresh(0, meta({8}))}), {1});  // over what it reads
  refuse(body("aten::neg", "", {tensor(0, meta({8}))}, {fresh(7, meta({8}))}), {1});  // past the end
  refuse(body("aten::neg", "", {tensor(0, meta({8}))}, {argument(1)}), {1});          // no such argument
  refuse(
      body("aten::aminmax", "", {tensor(0, meta({8})), none(), truth(false)}, {fresh(1, meta({})), fresh(1, meta({}))}),
      {1});  // one slot twice
  wire::Output small = fresh(1, meta({8}));
  small.storage_bytes = 4;
  refuse(body("aten::neg", "", {tensor(0, meta({8}))}, {small}), {1});
  small.storage_bytes = UINT64_MAX;
  refuse(body("aten::neg", "", {tensor(0, meta({8}))}, {small}), {1});
}

TEST_F(Hostile, CallsThatDoNotFitTheirPlan) {
  const auto plan = worker_.define(
      body("aten::add", "Scalar", {tensor(0, meta({8})), scalar_later(wire::ScalarTag::kFloat), scalar(1)},
           {fresh(1, meta({8}))}),
      1, 1);
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(worker_.again(*plan, {0}, {}, scalars(1.0)).ok());
  EXPECT_FALSE(worker_.again(*plan, {0, 0}, {1}, scalars(1.0)).ok());
  EXPECT_FALSE(worker_.again(*plan, {0}, {1}).ok());
  EXPECT_FALSE(worker_.again(*plan, {0}, {1}, scalars(1.0, 2.0)).ok());
  EXPECT_FALSE(worker_.again(*plan, {99}, {1}, scalars(1.0)).ok());
  EXPECT_FALSE(worker_.again(PlanId{plan->raw + 1}, {0}, {1}, scalars(1.0)).ok());
  EXPECT_FALSE(worker_.again(PlanId{UINT32_MAX}, {0}, {1}, scalars(1.0)).ok());
  bool conformed = false;
  for (const Slot slot : {Slot{}, Slot::make(QueueId{5}, 0), Slot::make(QueueId{0}, Slot::kIndexMask)}) {
    const std::vector<Slot> slots = {slot, Worker::slot(1)};
    EXPECT_FALSE(worker_.queue().call(*plan, slots, scalars(1.0), &conformed, nullptr).ok());
  }
  EXPECT_OK(worker_.again(*plan, {0}, {1}, scalars(1.0)));
}

// Goal: an operator never finds another type on the stack than its schema says.
TEST_F(Hostile, ArgumentsOfTheWrongKind) {
  const std::vector<wire::Argument> kinds = {
      none(),
      tensor(0, meta({8})),
      tensors({0, wire::kNoSlot}, {meta({8}), meta({})}),
      scalar(1),
      integer(1),
      integers({1, 2}),
      number(1),
      truth(true),
      truths({1}),
      dtype(wire::DType::kFloat64),
      device(0),
      generator(0),
      {.kind = wire::ArgumentKind::kString, .strings = {"x"}},
      {.kind = wire::ArgumentKind::kStringList, .strings = {"x"}},
      {.kind = wire::ArgumentKind::kFloatList, .floats = {1.0}},
      {.kind = wire::ArgumentKind::kScalarList, .scalar_tags = {wire::ScalarTag::kInt}, .ints = {1}},
      {.kind = wire::ArgumentKind::kMemoryFormat, .ints = {2}},
      {.kind = wire::ArgumentKind::kLayout, .ints = {0}},
  };
  const std::vector<std::pair<const char*, const char*>> ops = {{"aten::add", "Tensor"},
                                                                {"aten::cat", ""},
                                                                {"aten::index", "Tensor"},
                                                                {"aten::sum", "dim_IntList"},
                                                                {"aten::uniform_", ""},
                                                                {"aten::_to_copy", ""},
                                                                {"aten::_foreach_add", "ScalarList"},
                                                                {"aten::addmm", ""},
                                                                {"aten::native_layer_norm", ""},
                                                                {"aten::empty", "memory_format"},
                                                                {"aten::upsample_nearest2d", "vec"}};
  std::mt19937 random(1);
  for (const auto& [op, overload] : ops) {
    for (size_t count = 0; count < 8; ++count) {
      for (int round = 0; round < 40; ++round) {
        std::vector<wire::Argument> arguments;
        for (size_t i = 0; i < count; ++i) arguments.push_back(kinds[random() % kinds.size()]);
        static_cast<void>(worker_.ask(body(op, overload, std::move(arguments)), {0}, {1, 2, 3}));
      }
    }
  }
}

TEST_F(Hostile, ArgumentsWithoutTheirValues) {
  for (const auto kind :
       {wire::ArgumentKind::kScalar, wire::ArgumentKind::kInt, wire::ArgumentKind::kFloat, wire::ArgumentKind::kBool,
        wire::ArgumentKind::kString, wire::ArgumentKind::kDType, wire::ArgumentKind::kLayout,
        wire::ArgumentKind::kMemoryFormat, wire::ArgumentKind::kDevice, wire::ArgumentKind::kGenerator,
        wire::ArgumentKind::kTensor, wire::ArgumentKind::kCpuScalar, wire::ArgumentKind::kCpuTensor}) {
    refuse(body("aten::neg_", "", {wire::Argument{.kind = kind}}, {argument(0)}));
  }
  refuse(body("aten::neg_", "", {tensor(0, meta({8})), dtype(static_cast<wire::DType>(200))}, {argument(0)}));
  refuse(body("aten::neg_", "", {tensor(0, meta({8})), device(3)}, {argument(0)}));
  refuse(body("aten::neg_", "", {tensors({0, 0}, {meta({8})})}, {argument(0)}));
  refuse(body("aten::neg_", "",
              {tensor(0, meta({8})),
               {.kind = wire::ArgumentKind::kScalarList, .scalar_tags = {wire::ScalarTag::kComplex}, .floats = {1}}},
              {argument(0)}));
  wire::TensorMeta conjugate = meta({8});
  conjugate.conj = true;  // of real numbers
  refuse_input(conjugate);
}

TEST_F(Hostile, WritingIntoANumber) {
  refuse(body("aten::neg_", "", {cpu_scalar(wire::DType::kFloat32, false)}, {argument(0)}), {}, scalars(1.0, 0.0));
}

TEST_F(Hostile, CommandsOutOfTheirRange) {
  using wire::CommandKind;
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kSeed, .generator = 9}).ok());
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kGetGeneratorState, .generator = 9}).ok());
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kSetGeneratorState, .bytes = {std::byte{1}}}).ok());
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kFreeGenerator}).ok());
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kNewGenerator}).ok());
  EXPECT_FALSE(worker_.command({.kind = CommandKind::kCopyGenerator, .value = UINT64_MAX}).ok());
  EXPECT_TRUE(worker_.command({.kind = CommandKind::kMemoryInfo}).ok());
  EXPECT_TRUE(worker_.command({.kind = CommandKind::kEmptyCache}).ok());
}

TEST_F(Hostile, SlotNumbersAtTheEdges) {
  for (const Slot slot : {Slot{}, Slot::make(QueueId{1}, 0), Slot::make(QueueId{63}, 5)}) {
    EXPECT_FALSE(worker_.queue().create(slot, 16).ok());
    EXPECT_FALSE(worker_.queue().resize(slot, 16).ok());
    EXPECT_FALSE(worker_.queue().write(slot, 0, upload_of("x", 1)).ok());
    EXPECT_FALSE(worker_.queue().read(slot, 0, 0, [](std::span<const std::byte>) { return Status(); }).ok());
    worker_.queue().free(slot);
    worker_.queue().poison(slot, Status(StatusKind::kDevice, "x"));
  }
  const Slot last = Slot::make(QueueId{0}, Slot::kIndexMask);
  EXPECT_OK(worker_.queue().create(last, 16));
  worker_.queue().free(last);
}

// Goal: whatever bytes arrive as a plan, the worker answers and lives on.
// Method: valid bodies with bytes changed, from fixed seeds; each that is accepted is also called.
TEST_F(Hostile, MutatedBodiesNeverCrash) {
  const std::vector<wire::PlanBody> bodies = {
      body("aten::add", "Tensor", {tensor(0, meta({2, 4})), tensor(0, meta({2, 4})), scalar(1)},
           {fresh(1, meta({2, 4}))}),
      body("aten::sum", "dim_IntList", {tensor(0, meta({2, 4})), integers({0}), truth(false), none()},
           {fresh(1, meta({4}))}),
      body("aten::cat", "", {tensors({0, 0}, {meta({2, 4}), meta({2, 4})}), integer(0)}, {fresh(1, meta({4, 4}))}),
  };
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    Buffer bytes = wire::encode(bodies[static_cast<size_t>(round) % bodies.size()]);
    for (uint32_t n = 1 + random() % 3; n > 0; --n) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    const PlanId plan{static_cast<uint32_t>(round)};
    if (!worker_.queue().define(plan, 1, 1, bytes).ok()) continue;
    bool conformed = false;
    const std::vector<Slot> slots = {Worker::slot(0), Worker::slot(1)};
    static_cast<void>(worker_.queue().call(plan, slots, {}, &conformed, nullptr));
  }
  worker_.put(2, at::ones({8}));
  EXPECT_OK(worker_.status_of_read(2, 0, 32));
}

}  // namespace
}  // namespace waldo::torch_backend::test
