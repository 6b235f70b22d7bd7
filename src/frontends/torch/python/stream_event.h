// torch._C._CudaStreamBase and torch._C._CudaEventBase: C types over torch.Stream and torch.Event, which do the work
// through our guard. They must be C types: torch.Event refuses a Python-derived one in elapsed_time().
#pragma once

#include <Python.h>

namespace waldo::torch_frontend::python {

PyObject* make_stream_type();  // new references; null with a Python error set
PyObject* make_event_type();

}  // namespace waldo::torch_frontend::python
