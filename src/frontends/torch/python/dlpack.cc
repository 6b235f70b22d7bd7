#include "frontends/torch/python/dlpack.h"

#include <ATen/DLConvertor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/python_variable.h>

namespace waldo::torch_frontend::python {
namespace {

namespace py = pybind11;

// PyTorch's own exports, known by their deleter, begin with the tensor that they keep (at::ATenDLMTensor).
template <typename Managed>
const at::Tensor& exported_by_torch(const Managed& managed, Managed* (*export_one)(const at::Tensor&)) {
  static const auto torchs_deleter = [&] {
    Managed* sample = export_one(at::empty({0}));
    const auto deleter = sample->deleter;
    deleter(sample);
    return deleter;
  }();
  TORCH_CHECK_NOT_IMPLEMENTED(managed.deleter == torchs_deleter,
                              "from_dlpack of another library's CUDA memory is not available on a Waldo device: "
                              "device memory is on the worker");
  return *static_cast<const at::Tensor*>(managed.manager_ctx);
}

template <typename Managed>
py::object taken(const py::object& capsule, const char* name, const char* used,
                 Managed* (*export_one)(const at::Tensor&)) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (managed == nullptr) throw py::error_already_set();
  if (managed->dl_tensor.device.device_type != DLDeviceType::kDLCUDA) return py::none();
  const at::Tensor same = exported_by_torch(*managed, export_one).detach();
  PyCapsule_SetName(capsule.ptr(), used);
  managed->deleter(managed);
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(same));
}

}  // namespace

py::object from_dlpack(const py::object& capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    return taken<DLManagedTensor>(capsule, "dltensor", "used_dltensor", at::toDLPack);
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    return taken<DLManagedTensorVersioned>(capsule, "dltensor_versioned", "used_dltensor_versioned",
                                           at::toDLPackVersioned);
  }
  return py::none();  // PyTorch says what is wrong with it
}

}  // namespace waldo::torch_frontend::python
