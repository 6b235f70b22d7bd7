// quantized_call and quantized_one of wire/own_operators.h: the text of a call is read, quantized tensors and packed
// weights are put together around what came with it, and PyTorch's own kernel runs.
//
// Threads: registered once, by the thread that makes the first backend; called by any queue's.
// Errors:  a text that says nothing, names no operator on quantized tensors, or parts that do not fit fail the call.
#pragma once

namespace waldo::torch_backend {

void register_quantized();

}  // namespace waldo::torch_backend
