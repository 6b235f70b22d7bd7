// Rules for what works element by element, and for losses, which reduce that to one number.
#include <ATen/core/Reduction.h>
#include <ATen/ops/result_type.h>

#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

bool same_dtype(const c10::IValue* a, size_t i, size_t j) {
  return tensor_at(a, i).scalar_type() == tensor_at(a, j).scalar_type();
}

bool relu(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  return self.scalar_type() != at::kBool && !self.is_complex() && make.pointwise(self.scalar_type(), {self});
}

bool abs_out(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  return make.pointwise_into(a, 1, c10::toRealValueType(self.scalar_type()), {self});
}

bool isnan(const c10::IValue* a, RuleOutputs& make) { return make.pointwise(at::kBool, {tensor_at(a, 0)}); }

bool logical_not_out(const c10::IValue* a, RuleOutputs& make) {
  return make.pointwise_into(a, 1, at::kBool, {tensor_at(a, 0)});
}

bool logical_out(const c10::IValue* a, RuleOutputs& make) {
  return make.pointwise_into(a, 2, at::kBool, {tensor_at(a, 0), tensor_at(a, 1)});
}

bool where(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &condition = tensor_at(a, 0), &self = tensor_at(a, 1), &other = tensor_at(a, 2);
  return condition.scalar_type() == at::kBool && make.pointwise(at::result_type(self, other), {condition, self, other});
}

bool where_out(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &condition = tensor_at(a, 0), &self = tensor_at(a, 1), &other = tensor_at(a, 2);
  return condition.scalar_type() == at::kBool &&
         make.pointwise_into(a, 3, at::result_type(self, other), {condition, self, other});
}

bool unary(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  return self.is_floating_point() && make.pointwise(self.scalar_type(), {self});
}

bool nan_to_num_out(const c10::IValue* a, RuleOutputs& make) {
  return make.pointwise_into(a, 4, tensor_at(a, 0).scalar_type(), {tensor_at(a, 0)});
}

// (grad, self, …)
bool unary_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &self = tensor_at(a, 1);
  return same_dtype(a, 0, 1) && self.is_floating_point() && make.pointwise(self.scalar_type(), {grad, self});
}

// Real and imaginary part, or absolute value and angle.
bool complex_out(const c10::IValue* a, RuleOutputs& make) {
  const auto dtype = tensor_at(a, 0).scalar_type();
  return same_dtype(a, 0, 1) && (dtype == at::kFloat || dtype == at::kDouble) &&
         make.pointwise_into(a, 2, c10::toComplexType(dtype), {tensor_at(a, 0), tensor_at(a, 1)});
}

bool prelu(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &self = tensor_at(a, 0), &weight = tensor_at(a, 1);
  return same_dtype(a, 0, 1) && make.pointwise(self.scalar_type(), {self, weight});
}

bool prelu_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &self = tensor_at(a, 1), &weight = tensor_at(a, 2);
  return same_dtype(a, 0, 1) && same_dtype(a, 1, 2) && make.pointwise(self.scalar_type(), {self, weight, grad}) &&
         make.pointwise(self.scalar_type(), {self, weight, grad});
}

// Of contiguous tensors only: (grad, self, …), as large as self.
bool contiguous_backward(const c10::IValue* a, RuleOutputs& make) {
  if (!all_contiguous({tensor_at(a, 0), tensor_at(a, 1)}) || !same_dtype(a, 0, 1)) return false;
  make.like(tensor_at(a, 1));
  return true;
}

bool rrelu_with_noise(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &self = tensor_at(a, 0), &noise = tensor_at(a, 1);
  if (!all_contiguous({self, noise}) || !self.is_floating_point() || self.sizes() != noise.sizes()) return false;
  make.like(self);
  return true;
}

bool log_sigmoid_forward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  if (!self.is_contiguous() || !self.is_floating_point() || !on_cpu_worker(self)) return false;  // CUDA needs no buffer
  make.like(self);
  make.like(self);
  return true;
}

bool native_dropout_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &mask = tensor_at(a, 1);
  if (mask.scalar_type() != at::kBool || grad.sizes() != mask.sizes()) return false;
  if (plain(grad) && grad.strides() == mask.strides()) {
    make.like(grad);
    return true;
  }
  return on_cpu_worker(grad) && make.pointwise(grad.scalar_type(), {grad, mask});
}

bool losses_fit(const c10::IValue* a, size_t input, size_t target) {
  return same_dtype(a, input, target) && tensor_at(a, input).sizes() == tensor_at(a, target).sizes();
}

// (input, target, reduction, …), the target broadcast.
bool huber_loss(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  if (!losses_fit(a, 0, 1)) return false;
  if (a[2].toInt() == at::Reduction::None) return make.pointwise(input.scalar_type(), {input, tensor_at(a, 1)});
  make.contiguous(input.scalar_type(), {});
  return true;
}

