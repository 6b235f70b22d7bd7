#include "frontends/torch/python/graph.h"

#include <torch/csrc/autograd/python_variable.h>

#include "frontends/torch/graph.h"

namespace py = pybind11;

namespace waldo::torch_frontend::python {
namespace {

// None of Python's own types but these, and no subclass of a tensor but Parameter, whose keys are a tensor's.
bool to_value(PyObject* object, c10::IValue* value) {
  if (THPVariable_Check(object)) {
    *value = THPVariable_Unpack(object);
  } else if (object == Py_None) {
    *value = c10::IValue();
  } else if (PyBool_Check(object)) {
    *value = object == Py_True;
  } else if (PyLong_CheckExact(object)) {
    int overflow = 0;
    *value = static_cast<int64_t>(PyLong_AsLongLongAndOverflow(object, &overflow));
    return overflow == 0;
  } else if (PyFloat_CheckExact(object)) {
    *value = PyFloat_AS_DOUBLE(object);
  } else {
    return false;
  }
  return true;
}

// False: something else is among them.
bool to_values(const py::sequence& objects, Graph::Values* values) {
  const py::object fast = py::reinterpret_steal<py::object>(PySequence_Fast(objects.ptr(), "not a sequence"));
  if (!fast) throw py::error_already_set();
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
  values->resize(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!to_value(PySequence_Fast_GET_ITEM(fast.ptr(), i), &(*values)[static_cast<size_t>(i)])) return false;
  }
  return true;
}

py::object to_object(const c10::IValue& value) {
  if (value.isTensor()) {
    PyObject* wrapped = THPVariable_Wrap(value.toTensor());
    if (wrapped == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(wrapped);
  }
  if (value.isBool()) return py::bool_(value.toBool());
  if (value.isInt()) return py::int_(value.toInt());
  if (value.isDouble()) return py::float_(value.toDouble());
  return py::none();
}

}  // namespace

void define_graph(py::module_& module) {
  py::class_<Graph>(module, "Graph")
      .def(py::init<>())
      .def("run",
           [](Graph& graph, const py::sequence& arguments) -> py::object {
             Graph::Values values, outputs;
             if (!to_values(arguments, &values) || !graph.run(values, &outputs)) return py::none();
             py::tuple results(outputs.size());
             for (size_t i = 0; i < outputs.size(); ++i) results[i] = to_object(outputs[i]);
             return results;
           })
      .def("begin",
           [](Graph& graph, const py::sequence& arguments) {
             Graph::Values values;
             return to_values(arguments, &values) && graph.begin(values);
           })
      .def("end",
           [](Graph& graph, const py::sequence& results) -> py::object {
             Graph::Values values;
             if (!to_values(results, &values)) {
               graph.abandon();
               return py::str("gives back something else than tensors and numbers");
             }
             const char* why = graph.end(values);
             return why == nullptr ? py::object(py::none()) : py::object(py::str(why));
           })
      .def("abandon", &Graph::abandon)
      .def("__len__", &Graph::size);
}

}  // namespace waldo::torch_frontend::python
