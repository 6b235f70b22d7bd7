#include "wire/plan_body.h"

#include <gtest/gtest.h>

namespace waldo::wire {
namespace {

TensorMeta tensor(std::vector<int64_t> sizes, std::vector<int64_t> strides) {
  TensorMeta meta;
  meta.dtype = DType::kBfloat16;
  meta.conj = meta.dynamic_offset = true;
  meta.offset = 3;
  meta.sizes = std::move(sizes);
  meta.strides = std::move(strides);
  return meta;
}

PlanBody sample_body() {
  PlanBody body;
  body.op = "aten::add";
  body.overload = "Tensor";
  body.schema_hash = 0x0123456789abcdef;
  Argument list;
  list.kind = ArgumentKind::kTensorList;
  list.slots = {0, kNoSlot};
  list.tensors = {tensor({2, 3}, {3, 1}), tensor({}, {})};
  Argument scalar;
  scalar.kind = ArgumentKind::kScalarList;
  scalar.dynamic = true;
  scalar.scalar_tags = {ScalarTag::kInt, ScalarTag::kComplex};
  scalar.count = 2;
  Argument constants;
  constants.kind = ArgumentKind::kFloatList;
  constants.floats = {1.5, -0.0};
  constants.ints = {-1};
  constants.strings = {"mean", ""};
  body.arguments = {list, scalar, constants, Argument()};
  Output made;
  made.kind = OutputKind::kNew;
  made.slot = 1;
  made.storage_bytes = 12;
  made.tensor = tensor({2, 3}, {3, 1});
  Output outer;
  outer.kind = OutputKind::kList;
  outer.list = {made, made};
  Output number;
  number.kind = OutputKind::kFloat;
  number.number = 2.5;
  number.integer = -7;
  body.outputs = {made, outer, number};
  return body;
}

TEST(PlanBody, RoundTrip) {
  const Buffer bytes = encode(sample_body());
  auto body = decode_plan_body(bytes);
  ASSERT_TRUE(body.ok()) << body.status().to_string();
  EXPECT_EQ(encode(*body), bytes);
  EXPECT_EQ(body->op, "aten::add");
  EXPECT_EQ(body->arguments.size(), 4u);
  EXPECT_EQ(body->arguments[0].tensors[0].sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(body->arguments[0].slots[1], kNoSlot);
  EXPECT_TRUE(body->arguments[0].tensors[0].conj);
  EXPECT_FALSE(body->arguments[0].tensors[0].neg);
  EXPECT_EQ(body->arguments[1].count, 2u);
  EXPECT_EQ(body->arguments[2].strings[0], "mean");
  EXPECT_EQ(body->outputs[1].list[1].storage_bytes, 12u);
  EXPECT_EQ(body->outputs[2].integer, -7);
}

TEST(PlanBody, EveryCutAndEveryExtraByteIsRefused) {
  const Buffer bytes = encode(sample_body());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(decode_plan_body(std::span<const std::byte>(bytes).first(size)).status().kind(), StatusKind::kInvalid);
  }
  Buffer longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_EQ(decode_plan_body(longer).status().text(), "malformed plan body: too long");
}

TEST(PlanBody, LimitsAndEnumsAreChecked) {
  const auto why = [](PlanBody body) { return decode_plan_body(encode(body)).status().text(); };
  PlanBody body = sample_body();
  body.arguments[0].tensors[0].sizes[0] = -1;
  EXPECT_EQ(why(body), "malformed plan body: sizes");
  body = sample_body();
  body.arguments[0].tensors[0].dtype = DType::kCount;
  EXPECT_EQ(why(body), "malformed plan body: dtype");
  body = sample_body();
  body.arguments[0].kind = static_cast<ArgumentKind>(20);
  EXPECT_EQ(why(body), "malformed plan body: argument kind");
  body = sample_body();
  body.arguments[0].slots.resize(limits::plan_list_count_max + 1);
  EXPECT_EQ(why(body), "malformed plan body: argument slots");
  body = sample_body();
  body.arguments[0].tensors[0] =
      tensor(std::vector<int64_t>(limits::tensor_dim_max + 1), std::vector<int64_t>(limits::tensor_dim_max + 1));
  EXPECT_EQ(why(body), "malformed plan body: dimensions");
  body = sample_body();
  body.outputs[0].storage_bytes = limits::storage_bytes_max + 1;
  EXPECT_EQ(why(body), "malformed plan body: storage bytes");
  Buffer other_layout = encode(sample_body());
  other_layout[0] = std::byte{2};
  EXPECT_EQ(decode_plan_body(other_layout).status().text(), "malformed plan body: layout");
}

TEST(PlanBody, ReportAndCommandRoundTrip) {
  Report report;
  report.outputs = sample_body().outputs;
  EXPECT_EQ(encode(*decode_report(encode(report))), encode(report));
  Command command;
  command.kind = CommandKind::kSetGeneratorState;
  command.generator = 3;
  command.value = 1ull << 63;
  command.ints = {1, -2};
  command.bytes = {std::byte{1}, std::byte{2}};
  auto got = decode_command(encode(command));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->ints, command.ints);
  EXPECT_EQ(got->bytes, command.bytes);
  EXPECT_EQ(got->value, command.value);
  command.kind = static_cast<CommandKind>(0);
  EXPECT_EQ(decode_command(encode(command)).status().text(), "malformed command: command kind");
}

TEST(PlanBody, ElementSizes) {
  EXPECT_EQ(element_bytes(DType::kBool), 1u);
  EXPECT_EQ(element_bytes(DType::kBfloat16), 2u);
  EXPECT_EQ(element_bytes(DType::kComplex32), 4u);
  EXPECT_EQ(element_bytes(DType::kComplex128), 16u);
  for (uint8_t i = 0; i < static_cast<uint8_t>(DType::kCount); ++i) {
    EXPECT_GT(element_bytes(static_cast<DType>(i)), 0u);
  }
}

}  // namespace
}  // namespace waldo::wire
