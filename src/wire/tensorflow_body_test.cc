#include "wire/tensorflow_body.h"

#include <gtest/gtest.h>

namespace waldo::wire::tf {
namespace {

PlanBody matmul() {
  PlanBody body;
  body.name = "MatMul";
  body.inputs = {InputKind::kSlot, InputKind::kInline};
  body.outputs = 1;
  body.attributes = {{"T", "0\x01"}, {"transpose_a", "(\x01"}};
  return body;
}

TEST(TensorflowBody, APlanComesBackAsItWas) {
  const Buffer bytes = encode(matmul());
  const auto back = decode_plan_body(bytes);
  ASSERT_TRUE(back.ok()) << back.status().text();
  EXPECT_EQ(back->name, "MatMul");
  EXPECT_EQ(back->inputs, matmul().inputs);
  EXPECT_EQ(back->outputs, 1);
  EXPECT_EQ(back->attributes, matmul().attributes);
}

TEST(TensorflowBody, EveryShorterPlanIsMalformed) {
  const Buffer bytes = encode(matmul());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_plan_body(std::span(bytes).first(size)).ok()) << size;
  }
}

TEST(TensorflowBody, ACallComesBackAsItWas) {
  const Buffer content(12, std::byte{7});
  CallBody call;
  call.outputs_expected = 99;
  call.inputs.resize(4);
  call.inputs[1] = {Input::Form::kView, {1, {2, 3}}, 16, {}, {}};
  call.inputs[2] = {Input::Form::kInline, {3, {3}}, 0, content, {}};
  call.inputs[3] = {Input::Form::kInline, {kTypeString, {2}}, 0, {}, {"loss", ""}};
  Buffer bytes;
  encode(call, bytes);
  EXPECT_EQ(bytes.size() % 8, 0u);
  const auto back = decode_call(bytes);
  ASSERT_TRUE(back.ok()) << back.status().text();
  EXPECT_EQ(back->outputs_expected, 99u);
  ASSERT_EQ(back->inputs.size(), 4u);
  EXPECT_EQ(back->inputs[0].form, Input::Form::kWhole);
  EXPECT_EQ(back->inputs[1].meta, call.inputs[1].meta);
  EXPECT_EQ(back->inputs[1].offset_bytes, 16);
  EXPECT_EQ(Buffer(back->inputs[2].content), content);
  EXPECT_EQ(back->inputs[3].texts, call.inputs[3].texts);
  for (size_t size = 1; size + 8 < bytes.size(); ++size) {
    EXPECT_FALSE(decode_call(std::span(bytes).first(size)).ok()) << size;
  }
}

TEST(TensorflowBody, NoBytesMeanWholeValues) {
  const auto call = decode_call({});
  ASSERT_TRUE(call.ok());
  EXPECT_TRUE(call->inputs.empty());
}

TEST(TensorflowBody, FingerprintsTellShapesApart) {
  EXPECT_NE(fingerprint(TensorMeta{1, {2, 3}}), fingerprint(TensorMeta{1, {3, 2}}));
  EXPECT_NE(fingerprint(TensorMeta{1, {}}), fingerprint(TensorMeta{1, {1}}));
  EXPECT_NE(fingerprint(TensorMeta{1, {4}}), fingerprint(TensorMeta{2, {4}}));
}

}  // namespace
}  // namespace waldo::wire::tf
