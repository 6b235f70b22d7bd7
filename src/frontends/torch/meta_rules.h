// What the commonest operators make for which PyTorch has no C++ Meta kernel, as rules of our own: a loop whose shapes
// change at every step asks nothing (tests/torch/test_changing_shapes.py). A rule that is wrong in a layout costs one
// conform (the worker lays its output out as foretold, and the plan is asked for from then on); sizes must be right.
#pragma once

#include <ATen/core/ivalue.h>

#include <string_view>
#include <vector>

#include "frontends/torch/plan.h"
#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {

// Null when there is none for this operator ("aten::convolution").
Rule rule_for(std::string_view op);

// An in-place operator gives back what it was given: true, and `outputs` are its arguments, when the schema says that
// every output is an argument that is written and none of them is an out= argument, which could be resized.
bool outputs_are_arguments(const Operator& op, const c10::IValue* arguments, std::vector<OutputPlan>* outputs);

}  // namespace waldo::torch_frontend
