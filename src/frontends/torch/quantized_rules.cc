// What a quantized result is quantized with, where the call says so itself: then nothing waits for it. The worker
// checks it (quantized_one), so that a rule that is wrong is an error and no wrong value.
#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>

#include <string>
#include <unordered_set>

#include "frontends/torch/quantized.h"

namespace waldo::torch_frontend {
namespace {

// As the first tensor, which is quantized per tensor.
const std::unordered_set<std::string> kAsFirst = {
    "aten::relu",
    "aten::hardtanh",
    "aten::clamp",
    "aten::flip",
    "aten::index_select",
    "aten::quantized_max_pool1d",
    "aten::quantized_max_pool2d",
    "aten::quantized_max_pool3d",
    "aten::avg_pool2d",
    "aten::avg_pool3d",
    "aten::_adaptive_avg_pool2d",
    "aten::_adaptive_avg_pool3d",
    "aten::upsample_nearest2d",
    "aten::upsample_nearest3d",
    "aten::upsample_bilinear2d",
    "aten::reflection_pad2d",
    "aten::channel_shuffle",
    "quantized::relu6",
    "quantized::clamp",
    "quantized::max_pool1d",
    "quantized::max_pool2d",
};

// With the scale and zero point that are its last two arguments.
const std::unordered_set<std::string> kAsTold = {
    "quantized::add",
    "quantized::add_relu",
    "quantized::mul",
    "quantized::mul_relu",
    "quantized::matmul",
    "quantized::linear",
    "quantized::linear_relu",
    "quantized::conv1d",
    "quantized::conv1d_relu",
    "quantized::conv2d.new",
    "quantized::conv2d_relu.new",
    "quantized::conv3d.new",
    "quantized::conv3d_relu.new",
    "quantized::conv_transpose1d",
    "quantized::conv_transpose2d",
    "quantized::conv_transpose3d",
    "quantized::batch_norm2d",
    "quantized::batch_norm2d_relu",
    "quantized::hardswish",
    "quantized::sigmoid",
    "quantized::leaky_relu",
    "quantized::elu",
    "quantized::softmax",
};

// Floats.
const std::unordered_set<std::string> kPlain = {
    "aten::dequantize.self",          "quantized::linear_dynamic",           "quantized::linear_relu_dynamic",
    "quantized::linear_dynamic_fp16", "quantized::linear_relu_dynamic_fp16", "quantized::conv1d_dynamic",
    "quantized::conv2d_dynamic",      "quantized::conv3d_dynamic",
};

}  // namespace

std::optional<KnownResult> known_result(const Operator& op, const c10::IValue* arguments) {
  const std::string name = op.name();
  if (kPlain.contains(name)) return KnownResult{};
  const bool as_first = kAsFirst.contains(name);
  if ((!as_first && !kAsTold.contains(name)) || !arguments[0].isTensor()) return std::nullopt;
  const at::Tensor& first = arguments[0].toTensor();
  if (!first.is_quantized() || first.qscheme() != at::kPerTensorAffine || is_packed(first.scalar_type()))
    return std::nullopt;
  if (as_first) return KnownResult{first.q_scale(), first.q_zero_point(), first.scalar_type()};
  const size_t count = op.arguments.size();
  const c10::IValue &scale = arguments[count - 2], &zero_point = arguments[count - 1];
  if (!scale.isDouble() || !zero_point.isInt()) return std::nullopt;
  return KnownResult{scale.toDouble(), zero_point.toInt(), first.scalar_type()};
}

}  // namespace waldo::torch_frontend
