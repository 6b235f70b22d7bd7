// Tensors of ours that went out through DLPack and come back. PyTorch would make a storage of another kind around their
// address, which only our own storages can name to a worker.
#pragma once

#include <pybind11/pybind11.h>

namespace waldo::torch_frontend::python {

// What torch._C._from_dlpack gives, for a capsule of a tensor on `cuda`; the capsule is used up. None for any other
// device. Throws NotImplementedError when the memory is not PyTorch's in this process: nobody else has any of a Waldo
// device.
pybind11::object from_dlpack(const pybind11::object& capsule);

}  // namespace waldo::torch_frontend::python
