#include "frontends/torch/kernels.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/addr.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/conj_physical.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/vdot.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Stream.h>

#include <limits>
#include <memory>
#include <vector>

#include "frontends/torch/attention.h"
#include "frontends/torch/device.h"
#include "frontends/torch/forward.h"
#include "frontends/torch/kernels_made_of.h"
#include "frontends/torch/op_table.h"
#include "frontends/torch/quantized.h"
#include "frontends/torch/register.h"
#include "frontends/torch/storage.h"
#include "frontends/torch/typed_kernels.h"

namespace waldo::torch_frontend {
namespace {

c10::Device far_device(std::optional<at::Device> device) {
  return {c10::DeviceType::CUDA, resolve_device(device ? device->index() : c10::DeviceIndex{-1})};
}

void check_options(std::optional<at::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK_NOT_IMPLEMENTED(!layout || *layout == at::kStrided, "only strided tensors exist on a Waldo device, not ",
                              *layout);
  TORCH_CHECK(!pin_memory || !*pin_memory, "Only dense CPU tensors can be pinned");
}

at::Tensor make(uint64_t bytes, at::ScalarType dtype, c10::Device device) {
  return at::Tensor(c10::make_intrusive<c10::TensorImpl>(create_storage(device.index(), bytes),
                                                         c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                                         c10::scalarTypeToTypeMeta(dtype)));
}

// What torch.use_deterministic_algorithms() promises of memory that nobody wrote.
void fill_if_deterministic(at::Tensor& tensor) {
  const auto& context = at::globalContext();
  if (!context.deterministicAlgorithms() || !context.deterministicFillUninitializedMemory()) [[likely]]
    return;
  const auto dtype = tensor.scalar_type();
  if (tensor.is_floating_point() || tensor.is_complex()) {
    tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  } else if (dtype == at::kBool) {
    tensor.fill_(true);
  } else {
    switch (dtype) {
      case at::kByte:
        tensor.fill_(std::numeric_limits<uint8_t>::max());
        break;
      case at::kChar:
        tensor.fill_(std::numeric_limits<int8_t>::max());
        break;
      case at::kShort:
        tensor.fill_(std::numeric_limits<int16_t>::max());
        break;
      case at::kInt:
        tensor.fill_(std::numeric_limits<int32_t>::max());
        break;
      case at::kLong:
        tensor.fill_(std::numeric_limits<int64_t>::max());
        break;
      default:
        break;
    }
  }
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                 std::optional<at::Device> device, std::optional<bool> pin_memory,
                 std::optional<at::MemoryFormat> memory_format) {
  check_options(layout, pin_memory);
  at::Tensor tensor = empty_far(size, c10::dtype_or_default(dtype), far_device(device));
  if (memory_format && *memory_format != at::MemoryFormat::Contiguous) {
    tensor.unsafeGetTensorImpl()->empty_tensor_restride(*memory_format);
  }
  fill_if_deterministic(tensor);
  return tensor;
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout> layout, std::optional<at::Device> device,
                         std::optional<bool> pin_memory) {
  check_options(layout, pin_memory);
  TORCH_CHECK(size.size() == stride.size(), "dimensionality of sizes (", size.size(),
              ") must match dimensionality of strides (", stride.size(), ")");
  at::detail::check_size_nonnegative(size);
  const auto type = c10::dtype_or_default(dtype);
  at::Tensor tensor =
      make(at::detail::computeStorageNbytes(size, stride, c10::elementSize(type)), type, far_device(device));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  fill_if_deterministic(tensor);
  return tensor;
}

at::Tensor efficient_zeros(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                           std::optional<at::Device> device, std::optional<bool> pin_memory) {
  return at::zeros(size, dtype, layout, far_device(device), pin_memory);
}

const at::Tensor& as_strided_in_place(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride,
                                      std::optional<int64_t> offset) {
  at::native::setStrided(self, size, stride, offset.value_or(self.storage_offset()));
  return self;
}

void grow_to_fit(c10::TensorImpl& impl) {
  if (impl.numel() == 0) return;
  auto* storage = impl.unsafe_storage().unsafeGetStorageImpl();
  const uint64_t bytes = at::detail::computeStorageNbytes(impl.sizes(), impl.strides(), impl.dtype().itemsize(),
                                                          static_cast<size_t>(impl.storage_offset()));
  if (bytes > storage->nbytes()) resize_storage(*storage, bytes);
}

const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> memory_format) {
  auto* impl = self.unsafeGetTensorImpl();
  if (impl->sizes() != size) {
    impl->set_sizes_contiguous(size);
    grow_to_fit(*impl);
  }
  if (memory_format) {
    TORCH_CHECK(*memory_format != at::MemoryFormat::Preserve, "Unsupported memory format", *memory_format);
    impl->empty_tensor_restride(*memory_format);
  }
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  at::native::checkSetStorage(self, source, offset, size, stride);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_offset(offset);
  if (stride.data() != nullptr) {
    impl->set_sizes_and_strides(size, stride, offset);
  } else {
    impl->set_sizes_contiguous(size);
  }
  grow_to_fit(*impl);
  return self;
}

at::Tensor& set_source_storage(at::Tensor& self, at::Storage source) {
  const auto elements = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage(self, std::move(source), 0, {elements}, {});
}

at::Tensor& set_nothing(at::Tensor& self) {
  return set_storage(self, create_storage(self.device().index(), 0), 0, {0}, {});
}

// The kernel of addr.out knows its in-place form by the address of its arguments, which do not travel.
at::Tensor& addr_in_place(at::Tensor& self, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
                          const at::Scalar& alpha) {
  TORCH_CHECK(self.dim() == 2, "2D tensor expected, got ", self.dim(), "D tensor for input");
  return at::addr_out(self, self, a, b, beta, alpha);
}

// PyTorch's composite calls a kernel of its own library, not the operator.
at::Tensor& conj_physical_in_place(at::Tensor& self) {
  return self.is_complex() ? at::conj_physical_out(self, self) : self;
}

at::Tensor forward_pair(const Operator& op, const at::Tensor& a, const at::Tensor& b) {
  torch::jit::Stack stack{a, b};
  forward(op, &stack);
  return std::move(stack.back()).toTensor();
}

// Lazily conjugated arguments choose between the two products, and the result may be lazy too, as in PyTorch's kernels.
at::Tensor dot(const at::Tensor& a, const at::Tensor& b) {
  static const auto* op = new Operator(c10::Dispatcher::singleton().findSchemaOrThrow("aten::dot", ""));
  if (a.is_complex() && a.is_conj()) return b.is_conj() ? at::dot(a.conj(), b.conj()).conj() : at::vdot(a.conj(), b);
  if (b.is_complex() && b.is_conj()) return at::vdot(b.conj(), a);
  return forward_pair(*op, a, b);
}
at::Tensor vdot(const at::Tensor& a, const at::Tensor& b) {
  static const auto* op = new Operator(c10::Dispatcher::singleton().findSchemaOrThrow("aten::vdot", ""));
  if (!a.is_complex()) return at::dot(a, b);
  if (a.is_conj()) return b.is_conj() ? at::vdot(b.conj(), a.conj()) : at::dot(a.conj(), b);
  if (b.is_conj()) return at::dot(a, b.conj()).conj();
  return forward_pair(*op, a, b);
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& target, bool non_blocking) {
  at::Tensor to = target;
  return copy_(to, self, non_blocking);
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& target) {
  at::Tensor to = target;
  to.resize_(self.sizes());
  return copy_(to, self, false);
}

void record_stream(at::Tensor&, c10::Stream) {}  // one queue per device: memory is never reused too early

// No cuDNN and no MIOpen here: composites take PyTorch's own CTC.
bool no_ctc(const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t) { return false; }
bool no_ctc_tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t) {
  return false;
}

}  // namespace

