// ProcessGroupNCCL for Python; python/waldo/_torch/distributed.py puts it where torch.distributed looks for it.
#pragma once

#include <pybind11/pybind11.h>

namespace waldo::torch_frontend::python {

// Called when torch.distributed is imported: before, its own base classes are not known to Python.
void define_process_group(pybind11::module_& module);

}  // namespace waldo::torch_frontend::python
