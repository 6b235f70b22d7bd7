// Rules for what rearranges or looks up, and for what draws random numbers: contiguous results whose sizes follow from
// the arguments. What a rule has not checked is an error of the call, and stays with the worker.
#include <algorithm>

#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

// Writes its arguments and gives nothing back.
bool nothing(const c10::IValue*, RuleOutputs&) { return true; }

bool contiguous_copy(const c10::IValue* a, RuleOutputs& make) {
  make.contiguous(tensor_at(a, 0).scalar_type(), tensor_at(a, 0).sizes());
  return true;
}

// (self, dim)
bool copied_along(const c10::IValue* a, RuleOutputs& make) {
  const int64_t dims = std::max<int64_t>(tensor_at(a, 0).dim(), 1), dim = a[1].toInt();
  return dim >= -dims && dim < dims && contiguous_copy(a, make);
}

bool drawn(const c10::IValue* a, RuleOutputs& make) {
  return tensor_at(a, 0).is_floating_point() && contiguous_copy(a, make);
}

bool histc(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  if (!self.is_floating_point() || a[1].toInt() < 1) return false;
  make.contiguous(self.scalar_type(), {a[1].toInt()});
  return true;
}

bool flip(const c10::IValue* a, RuleOutputs& make) {
  std::vector<bool> chosen;
  if (tensor_at(a, 0).numel() == 0 || !plain(tensor_at(a, 0)) ||
      !named_dimensions(a[1], tensor_at(a, 0).dim(), &chosen))
    return false;
  make.like(tensor_at(a, 0));
  return true;
}

bool roll(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  std::vector<bool> chosen;
  const size_t shifts = a[1].toListRef().size(), dims = a[2].toListRef().size();
  if (!self.is_contiguous() || self.numel() == 0 || shifts == 0 || (dims != shifts && (dims != 0 || shifts != 1)) ||
      !named_dimensions(a[2], self.dim(), &chosen)) {
    return false;
  }
  return contiguous_copy(a, make);
}

// How many elements lie on and below the diagonal.
int64_t lower(int64_t rows, int64_t columns, int64_t offset) {
  int64_t count = 0;
  for (int64_t row = 0; row < rows; ++row) count += std::clamp<int64_t>(row + offset + 1, 0, columns);
  return count;
}

template <bool kLower>
bool triangle(const c10::IValue* a, RuleOutputs& make) {
  const int64_t rows = a[0].toInt(), columns = a[1].toInt(), offset = a[2].toInt();
  if (rows < 0 || columns < 0 || rows > 100'000) return false;
  const int64_t count = kLower ? lower(rows, columns, offset) : rows * columns - lower(rows, columns, offset - 1);
  make.contiguous(a[3].isNone() ? at::kLong : a[3].toScalarType(), {2, count});
  return true;
}

bool unfold_backward(const c10::IValue* a, RuleOutputs& make) {
  make.contiguous(tensor_at(a, 0).scalar_type(), a[1].toIntVector());
  return true;
}

bool randperm_out(const c10::IValue* a, RuleOutputs& make) {
  return a[0].toInt() >= 0 && make.into(a, 2, tensor_at(a, 2).scalar_type(), {a[0].toInt()});
}

bool multinomial(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const int64_t dim = self.dim(), count = a[1].toInt();
  if (dim < 1 || dim > 2 || count < 1 || !self.is_floating_point() || self.numel() == 0) return false;
  if (!a[2].toBool() && count > self.size(-1)) return false;
  Sizes sizes;
  if (dim == 2) sizes.push_back(self.size(0));
  sizes.push_back(count);
  make.contiguous(at::kLong, sizes);
  return true;
}

// Where the values of the second tensor lie among those of the first.
template <size_t kValues, size_t kInt32>
bool searched(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &values = tensor_at(a, kValues), &sorted = tensor_at(a, 1 - kValues);
  if (sorted.scalar_type() != values.scalar_type() || sorted.dim() != 1) return false;
  make.contiguous(a[kInt32].toBool() ? at::kInt : at::kLong, values.sizes());
  return true;
}

bool take(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& index = tensor_at(a, 1);
  if (index.scalar_type() != at::kLong || !index.is_contiguous() || tensor_at(a, 0).numel() == 0) return false;
  make.contiguous(tensor_at(a, 0).scalar_type(), index.sizes());
  return true;
}

bool dot(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &one = tensor_at(a, 0), &two = tensor_at(a, 1);
  if (one.dim() != 1 || two.dim() != 1 || one.numel() != two.numel() || one.scalar_type() != two.scalar_type()) {
    return false;
  }
  make.contiguous(one.scalar_type(), {});
  return true;
}

// (log_probs (time, n, classes), targets, input_lengths, target_lengths, …)
bool ctc_loss(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  if (input.dim() != 3 || !a[3].isIntList() || a[3].toIntVector().empty()) return false;
  const auto lengths = a[3].toIntVector();
  if (static_cast<int64_t>(lengths.size()) != input.size(1) || a[2].toIntVector().size() != lengths.size())
    return false;
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (longest < 1 || *std::min_element(lengths.begin(), lengths.end()) < 0) return false;
  make.contiguous(input.scalar_type(), {input.size(1)});
  make.contiguous(input.scalar_type(), {input.size(1), input.size(0), 2 * longest + 1});
  return true;
}

bool ctc_loss_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 1);
  if (input.dim() != 3) return false;
  make.contiguous(input.scalar_type(), input.sizes());
  return true;
}

