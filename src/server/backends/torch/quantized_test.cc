#include "server/backends/torch/quantized.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "server/backends/torch/sparse.h"

namespace waldo::torch_backend {
namespace {

using at::Tensor;

torch::jit::Stack call(const char* name, torch::jit::Stack stack) {
  register_sparse();  // it defines the schemas of all
  register_quantized();
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(&stack);
  return stack;
}
Tensor one(const std::string& text, const std::vector<Tensor>& tensors, const std::vector<double>& numbers,
           double scale, int64_t zero_point) {
  return call("waldo::quantized_one", {text, tensors, numbers, scale, zero_point})[0].toTensor();
}
std::vector<Tensor> all(const std::string& text, const std::vector<Tensor>& tensors,
                        const std::vector<double>& numbers) {
  return call("waldo::quantized_call", {text, tensors, numbers})[0].toTensorVector();
}

Tensor bytes(std::vector<int64_t> values) { return at::tensor(values).to(at::kByte); }

TEST(Quantized, AnOperatorRunsOnTheIntegers) {
  const Tensor relu = one("aten::relu||QQUInt8,0,0;", {bytes({1, 5, 9})}, {0.5, 5}, 0.5, 5);
  EXPECT_TRUE(at::equal(relu, bytes({5, 5, 9})));
  const Tensor floats = one("aten::dequantize|self|QQUInt8,0,0;", {bytes({1, 5, 9})}, {0.5, 5}, 0, 0);
  EXPECT_TRUE(at::equal(floats, at::tensor({-2.0F, 0.0F, 2.0F})));
}

TEST(Quantized, AResultOtherThanToldIsAnError) {
  EXPECT_THROW(one("aten::relu||QQUInt8,0,0;", {bytes({1})}, {0.5, 5}, 0.25, 5), c10::Error);
  EXPECT_THROW(one("aten::relu||QQUInt8,0,0;", {bytes({1})}, {0.5, 5}, 0.5, 6), c10::Error);
  EXPECT_THROW(one("aten::relu||QQUInt8,0,0;", {bytes({1})}, {0.5, 5}, 0, 0), c10::Error);
  EXPECT_THROW(one("aten::dequantize|self|QQUInt8,0,0;", {bytes({1})}, {0.5, 5}, 0.5, 5), c10::Error);
}

TEST(Quantized, WhatIsWrittenIsACopy) {
  const Tensor given = bytes({1, 5, 9});
  const auto told = all("aten::relu_||QQUInt8,0,0;", {given}, {0.5, 5});
  EXPECT_TRUE(at::equal(given, bytes({1, 5, 9})));
  ASSERT_EQ(told.size(), 2u);
  EXPECT_TRUE(at::equal(told[0], bytes({5, 5, 9})));
  EXPECT_TRUE(at::equal(told[1], at::tensor({2.0, 1.0, 0.5, 5.0}, at::kDouble).view({1, 4})));
}

TEST(Quantized, PartsThatDoNotFitFail) {
  const Tensor scales = at::ones({2}, at::kDouble), zeros = at::zeros({2}, at::kLong),
               matrix = at::ones({2, 3}, at::kByte);
  const auto by_channel = [&](const std::string& where) {
    return one("aten::dequantize|self|CQUInt8,0,1,2," + where + ";", {matrix, scales, zeros}, {}, 0, 0);
  };
  EXPECT_EQ(by_channel("0").numel(), 6);
  EXPECT_THROW(by_channel("1"), c10::Error);
  EXPECT_THROW(by_channel("2"), c10::Error);
  EXPECT_THROW(by_channel("-1"), c10::Error);
  for (const char* text : {
           "aten::relu||QQUInt8,1,0;",                            // no such tensor
           "aten::relu||QQUInt8,0,1;",                            // no such numbers
           "aten::relu||QQInt8,0,0;",                             // other integers
           "aten::relu||QFloat,0,0;",                             // no quantized dtype
           "aten::relu||QQUInt4x2,0,0:2000;",                     // too few bytes
           "aten::relu||QQUInt4x2,0,0:4294967296x4294967296;",    // overflows
           "aten::relu||QQUInt8,0,0;N",                           // one too many
           "aten::relu||",                                        // none
           "aten::resize_||QQUInt8,0,0;[iI100;]N",                // not for clients
           "aten::set_|source_Storage|QQUInt8,0,0;N",             //
           "quantized::conv2d_prepack||QQUInt8,0,0;N",            //
           "aten::relu||O__torch__.torch.classes.other.Thing;N",  //
           "aten::relu||{-1,0;QQUInt8,0,0;}",                     //
       }) {
    EXPECT_THROW(one(text, {bytes({1, 2})}, {0.5, 5}, 0.5, 5), c10::Error) << text;
  }
}

// Method: a call that is right, with bytes changed, left out and put in by chance.
TEST(Quantized, NonsenseFailsAndNothingElse) {
  const std::string right = "quantized::cat||[tQQUInt8,0,0;QQUInt8,0,0;]I0;F0;I5;";
  const std::string letters = "NUTQCIBFSDV([{O;:,x|0123456789-QUInt8";
  std::mt19937 random(11);
  int ran = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string text = right;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = letters[random() % letters.size()];
          break;
        case 1:
          text.erase(at, 1);
          break;
        default:
          text.insert(at, 1, letters[random() % letters.size()]);
      }
    }
    try {
      static_cast<void>(all(text, {bytes({1, 2})}, {0.5, 5}));
      ++ran;
    } catch (const std::exception&) {
    }
  }
  EXPECT_GT(ran, 0);
  EXPECT_EQ(all(right, {bytes({1, 2})}, {0.5, 5})[0].numel(), 4);
}

}  // namespace
}  // namespace waldo::torch_backend