at::Tensor empty_far(at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device) {
  at::detail::check_size_nonnegative(sizes);
  at::Tensor tensor = make(at::detail::computeStorageNbytesContiguous(sizes, c10::elementSize(dtype)), dtype, device);
  if (sizes.size() != 1 || sizes[0] != 0) tensor.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return tensor;
}

void register_hand_kernels(torch::Library& library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("_efficientzerotensor", TORCH_FN(efficient_zeros));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("as_strided_", TORCH_FN(as_strided_in_place));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("unfold", TORCH_FN(at::native::unfold));
  library.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  library.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  library.impl("set_", TORCH_FN(set_nothing));
  library.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  library.impl("set_.source_Storage", TORCH_FN(set_source_storage));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  library.impl("is_set_to", TORCH_FN(at::native::is_set_to));
  library.impl("addr_", TORCH_FN(addr_in_place));
  library.impl("conj_physical_", TORCH_FN(conj_physical_in_place));
  library.impl("dot", TORCH_FN(dot));
  library.impl("vdot", TORCH_FN(vdot));
  library.impl("copy_", TORCH_FN(copy_));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  library.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("_use_cudnn_ctc_loss", TORCH_FN(no_ctc));
  library.impl("_use_cudnn_ctc_loss.Tensor", TORCH_FN(no_ctc_tensor));
  library.impl("_use_miopen_ctc_loss", TORCH_FN(no_ctc));
  library.impl("_use_miopen_ctc_loss.Tensor", TORCH_FN(no_ctc_tensor));
  library.impl("_fused_sdp_choice", TORCH_FN(attention_choice));
}

void register_kernels() {
  // Never unregistered: the library outlives everything.
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  for (const auto& handle : forwarded_operators()) {
    const auto& name = handle.operator_name();
    auto typed = make_typed_kernel(handle);
    library->impl((name.overload_name.empty() ? name.name : name.name + "." + name.overload_name).c_str(),
                  typed ? std::move(*typed)
                        : torch::CppFunction::makeFromBoxedKernel(
                              c10::BoxedKernel::makeFromFunctor(std::make_unique<ForwardKernel>(handle))));
  }
  register_hand_kernels(*library);
  register_made_of_kernels();
  register_sparse_kernels();
  register_nested_kernels();
  register_quantized_kernels();
  register_collective_operators();
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&attention_choice);
}

}  // namespace waldo::torch_frontend
