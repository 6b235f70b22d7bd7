// What a rule (meta_rules.h) builds the outputs of a call with, and the small questions that rules ask of arguments.
//
// Threads: one call each; nothing is shared.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <initializer_list>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "frontends/torch/meta.h"

namespace waldo::torch_frontend {

using Sizes = c10::SmallVector<int64_t, 5>;

// Builds the outputs of one call; each new one takes the next created slot.
class RuleOutputs {
 public:
  explicit RuleOutputs(Foretold* told) : told_(*told) {}

  void contiguous(at::ScalarType dtype, c10::IntArrayRef sizes);
  void in_format(at::ScalarType dtype, c10::IntArrayRef sizes, at::MemoryFormat format);
  void like(const at::Tensor& tensor, at::ScalarType dtype);
  void like(const at::Tensor& tensor) { like(tensor, tensor.scalar_type()); }
  void strided(at::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides);  // without gaps
  void integer(int64_t value);
  void undefined() { told_.outputs.emplace_back(); }

  // As TensorIterator lays the result of these operands out. False when their sizes do not fit together, or
  // one has no elements.
  [[nodiscard]] bool pointwise(at::ScalarType dtype, std::initializer_list<at::Tensor> operands);

  // The next output is argument `place`, an out= tensor, which gets these sizes. False when it is of another dtype, or
  // has elements and would be resized: PyTorch warns of that.
  [[nodiscard]] bool into(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype, c10::IntArrayRef sizes);
  // The same, laid out as pointwise() does if it is resized.
  [[nodiscard]] bool pointwise_into(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype,
                                    std::initializer_list<at::Tensor> operands);

 private:
  void add(at::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides, bool is_contiguous);
  bool into_strided(const c10::IValue* arguments, uint16_t place, at::ScalarType dtype, c10::IntArrayRef sizes,
                    c10::IntArrayRef strides);

  Foretold& told_;
  uint16_t next_ = 0;
};

// False: this call is not simple enough for the rule.
using Rule = bool (*)(const c10::IValue* arguments, RuleOutputs& outputs);
using RuleTable = std::unordered_map<std::string_view, Rule>;

// The rules, by kind of operator: one file each.
void add_rules(RuleTable& rules);            // meta_rules.cc: indexing, convolution, layer norm, dropout
void add_pointwise_rules(RuleTable& rules);  // rules_pointwise.cc: element by element, and losses made of it
void add_norm_rules(RuleTable& rules);       // rules_norms.cc: batch and group norm, recurrent cells
void add_reduction_rules(RuleTable& rules);  // rules_reductions.cc: to one value, or along dimensions
void add_attention_rules(RuleTable& rules);  // rules_attention.cc: the fused forms of attention
void add_shape_rules(RuleTable& rules);      // rules_shapes.cc: rearranging, looking up, sampling, pictures, signals

inline const at::Tensor& tensor_at(const c10::IValue* arguments, size_t i) { return arguments[i].toTensor(); }
inline bool present(const c10::IValue& value) { return value.isTensor() && value.toTensor().defined(); }
inline bool all_contiguous(std::initializer_list<at::Tensor> tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.is_contiguous()) return false;
  }
  return true;
}

// Dense and in the order of a memory format: what empty_like() keeps as it is.
inline bool plain(const at::Tensor& tensor) { return tensor.is_non_overlapping_and_dense(); }
inline at::MemoryFormat format_of(const at::Tensor& tensor) { return tensor.suggest_memory_format(); }

// Which of `dim` dimensions a list names; all when it is empty or absent. False when one is named twice or is none.
bool named_dimensions(const c10::IValue& dims, int64_t dim, std::vector<bool>* chosen);

// Runs the device of this tensor on a CPU? CUDA then makes some outputs that the CPU leaves empty, and the reverse.
bool on_cpu_worker(const at::Tensor& tensor);

// What the statistics of a norm are kept in: CUDA in float for the small types, the CPU only beside float weights.
at::ScalarType statistics_dtype(const at::Tensor& input, const c10::IValue& weight);

}  // namespace waldo::torch_frontend
