#include "frontends/torch/python/process_group.h"

#include <pybind11/chrono.h>
#include <torch/csrc/utils/pybind.h>

#include "frontends/torch/process_group.h"

namespace py = pybind11;

namespace waldo::torch_frontend::python {

void define_process_group(py::module_& module) {
  using Group = ProcessGroupNCCL;
  using NoGil = py::call_guard<py::gil_scoped_release>;
  py::class_<Group, c10::intrusive_ptr<Group>, c10d::Backend> group(module, "ProcessGroupNCCL", py::dynamic_attr());
  py::class_<Group::Options, c10::intrusive_ptr<Group::Options>, c10d::Backend::Options>(group, "Options",
                                                                                         py::dynamic_attr())
      .def(py::init<bool>(), py::arg("is_high_priority_stream") = false)
      .def_readwrite("is_high_priority_stream", &Group::Options::is_high_priority_stream)
      .def_readwrite("split_from", &Group::Options::split_from)
      .def_readwrite("split_color", &Group::Options::split_color);
  group
      .def(py::init<c10::intrusive_ptr<c10d::Store>, int, int, c10::intrusive_ptr<Group::Options>>(), py::arg("store"),
           py::arg("rank"), py::arg("size"), py::arg("options"), NoGil())
      .def(py::init(
               [](const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout) {
                 auto options = c10::make_intrusive<Group::Options>();
                 options->timeout = timeout;
                 return c10::make_intrusive<Group>(store, rank, size, std::move(options));
               }),
           py::arg("store"), py::arg("rank"), py::arg("size"),
           py::arg("timeout") = std::chrono::milliseconds(10 * 60 * 1000), NoGil())
      .def_property_readonly("options", &Group::options)
      .def("_set_default_timeout", &Group::setTimeout, py::arg("timeout"), NoGil())
      .def("_is_initialized", &Group::initialized)
      .def("_leave", &Group::leave, py::arg("at_most"), NoGil())
      .def_property_readonly("uid", &Group::getSequenceNumberForGroup);
}

}  // namespace waldo::torch_frontend::python
