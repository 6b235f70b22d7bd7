// What optimizers and loss scaling send: lists of parameters changed in place, on the CPU's own kernels.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "server/backends/torch/test_support.h"

namespace waldo::torch_backend::test {
namespace {

using at::Tensor;

// Slots: 0,1 parameters · 2,3 gradients · 4..7 moments · 8,9 steps · 10 found_inf · 11 grad_scale.
class FusedAdamW : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 2; ++i) {
      parameters_.push_back(at::randn({3, 2}));
      gradients_.push_back(at::randn({3, 2}));
      first_.push_back(at::zeros({3, 2}));
      second_.push_back(at::zeros({3, 2}));
      steps_.push_back(at::ones({}));
    }
    for (uint32_t i = 0; i < 2; ++i) {
      worker_.put(i, parameters_[i]);
      worker_.put(2 + i, gradients_[i]);
      worker_.put(4 + i, first_[i]);
      worker_.put(6 + i, second_[i]);
      worker_.put(8 + i, steps_[i]);
    }
  }
  void put_scale(float found_inf) {
    worker_.put(10, at::full({}, found_inf));
    worker_.put(11, at::full({}, 4.0f));
  }
  Status step(bool scaled) {
    const auto m = meta({3, 2}), s = meta({});
    const auto pair = [&](uint16_t at, const wire::TensorMeta& meta) {
      return tensors({at, static_cast<uint16_t>(at + 1)}, {meta, meta});
    };
    std::vector<uint32_t> reads = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    if (scaled) reads.insert(reads.end(), {10, 11});
    return worker_.call(body("aten::_fused_adamw_", "",
                             {pair(0, m), pair(2, m), pair(4, m), pair(6, m), tensors({}, {}), pair(8, s), number(0.1),
                              number(0.9), number(0.999), number(0.01), number(1e-8), truth(false), truth(false),
                              scaled ? tensor(11, s) : none(), scaled ? tensor(10, s) : none()}),
                        reads);
  }

  Worker worker_;
  std::vector<Tensor> parameters_, gradients_, first_, second_, steps_;
};

TEST_F(FusedAdamW, EqualsTheOperatorCalledPlainly) {
  EXPECT_OK(step(/*scaled=*/false));
  const auto expected =
      at::_fused_adamw(parameters_, gradients_, first_, second_, {}, steps_, 0.1, 0.9, 0.999, 0.01, 1e-8, false, false);
  for (uint32_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(same_bits(worker_.get(i, meta({3, 2})), std::get<0>(expected)[i]));
    EXPECT_TRUE(same_bits(worker_.get(6 + i, meta({3, 2})), std::get<3>(expected)[i]));
  }
}

TEST_F(FusedAdamW, UnscalesAndSkipsAStepWithAnInfinity) {
  put_scale(1);
  EXPECT_OK(step(/*scaled=*/true));
  EXPECT_TRUE(same_bits(worker_.get(0, meta({3, 2})), parameters_[0])) << "a step with an infinity changes nothing";
  put_scale(0);
  EXPECT_OK(step(/*scaled=*/true));
  const auto expected = at::_fused_adamw(parameters_, gradients_, first_, second_, {}, steps_, 0.1, 0.9, 0.999, 0.01,
                                         1e-8, false, false, at::full({}, 4.0f), at::full({}, 0.0f));
  EXPECT_TRUE(same_bits(worker_.get(0, meta({3, 2})), std::get<0>(expected)[0]));
}

TEST(LossScaling, FindsInfinitiesAndMovesTheScale) {
  Worker worker;
  worker.put(0, at::full({4}, 8.0f));
  worker.put(1, at::tensor({1.f, std::numeric_limits<float>::infinity()}));
  worker.put(2, at::zeros({1}));        // found_inf
  worker.put(3, at::full({1}, 0.25f));  // 1 / scale
  const auto one = meta({1});
  EXPECT_OK(worker.call(body("aten::_amp_foreach_non_finite_check_and_unscale_", "",
                             {tensors({0, 1}, {meta({4}), meta({2})}), tensor(2, one), tensor(3, one)}),
                        {0, 1, 2, 3}));
  EXPECT_TRUE(same_bits(worker.get(0, meta({4})), at::full({4}, 2.0f)));
  EXPECT_TRUE(same_bits(worker.get(2, one), at::ones({1})));
  worker.put(4, at::full({}, 4.0f));
  worker.put(5, at::zeros({}, at::TensorOptions().dtype(at::kInt)));
  EXPECT_OK(worker.call(body("aten::_amp_update_scale_", "",
                             {tensor(0, meta({})), tensor(1, meta({}, wire::DType::kInt32)), tensor(2, one), number(2),
                              number(0.5), integer(2000)},
                             {argument(0)}),
                        {4, 5, 2}));
  EXPECT_TRUE(same_bits(worker.get(4, meta({})), at::full({}, 2.0f)));
}

}  // namespace
}  // namespace waldo::torch_backend::test
