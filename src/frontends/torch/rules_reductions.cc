// Rules for what reduces a tensor to one value or along dimensions: contiguous results. What a rule has not checked is
// an error of the call, and stays with the worker.
#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

bool one_value(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  if (self.numel() == 0 || self.is_complex()) return false;
  make.contiguous(self.scalar_type(), {});
  return true;
}

bool prod(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const auto own = at::isIntegralType(self.scalar_type(), true) ? at::kLong : self.scalar_type();
  make.contiguous(a[1].isNone() ? own : a[1].toScalarType(), {});
  return true;
}

bool reduced(const at::Tensor& self, const c10::IValue& dims, bool keep, Sizes* sizes) {
  std::vector<bool> chosen;
  if (!named_dimensions(dims, self.dim(), &chosen)) return false;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (!chosen[i]) {
      sizes->push_back(self.size(static_cast<int64_t>(i)));
    } else if (keep) {
      sizes->push_back(1);
    }
  }
  return true;
}

bool nansum(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  Sizes sizes;
  if (self.is_complex() || !reduced(self, a[1], a[2].toBool(), &sizes)) return false;
  const auto own = at::isIntegralType(self.scalar_type(), true) ? at::kLong : self.scalar_type();
  make.contiguous(a[3].isNone() ? own : a[3].toScalarType(), sizes);
  return true;
}

// var and std, and those that give the mean too.
template <int kOutputs>
bool moments(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  Sizes sizes;
  if (!self.is_floating_point() || !reduced(self, a[1], a[3].toBool(), &sizes)) return false;
  for (int i = 0; i < kOutputs; ++i) make.contiguous(self.scalar_type(), sizes);
  return true;
}

bool count_nonzero(const c10::IValue* a, RuleOutputs& make) {
  Sizes sizes;
  if (!reduced(tensor_at(a, 0), a[1], false, &sizes)) return false;
  make.contiguous(at::kLong, sizes);
  return true;
}

// One dimension reduced to a value and where it was found; the sizes only.
bool found_along(const at::Tensor& self, const c10::IValue& dim, bool keep, Sizes* sizes) {
  if (self.numel() == 0 || self.dim() == 0 || self.is_complex()) return false;
  return reduced(self, c10::IValue(std::vector<int64_t>{dim.toInt()}), keep, sizes);
}

bool median_out(const c10::IValue* a, RuleOutputs& make) {
  Sizes sizes;
  return found_along(tensor_at(a, 0), a[1], a[2].toBool(), &sizes) &&
         make.into(a, 3, tensor_at(a, 0).scalar_type(), sizes) && make.into(a, 4, at::kLong, sizes);
}

bool mode(const c10::IValue* a, RuleOutputs& make) {
  Sizes sizes;
  if (!found_along(tensor_at(a, 0), a[1], a[2].toBool(), &sizes)) return false;
  make.contiguous(tensor_at(a, 0).scalar_type(), sizes);
  make.contiguous(at::kLong, sizes);
  return true;
}

bool kthvalue_out(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  Sizes sizes;
  if (!found_along(self, a[2], a[3].toBool(), &sizes)) return false;
  if (a[1].toInt() < 1 || a[1].toInt() > self.size(a[2].toInt())) return false;
  return make.into(a, 4, self.scalar_type(), sizes) && make.into(a, 5, at::kLong, sizes);
}

}  // namespace

void add_reduction_rules(RuleTable& rules) {
  rules.insert({
      {"aten::max", &one_value},
      {"aten::min", &one_value},
      {"aten::median", &one_value},
      {"aten::nanmedian", &one_value},
      {"aten::prod", &prod},
      {"aten::nansum", &nansum},
      {"aten::var.correction", &moments<1>},
      {"aten::std.correction", &moments<1>},
      {"aten::var_mean.correction", &moments<2>},
      {"aten::std_mean.correction", &moments<2>},
      {"aten::count_nonzero.dim_IntList", &count_nonzero},
      {"aten::median.dim_values", &median_out},
      {"aten::nanmedian.dim_values", &median_out},
      {"aten::mode", &mode},
      {"aten::kthvalue.values", &kthvalue_out},
  });
}

}  // namespace waldo::torch_frontend
