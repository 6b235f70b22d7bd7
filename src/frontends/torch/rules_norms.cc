// Rules for batch and group norm and for the fused recurrent cells. Sizes of what batch norm keeps in evaluation are
// known of CPU workers only; everything else is asked.
#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

// Is every vector that is there as long as there are channels? Else it is an error, and the worker says it.
bool vectors_fit(std::initializer_list<c10::IValue> vectors, int64_t channels) {
  for (const c10::IValue& vector : vectors) {
    if (present(vector) && (vector.toTensor().dim() != 1 || vector.toTensor().numel() != channels)) return false;
  }
  return true;
}

bool in_plain_format(const at::Tensor& input) {
  return input.is_contiguous() || input.is_contiguous(at::MemoryFormat::ChannelsLast);
}

bool native_batch_norm(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  const bool training = a[5].toBool();
  if (input.dim() < 2 || input.numel() == 0 || !in_plain_format(input) || !input.is_floating_point()) return false;
  const int64_t channels = input.size(1);
  if (!vectors_fit({a[1], a[2], a[3], a[4]}, channels)) return false;
  if (!training && (!on_cpu_worker(input) || !present(a[3]) || !present(a[4]))) return false;
  const Sizes kept{training ? channels : 0};
  make.like(input);
  make.contiguous(statistics_dtype(input, a[1]), kept);
  make.contiguous(statistics_dtype(input, a[1]), kept);
  return true;
}

bool native_batch_norm_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &input = tensor_at(a, 1);
  const auto mask = a[9].toListRef();
  if (input.dim() < 2 || input.numel() == 0 || !in_plain_format(input) || grad.sizes() != input.sizes()) return false;
  if ((mask[1].toBool() || mask[2].toBool()) && !present(a[2])) return false;
  if (!vectors_fit({a[2], a[3], a[4]}, input.size(1))) return false;
  mask[0].toBool() ? make.like(input) : make.undefined();
  for (const size_t i : {1, 2}) {
    mask[i].toBool() ? make.contiguous(tensor_at(a, 2).scalar_type(), {input.size(1)}) : make.undefined();
  }
  return true;
}

// (input, weight, bias, n, channels, rest, groups, eps)
bool native_group_norm(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor& input = tensor_at(a, 0);
  const int64_t n = a[3].toInt(), channels = a[4].toInt(), rest = a[5].toInt(), groups = a[6].toInt();
  if (!input.is_contiguous() || input.numel() == 0 || input.numel() != n * channels * rest) return false;
  if (groups < 1 || channels % groups != 0 || !vectors_fit({a[1], a[2]}, channels)) return false;
  make.contiguous(input.scalar_type(), input.sizes());
  make.contiguous(statistics_dtype(input, a[1]), {n, groups});
  make.contiguous(statistics_dtype(input, a[1]), {n, groups});
  return true;
}

bool native_group_norm_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &input = tensor_at(a, 1);
  const auto mask = a[9].toListRef();
  if (!all_contiguous({grad, input}) || input.numel() == 0 || grad.sizes() != input.sizes()) return false;
  if ((mask[1].toBool() || mask[2].toBool()) && !present(a[4])) return false;
  mask[0].toBool() ? make.contiguous(input.scalar_type(), input.sizes()) : make.undefined();
  for (const size_t i : {1, 2}) {
    mask[i].toBool() ? make.contiguous(tensor_at(a, 4).scalar_type(), {a[6].toInt()}) : make.undefined();
  }
  return true;
}

// (input gates, hidden gates, state, …): `gates` times the state's width each.
bool cell_fits(const c10::IValue* a, int64_t gates) {
  const at::Tensor &input = tensor_at(a, 0), &hidden = tensor_at(a, 1), &state = tensor_at(a, 2);
  return state.dim() == 2 && input.dim() == 2 && input.sizes() == hidden.sizes() && input.size(0) == state.size(0) &&
         input.size(1) == gates * state.size(1) && all_contiguous({input, hidden, state}) &&
         input.scalar_type() == state.scalar_type() && vectors_fit({a[3], a[4]}, input.size(1));
}

bool lstm_cell(const c10::IValue* a, RuleOutputs& make) {
  if (!cell_fits(a, 4)) return false;
  make.like(tensor_at(a, 2));
  make.like(tensor_at(a, 2));
  make.like(tensor_at(a, 0));
  return true;
}

// (grad_hy, grad_cy, cx, cy, workspace, has_bias)
bool lstm_cell_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &state = tensor_at(a, 2), &workspace = tensor_at(a, 4);
  if ((!present(a[0]) && !present(a[1])) || !all_contiguous({state, workspace}) || workspace.dim() != 2) return false;
  make.like(workspace);
  make.like(state);
  a[5].toBool() ? make.contiguous(workspace.scalar_type(), {workspace.size(1)}) : make.undefined();
  return true;
}

bool gru_cell(const c10::IValue* a, RuleOutputs& make) {
  if (!cell_fits(a, 3)) return false;
  const at::Tensor& state = tensor_at(a, 2);
  make.like(state);
  make.contiguous(state.scalar_type(), {state.size(0), 5 * state.size(1)});
  return true;
}

// (grad_hy, workspace, has_bias)
bool gru_cell_backward(const c10::IValue* a, RuleOutputs& make) {
  const at::Tensor &grad = tensor_at(a, 0), &workspace = tensor_at(a, 1);
  if (!workspace.is_contiguous() || workspace.dim() != 2 || grad.dim() != 2) return false;
  if (workspace.size(0) != grad.size(0) || workspace.size(1) != 5 * grad.size(1)) return false;
  const auto dtype = workspace.scalar_type();
  const int64_t gates = 3 * grad.size(1);
  make.contiguous(dtype, {grad.size(0), gates});
  make.contiguous(dtype, {grad.size(0), gates});
  make.contiguous(dtype, grad.sizes());
  for (int i = 0; i < 2; ++i) a[2].toBool() ? make.contiguous(dtype, {gates}) : make.undefined();
  return true;
}

}  // namespace

void add_norm_rules(RuleTable& rules) {
  rules.insert({
      {"aten::native_batch_norm", &native_batch_norm},
      {"aten::native_batch_norm_backward", &native_batch_norm_backward},
      {"aten::native_group_norm", &native_group_norm},
      {"aten::native_group_norm_backward", &native_group_norm_backward},
      {"aten::_thnn_fused_lstm_cell", &lstm_cell},
      {"aten::_thnn_fused_lstm_cell_backward_impl", &lstm_cell_backward},
      {"aten::_thnn_fused_gru_cell", &gru_cell},
      {"aten::_thnn_fused_gru_cell_backward", &gru_cell_backward},
  });
}

}  // namespace waldo::torch_frontend
