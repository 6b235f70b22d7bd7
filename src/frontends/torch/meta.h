// What an operator will make. Told by a rule of ours for the commonest ones that need it (meta_rules.h), else by
// PyTorch's own C++ Meta kernels: the ones that were registered before `import torch` put Python in front of them
// (op_table.h); an in-place operator that has neither makes nothing. No GIL, no round trip.
#pragma once

#include <ATen/core/ivalue.h>

#include <optional>
#include <vector>

#include "frontends/torch/plan.h"

namespace waldo::torch_frontend {

struct Foretold {
  std::vector<OutputPlan> outputs;
  std::vector<Resize> resizes;  // not empty: do these first, `outputs` are of no use
};

// Nothing when Meta cannot tell: no such kernel, it failed (then the worker's error is the better one), or outputs that
// are not plain tensors. Holds no lock of ours; throws nothing.
std::optional<Foretold> foretell(const Operator& op, const c10::IValue* arguments, const CallKey& key);

}  // namespace waldo::torch_frontend
