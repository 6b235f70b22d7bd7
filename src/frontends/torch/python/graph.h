// Graph (frontends/torch/graph.h) for Python, as waldo._torch.compiling uses it.
#pragma once

#include <pybind11/pybind11.h>

namespace waldo::torch_frontend::python {

void define_graph(pybind11::module_& module);

}  // namespace waldo::torch_frontend::python
