// CUDA-only operators computed on the CPU, against what libtorch's CPU path computes in their place.
#include "server/backends/torch/substitutes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_conv_depthwise2d.h>
#include <ATen/ops/_fused_dropout.h>
#include <ATen/ops/_masked_scale.h>
#include <ATen/ops/_thnn_fused_gru_cell.h>
#include <ATen/ops/_thnn_fused_gru_cell_backward.h>
#include <ATen/ops/_thnn_fused_lstm_cell.h>
#include <ATen/ops/_thnn_fused_lstm_cell_backward_impl.h>
#include <ATen/ops/_use_cudnn_ctc_loss.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/batch_norm_backward_elemt.h>
#include <ATen/ops/batch_norm_backward_reduce.h>
#include <ATen/ops/batch_norm_elemt.h>
#include <ATen/ops/batch_norm_gather_stats_with_counts.h>
#include <ATen/ops/batch_norm_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gru_cell.h>
#include <ATen/ops/lstm_cell.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/unsafe_chunk.h>
#include <ATen/ops/zeros.h>

#include <thread>

#include "server/backends/torch/test_support.h"

namespace waldo::torch_backend::test {
namespace {

using at::Tensor;

// On a thread of its own, which no queue has made its own: there autograd works, for the references.
template <typename Body>
void with_autograd(Body body) {
  std::thread thread([&] {
    register_substitutes();
    body();
  });
  thread.join();
}

TEST(Substitutes, LstmCellIsBitEqualToTheCpus) {
  with_autograd([] {
    const Tensor x = at::randn({3, 5}), h = at::randn({3, 4}), c = at::randn({3, 4});
    const Tensor wi = at::randn({16, 5}), wh = at::randn({16, 4});
    const auto [hy, cy] = at::lstm_cell(x, {h, c}, wi, wh);
    const auto [fh, fc, workspace] = at::_thnn_fused_lstm_cell(at::matmul(x, wi.t()), at::matmul(h, wh.t()), c);
    EXPECT_TRUE(same_bits(hy, fh));
    EXPECT_TRUE(same_bits(cy, fc));
    EXPECT_EQ(workspace.sizes(), at::IntArrayRef({3, 16}));
  });
}

TEST(Substitutes, LstmCellBackwardIsBitEqualToAutogradOnTheCpu) {
  with_autograd([] {
    const Tensor gates = at::randn({3, 16}).set_requires_grad(true), c = at::randn({3, 4}).set_requires_grad(true);
    const Tensor grad_h = at::randn({3, 4}), grad_c = at::randn({3, 4});
    const auto chunks = gates.unsafe_chunk(4, 1);
    const Tensor cy = chunks[1].sigmoid() * c + chunks[0].sigmoid() * chunks[2].tanh();
    const Tensor hy = chunks[3].sigmoid() * cy.tanh();
    ((hy * grad_h).sum() + (cy * grad_c).sum()).backward();

    const Tensor zero = at::zeros({3, 16});
    const auto [fh, fc, workspace] = at::_thnn_fused_lstm_cell(zero, gates.detach(), c.detach());
    const auto [gg, gc, gb] = at::_thnn_fused_lstm_cell_backward_impl(grad_h, grad_c, c.detach(), fc, workspace, true);
    EXPECT_TRUE(same_bits(gg, gates.grad()));
    EXPECT_TRUE(same_bits(gc, c.grad()));
    EXPECT_TRUE(same_bits(gb, gg.sum(0)));
    const auto [only_c, c_only, none] =
        at::_thnn_fused_lstm_cell_backward_impl({}, grad_c, c.detach(), fc, workspace, false);
    EXPECT_FALSE(none.defined());
    EXPECT_EQ(only_c.sizes(), gg.sizes());
    EXPECT_EQ(c_only.sizes(), gc.sizes());
  });
}

TEST(Substitutes, GruCellAndItsBackwardAreBitEqualToTheCpus) {
  with_autograd([] {
    const Tensor x = at::randn({3, 5}), wi = at::randn({12, 5}), wh = at::randn({12, 4});
    const Tensor h = at::randn({3, 4}).set_requires_grad(true);
    const Tensor input = at::matmul(x, wi.t()).set_requires_grad(true);
    const Tensor hidden = at::matmul(h.detach(), wh.t()).set_requires_grad(true);
    const auto [fy, workspace] = at::_thnn_fused_gru_cell(input.detach(), hidden.detach(), h.detach());
    EXPECT_TRUE(same_bits(fy, at::gru_cell(x, h.detach(), wi, wh)));

    const auto in = input.unsafe_chunk(3, 1), hid = hidden.unsafe_chunk(3, 1);
    const Tensor reset = (hid[0] + in[0]).sigmoid(), update = (hid[1] + in[1]).sigmoid();
    const Tensor fresh = (in[2] + hid[2] * reset).tanh();
    const Tensor hy = (h - fresh) * update + fresh;
    const Tensor grad = at::randn({3, 4});
    hy.backward(grad);
    const auto [gi, gh, gx, bi, bh] = at::_thnn_fused_gru_cell_backward(grad, workspace, true);
    EXPECT_TRUE(same_bits(gi, input.grad()));
    EXPECT_TRUE(same_bits(gh, hidden.grad()));
    EXPECT_TRUE(same_bits(gx, h.grad()));
    EXPECT_TRUE(same_bits(bi, gi.sum(0)) && same_bits(bh, gh.sum(0)));
  });
}

TEST(Substitutes, DropoutKeepsWithTheGivenProbability) {
  with_autograd([] {
    const Tensor x = at::ones({1000});
    const auto [y, mask] = at::_fused_dropout(x, 0.25);
    const double kept = mask.to(at::kDouble).mean().item().toDouble();
    EXPECT_GT(kept, 0.1);
    EXPECT_LT(kept, 0.4);
    EXPECT_TRUE(same_bits(y, mask.to(at::kFloat) * 4));
    EXPECT_TRUE(same_bits(at::_masked_scale(x, mask, 4), y));
  });
}

TEST(Substitutes, DepthwiseConvolution) {
  with_autograd([] {
    const Tensor x = at::randn({2, 3, 7, 7}), w = at::randn({3, 1, 3, 3}), b = at::randn({3});
    const Tensor y = at::_conv_depthwise2d(x, w, {3, 3}, b, {1, 1}, {1, 1}, {1, 1});
    EXPECT_TRUE(same_bits(y, at::convolution(x, w, b, {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, 3)));
  });
}

TEST(Substitutes, WideProducts) {
  with_autograd([] {
    const Tensor a = at::randn({3, 4}).to(at::kBFloat16), b = at::randn({4, 2}).to(at::kBFloat16);
    EXPECT_TRUE(same_bits(at::mm(a, b, at::kFloat), at::mm(a.to(at::kFloat), b.to(at::kFloat))));
  });
}

// Goal: two ranks that share statistics get what one process gets over both halves.
TEST(Substitutes, SyncBatchNormOfTwoHalvesIsBatchNormOfTheWhole) {
  with_autograd([] {
    constexpr double kEps = 1e-5, kMomentum = 0.1;
    const Tensor x = at::randn({6, 3, 4, 4}), w = at::randn({3}), b = at::randn({3}), g = at::randn({6, 3, 4, 4});
    const Tensor halves[2] = {x.narrow(0, 0, 2), x.narrow(0, 2, 4)};
    const Tensor grads[2] = {g.narrow(0, 0, 2), g.narrow(0, 2, 4)};
    Tensor mean = at::zeros({3}), var = at::ones({3}), ref_mean = at::zeros({3}), ref_var = at::ones({3});

    const auto [m0, i0] = at::batch_norm_stats(halves[0], kEps);
    const auto [m1, i1] = at::batch_norm_stats(halves[1], kEps);
    const Tensor counts = at::tensor({32.f, 64.f});
    const auto [m, i] = at::batch_norm_gather_stats_with_counts(x, at::stack({m0, m1}), at::stack({i0, i1}), mean, var,
                                                                kMomentum, kEps, counts);
    const Tensor y =
        at::cat({at::batch_norm_elemt(halves[0], w, b, m, i, kEps), at::batch_norm_elemt(halves[1], w, b, m, i, kEps)});
    const auto [ry, rm, ri] = at::native_batch_norm(x, w, b, ref_mean, ref_var, true, kMomentum, kEps);
    EXPECT_TRUE(at::allclose(y, ry, 1e-4, 1e-5));
    EXPECT_TRUE(at::allclose(mean, ref_mean, 1e-4, 1e-6));
    EXPECT_TRUE(at::allclose(var, ref_var, 1e-4, 1e-6));

    Tensor sum_dy = at::zeros({3}), sum_dy_xmu = at::zeros({3}), gw = at::zeros({3}), gb = at::zeros({3});
    for (int r = 0; r < 2; ++r) {
      const auto [dy, xmu, weight, bias] =
          at::batch_norm_backward_reduce(grads[r], halves[r], m, i, w, true, true, true);
      sum_dy.add_(dy);
      sum_dy_xmu.add_(xmu);
      gw.add_(weight);
      gb.add_(bias);
    }
    const Tensor n = at::tensor({32, 64}, at::TensorOptions().dtype(at::kInt));
    const Tensor gx = at::cat({at::batch_norm_backward_elemt(grads[0], halves[0], m, i, w, sum_dy, sum_dy_xmu, n),
                               at::batch_norm_backward_elemt(grads[1], halves[1], m, i, w, sum_dy, sum_dy_xmu, n)});
    const auto [rgx, rgw, rgb] =
        at::native_batch_norm_backward(g, x, w, ref_mean, ref_var, rm, ri, true, kEps, {true, true, true});
    EXPECT_TRUE(at::allclose(gx, rgx, 1e-4, 1e-5));
    EXPECT_TRUE(at::allclose(gw, rgw, 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(gb, rgb, 1e-4, 1e-4));
  });
}

TEST(Substitutes, NoCudnnForCtc) {
  with_autograd([] {
    const Tensor t = at::zeros({1, 1, 2}), targets = at::zeros({1}, at::TensorOptions().dtype(at::kInt));
    EXPECT_FALSE(at::_use_cudnn_ctc_loss(t, targets, {1}, {1}, 0));
  });
}

}  // namespace
}  // namespace waldo::torch_backend::test
