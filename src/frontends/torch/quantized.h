// Quantized tensors on a device of ours: PyTorch's own QTensorImpl over a far storage that holds the integers, and its
// own quantizer, whose scale and zero point stay here (scales by channel are tensors, wherever they were). What looks
// at sizes and quantizers only is PyTorch's function for every device. Any other operator travels as the integers and
// a text that says how they are meant (wire/own_operators.h); what comes back is told with its quantizer, for which the
// call waits unless it is known before (quantized_rules.cc).
//
// Owns:    what was uploaded of each object of packed weights, for as long as that lives.
// Threads: any.
// Errors:  as PyTorch's on the CPU; what cannot be sent, "is not available on a Waldo device".
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <ATen/quantized/Quantizer.h>

#include <cstdint>
#include <optional>

#include "frontends/torch/op_table.h"

namespace waldo::torch_frontend {

// The integers of a quantized tensor, over the same storage: of its sizes and strides, or bytes in a row where a byte
// holds several elements.
at::Tensor integers_of(const at::Tensor& quantized);
// And back. `integers` keeps its sizes and strides.
at::Tensor quantized_over(const at::Tensor& integers, at::ScalarType dtype, at::QuantizerPtr quantizer);

// Several elements to a byte.
inline bool is_packed(at::ScalarType dtype) { return dtype == at::kQUInt4x2 || dtype == at::kQUInt2x4; }

// What the only result of a call will be quantized with.
inline constexpr double kByChannel = -1;  // as a scale: by channel, along axis `zero_point`
struct KnownResult {
  double scale = 0;  // 0: a plain tensor
  int64_t zero_point = 0;
  at::ScalarType dtype = at::kQUInt8;
};

// Runs `op` on the worker: takes its arguments off the stack and puts its results on.
void call_quantized(const Operator& op, torch::jit::Stack* stack);
// The same for an operator whose only result is told before; gives the integers, or a plain tensor.
at::Tensor call_known(const Operator& op, const torch::jit::Stack& arguments, const KnownResult& known);

// Nothing when it is not known before, quantized_rules.cc.
std::optional<KnownResult> known_result(const Operator& op, const c10::IValue* arguments);

void register_quantized_kernels();

}  // namespace waldo::torch_frontend
