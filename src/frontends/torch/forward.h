// How an operator becomes a call: one boxed kernel on the CUDA key for every operator that is not written by hand. (The
// commonest signatures have a typed one in front of it: typed_kernels.h.)
//
// Known plan: key, look up, take slots, record, make the outputs (bench/op_latency). No plan yet: Meta, or ask.
// Threads: any. No lock of ours is held while a Meta kernel runs (it may take the GIL).
#pragma once

#include <ATen/core/boxing/OperatorKernel.h>
#include <ATen/core/stack.h>

#include "frontends/torch/op_table.h"

namespace waldo::torch_frontend {

// Runs `op` on the worker: takes its arguments off the stack and puts its results on. Throws what CUDA would.
void forward(const Operator& op, torch::jit::Stack* stack);

// For kernels that take their arguments as they are: the same when the plan is guessed, and makes one new tensor, or
// writes the first argument and returns it. `arguments` need not own what they are. False: nothing was done.
bool forward_making_one(const Operator& op, const c10::IValue* arguments, at::Tensor* made);
bool forward_in_place(const Operator& op, const c10::IValue* arguments);

class ForwardKernel final : public c10::OperatorKernel {
 public:
  explicit ForwardKernel(const c10::OperatorHandle& handle) : op_(handle) {}
  void operator()(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack* stack) { forward(op_, stack); }

 private:
  const Operator op_;
};

// After every recorded call under CUDA_LAUNCH_BLOCKING=1.
bool launch_blocking();

}  // namespace waldo::torch_frontend