// (grad, input, target, …, grad_input!): `place` of the last.
bool loss_backward_out(const c10::IValue* a, RuleOutputs& make) {
  return losses_fit(a, 1, 2) &&
         make.pointwise_into(a, 5, tensor_at(a, 1).scalar_type(), {tensor_at(a, 1), tensor_at(a, 2), tensor_at(a, 0)});
}

bool mse_loss_backward(const c10::IValue* a, RuleOutputs& make) {
  if (!losses_fit(a, 1, 2) || !same_dtype(a, 0, 1)) return false;
  make.contiguous(tensor_at(a, 1).scalar_type(), tensor_at(a, 1).sizes());
  return true;
}

bool binary_cross_entropy(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  if (!losses_fit(a, 0, 1) || !input.is_floating_point() || !plain(input)) return false;
  if (a[3].toInt() == at::Reduction::None) {
    make.like(input);
  } else {
    make.contiguous(input.scalar_type(), {});
  }
  return true;
}

bool binary_cross_entropy_backward(const c10::IValue* a, RuleOutputs& make) {
  if (!losses_fit(a, 1, 2) || !plain(tensor_at(a, 1))) return false;
  make.like(tensor_at(a, 1));
  return true;
}

// (n, classes, height, width) and (n, height, width).
bool fits_2d(const at::Tensor& input, const at::Tensor& target) {
  return input.dim() == 4 && target.dim() == 3 && input.size(0) == target.size(0) && input.size(2) == target.size(1) &&
         input.size(3) == target.size(2);
}

bool nll_loss2d_forward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 0), &target = tensor_at(a, 1);
  if (!fits_2d(input, target) || !input.is_floating_point()) return false;
  if (a[3].toInt() == at::Reduction::None) {
    make.contiguous(input.scalar_type(), target.sizes());
  } else {
    make.contiguous(input.scalar_type(), {});
  }
  make.contiguous(input.scalar_type(), {});
  return true;
}

bool nll_loss2d_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 1);
  if (!fits_2d(input, tensor_at(a, 2)) || !plain(input)) return false;
  make.like(input);
  return true;
}

bool multi_margin_loss(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 0), &target = tensor_at(a, 1);
  if (input.dim() != 2 || target.dim() != 1 || input.size(0) != target.size(0) || input.size(1) < 1) return false;
  if (present(a[4])) return false;
  const bool each = a[5].toInt() == at::Reduction::None;
  make.contiguous(input.scalar_type(), each ? target.sizes() : c10::IntArrayRef());
  return true;
}

bool multi_margin_loss_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 1), &target = tensor_at(a, 2);
  if (input.dim() != 2 || target.dim() != 1 || input.size(0) != target.size(0) || present(a[5])) return false;
  make.contiguous(input.scalar_type(), input.sizes());
  return true;
}

}  // namespace

void add_pointwise_rules(RuleTable& rules) {
  rules.insert({
      {"aten::relu", &relu},
      {"aten::abs.out", &abs_out},
      {"aten::isnan", &isnan},
      {"aten::logical_not.out", &logical_not_out},
      {"aten::logical_and.out", &logical_out},
      {"aten::logical_or.out", &logical_out},
      {"aten::logical_xor.out", &logical_out},
      {"aten::where.self", &where},
      {"aten::where.self_out", &where_out},
      {"aten::log_sigmoid_forward", &log_sigmoid_forward},
      {"aten::log_sigmoid_backward", &contiguous_backward},
      {"aten::glu_backward", &contiguous_backward},
      {"aten::hardswish", &unary},
      {"aten::hardtanh", &unary},
      {"aten::hardswish_backward", &unary_backward},
      {"aten::hardtanh_backward", &unary_backward},
      {"aten::mish_backward", &unary_backward},
      {"aten::nan_to_num.out", &nan_to_num_out},
      {"aten::complex.out", &complex_out},
      {"aten::polar.out", &complex_out},
      {"aten::_prelu_kernel", &prelu},
      {"aten::_prelu_kernel_backward", &prelu_backward},
      {"aten::rrelu_with_noise", &rrelu_with_noise},
      {"aten::native_dropout_backward", &native_dropout_backward},
      {"aten::huber_loss", &huber_loss},
      {"aten::huber_loss_backward.out", &loss_backward_out},
      {"aten::smooth_l1_loss_backward.grad_input", &loss_backward_out},
      {"aten::mse_loss_backward", &mse_loss_backward},
      {"aten::binary_cross_entropy", &binary_cross_entropy},
      {"aten::binary_cross_entropy_backward", &binary_cross_entropy_backward},
      {"aten::nll_loss2d_forward", &nll_loss2d_forward},
      {"aten::nll_loss2d_backward", &nll_loss2d_backward},
      {"aten::multi_margin_loss", &multi_margin_loss},
      {"aten::multi_margin_loss_backward", &multi_margin_loss_backward},
  });
}

}  // namespace waldo::torch_frontend