bool adaptive_avg_pool2d(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const auto size = a[1].toIntVector();
  if ((self.dim() != 3 && self.dim() != 4) || self.numel() == 0 || !self.is_contiguous() || size.size() != 2) {
    return false;
  }
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  std::copy(size.begin(), size.end(), sizes.end() - 2);
  make.in_format(self.scalar_type(), sizes, self.dim() == 4 ? format_of(self) : at::MemoryFormat::Contiguous);
  return true;
}

bool adaptive_avg_pool2d_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 1);
  if (!self.is_contiguous() || !tensor_at(a, 0).is_contiguous() || tensor_at(a, 0).numel() == 0) return false;
  make.in_format(self.scalar_type(), self.sizes(), self.dim() == 4 ? format_of(self) : at::MemoryFormat::Contiguous);
  return true;
}

bool grid_sampler_2d(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 0), &grid = tensor_at(a, 1);
  if (input.dim() != 4 || grid.dim() != 4 || input.size(0) != grid.size(0) || grid.size(3) != 2) return false;
  if (input.numel() == 0 || input.scalar_type() != grid.scalar_type() || !all_contiguous({input, grid})) return false;
  make.contiguous(input.scalar_type(), {input.size(0), input.size(1), grid.size(1), grid.size(2)});
  return true;
}

// (grad, input, grid, …, mask)
bool grid_sampler_2d_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &input = tensor_at(a, 1), &grid = tensor_at(a, 2);
  if (input.numel() == 0) return false;
  a[6].toListRef()[0].toBool() ? make.contiguous(input.scalar_type(), input.sizes()) : make.undefined();
  make.contiguous(grid.scalar_type(), grid.sizes());
  return true;
}

// (self, kernel, dilation, padding, stride)
bool im2col(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const auto kernel = a[1].toIntVector(), dilation = a[2].toIntVector(), padding = a[3].toIntVector(),
             stride = a[4].toIntVector();
  if (self.dim() != 4 || self.numel() == 0 || kernel.size() != 2) return false;
  int64_t blocks = 1;
  for (size_t i = 0; i < 2; ++i) {
    const int64_t room = self.size(static_cast<int64_t>(i) + 2) + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1;
    if (room < 0 || stride[i] < 1 || kernel[i] < 1 || dilation[i] < 1 || padding[i] < 0) return false;
    blocks *= room / stride[i] + 1;
  }
  make.contiguous(self.scalar_type(), {self.size(0), self.size(1) * kernel[0] * kernel[1], blocks});
  return true;
}

// (self (n, channels * kernel, blocks), output_size, kernel, …)
bool col2im(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& self = tensor_at(a, 0);
  const auto size = a[1].toIntVector(), kernel = a[2].toIntVector();
  if (self.dim() != 3 || self.numel() == 0 || size.size() != 2 || kernel.size() != 2) return false;
  const int64_t area = kernel[0] * kernel[1];
  if (area < 1 || self.size(1) % area != 0) return false;
  make.contiguous(self.scalar_type(), {self.size(0), self.size(1) / area, size[0], size[1]});
  return true;
}

bool embedding_bag_dense_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& grad = tensor_at(a, 0);
  if (grad.dim() != 2) return false;
  make.contiguous(grad.scalar_type(), {a[5].toInt(), grad.size(1)});
  return true;
}

bool cdist_forward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &one = tensor_at(a, 0), &two = tensor_at(a, 1);
  if (one.dim() != two.dim() || one.dim() < 2 || one.size(-1) != two.size(-1) || one.scalar_type() != two.scalar_type())
    return false;
  if (one.sizes().slice(0, static_cast<size_t>(one.dim()) - 2) !=
      two.sizes().slice(0, static_cast<size_t>(two.dim()) - 2)) {
    return false;
  }
  Sizes sizes(one.sizes().begin(), one.sizes().end());
  sizes.back() = two.size(-2);
  make.contiguous(one.scalar_type(), sizes);
  return true;
}

// (grad, x1, x2, p, distances)
bool cdist_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &one = tensor_at(a, 1), &two = tensor_at(a, 2);
  if (one.dim() != two.dim() || one.dim() != 2 || one.numel() == 0 || two.numel() == 0) return false;
  make.contiguous(one.scalar_type(), one.sizes());
  return true;
}

// Along the last dimension of a contiguous tensor; others come out in a layout of the library's own.
bool fft_plain(const c10::IValue* a) {
  const at::Tensor& self = tensor_at(a, 0);
  const auto dims = a[1].toIntVector();
  if (!self.is_contiguous() || self.numel() == 0 || dims.size() != 1 || self.is_conj()) return false;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (self.size(i) == 1) return false;
  }
  return (dims[0] < 0 ? dims[0] + self.dim() : dims[0]) == self.dim() - 1;
}

