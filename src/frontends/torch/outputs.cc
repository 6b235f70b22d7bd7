#include "frontends/torch/outputs.h"

#include <c10/core/InferenceMode.h>

namespace waldo::torch_frontend {
namespace {

template <typename Impl>
void set_shape(Impl& impl, const OutputPlan& plan) {
  if (plan.contiguous && plan.offset == 0) {
    impl.set_sizes_contiguous(plan.sizes);
  } else {
    impl.set_sizes_and_strides(plan.sizes, plan.strides, plan.offset);
  }
}

}  // namespace

at::Tensor make_tensor_slow(c10::Storage&& storage, const OutputPlan& plan) {
  auto impl = c10::make_intrusive<FarTensorImpl>(std::move(storage), c10::scalarTypeToTypeMeta(plan.dtype));
  set_shape(*impl, plan);
  if (plan.conj) impl->_set_conj(true);
  if (plan.neg) impl->_set_neg(true);
  return at::Tensor(std::move(impl));
}

void make_prototypes(std::vector<OutputPlan>& outputs, c10::DeviceIndex device) {
  using Kind = wire::OutputKind;
  for (OutputPlan& output : outputs) {
    make_prototypes(output.list, device);
    const bool tensor = output.kind == Kind::kNew || output.kind == Kind::kCpuNew || output.kind == Kind::kViewOf;
    if (!tensor || output.conj || output.neg) continue;
    const c10::InferenceMode normal(false);
    output.prototype = c10::make_intrusive<FarTensorImpl>(c10::scalarTypeToTypeMeta(output.dtype), device);
    set_shape(*output.prototype, output);
  }
}

size_t collect_create_bytes(const std::vector<OutputPlan>& outputs, std::vector<uint64_t>* bytes) {
  size_t count = 0;
  for (const auto& output : outputs) {
    if (output.kind == wire::OutputKind::kNew || output.kind == wire::OutputKind::kCpuNew) {
      if (bytes->size() <= output.slot) bytes->resize(output.slot + 1u, 0);
      (*bytes)[output.slot] = output.storage_bytes;
      ++count;
    }
    count += collect_create_bytes(output.list, bytes);
  }
  return count;
}

}  // namespace waldo::torch_frontend
