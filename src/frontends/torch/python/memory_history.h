// The allocation history for Python; python/waldo/_torch/memory_history.py makes of it what torch.cuda.memory gives.
#pragma once

#include <pybind11/pybind11.h>

namespace waldo::torch_frontend::python {

void define_memory_history(pybind11::module_& module);

}  // namespace waldo::torch_frontend::python