template <at::ScalarType (*kDtype)(at::ScalarType)>
bool fft(const c10::IValue* a, RuleOutputs& make, int64_t last) {
  const at::Tensor& self = tensor_at(a, 0);
  if (!fft_plain(a) || last < 1) return false;
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes.back() = last;
  make.contiguous(kDtype(self.scalar_type()), sizes);
  return true;
}

bool fft_r2c(const c10::IValue* a, RuleOutputs& make) {
  const auto dtype = tensor_at(a, 0).scalar_type();
  if (dtype != at::kFloat && dtype != at::kDouble) return false;
  const int64_t size = tensor_at(a, 0).dim() == 0 ? 0 : tensor_at(a, 0).size(-1);
  return fft<&c10::toComplexType>(a, make, a[3].toBool() ? size / 2 + 1 : size);
}

bool fft_c2c(const c10::IValue* a, RuleOutputs& make) {
  if (!tensor_at(a, 0).is_complex() || tensor_at(a, 0).dim() == 0) return false;
  return fft<&c10::toComplexType>(a, make, tensor_at(a, 0).size(-1));
}

bool fft_c2r(const c10::IValue* a, RuleOutputs& make) {
  return tensor_at(a, 0).is_complex() && fft<&c10::toRealValueType>(a, make, a[3].toInt());
}

// (weight, indices, offsets, …, mode, sparse, per-sample weights, include last offset, padding). As libtorch's CPU
// makes what only the backward reads; CUDA makes other sizes.
bool embedding_bag(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &weight = tensor_at(a, 0), &indices = tensor_at(a, 1), &offsets = tensor_at(a, 2);
  if (!on_cpu_worker(weight) || weight.scalar_type() != at::kFloat || weight.dim() != 2) return false;
  if (!all_contiguous({weight, indices, offsets}) || indices.dim() != 1 || offsets.dim() != 1) return false;
  if (indices.scalar_type() != offsets.scalar_type() || indices.numel() == 0) return false;
  const int64_t bags = offsets.numel() - (a[7].toBool() ? 1 : 0), mode = a[4].toInt();
  if (bags < 1) return false;
  const bool summed_at_once = mode == 0 && a[8].toInt() < 0;
  make.contiguous(weight.scalar_type(), {bags, weight.size(1)});
  make.contiguous(indices.scalar_type(), {summed_at_once ? 0 : indices.numel()});
  make.contiguous(offsets.scalar_type(), {bags});
  if (mode == 2) {
    make.contiguous(offsets.scalar_type(), {bags, weight.size(1)});
  } else {
    make.contiguous(offsets.scalar_type(), {bags});
  }
  return true;
}

bool transformer_encoder_layer(const c10::IValue* a, RuleOutputs& make) {
  return tensor_at(a, 0).is_contiguous() && tensor_at(a, 0).dim() == 3 && contiguous_copy(a, make);
}

}  // namespace

void add_shape_rules(RuleTable& rules) {
  rules.insert({
      {"aten::_cummax_helper", &nothing},
      {"aten::_cummin_helper", &nothing},
      {"aten::_logcumsumexp", &copied_along},
      {"aten::histc", &histc},
      {"aten::flip", &flip},
      {"aten::roll", &roll},
      {"aten::tril_indices", &triangle<true>},
      {"aten::triu_indices", &triangle<false>},
      {"aten::unfold_backward", &unfold_backward},
      {"aten::randperm.generator_out", &randperm_out},
      {"aten::multinomial", &multinomial},
      {"aten::poisson", &drawn},
      {"aten::_standard_gamma", &drawn},
      {"aten::_sample_dirichlet", &drawn},
      {"aten::bucketize.Tensor", &searched<0, 2>},
      {"aten::searchsorted.Tensor", &searched<1, 2>},
      {"aten::take", &take},
      {"aten::dot", &dot},
      {"aten::vdot", &dot},
      {"aten::_ctc_loss", &ctc_loss},
      {"aten::_ctc_loss_backward", &ctc_loss_backward},
      {"aten::_adaptive_avg_pool2d", &adaptive_avg_pool2d},
      {"aten::_adaptive_avg_pool2d_backward", &adaptive_avg_pool2d_backward},
      {"aten::grid_sampler_2d", &grid_sampler_2d},
      {"aten::grid_sampler_2d_backward", &grid_sampler_2d_backward},
      {"aten::im2col", &im2col},
      {"aten::col2im", &col2im},
      {"aten::_embedding_bag", &embedding_bag},
      {"aten::_embedding_bag_dense_backward", &embedding_bag_dense_backward},
      {"aten::_cdist_forward", &cdist_forward},
      {"aten::_cdist_backward", &cdist_backward},
      {"aten::_fft_r2c", &fft_r2c},
      {"aten::_fft_c2c", &fft_c2c},
      {"aten::_fft_c2r", &fft_c2r},
      {"aten::_transformer_encoder_layer_fwd", &transformer_encoder_layer},
  });
}

}  // namespace waldo::torch_frontend
