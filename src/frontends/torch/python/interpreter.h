// What the client asks of the interpreter, and how our exceptions become Python's.
#pragma once

#include <Python.h>

namespace waldo::torch_frontend::python {

// Lends the interpreter to the client (client::Hooks) and to libwaldo_torch.so (PythonBridge). `lost_class` is raised
// when a device is lost; frames of files whose path starts with one of `skipped` are not the user's.
// Call once, with the interpreter's lock.
void lend_interpreter(PyObject* lost_class, PyObject* skipped);

}  // namespace waldo::torch_frontend::python
