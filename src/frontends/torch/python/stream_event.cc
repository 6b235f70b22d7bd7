#include "frontends/torch/python/stream_event.h"

#include <c10/core/Event.h>
#include <torch/csrc/Event.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/Stream.h>

#include <new>

#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/streams.h"

namespace waldo::torch_frontend::python {
namespace {

// --- streams
// -----------------------------------------------------------------------------------------------------------

PyObject* stream_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  int priority = 0;
  long long stream_id = 0, device_index = 0, device_type = 0;
  unsigned long long stream_ptr = 0;
  static const char* const kNames[] = {"priority", "stream_id", "device_index", "device_type", "stream_ptr", nullptr};
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "|iLLLK", const_cast<char**>(kNames), &priority, &stream_id,
                                  &device_index, &device_type, &stream_ptr) == 0) {
    return nullptr;
  }
  c10::Stream stream = default_stream(-1);
  if (stream_id != 0 || device_index != 0 || device_type != 0) {
    stream = c10::Stream::unpack3(stream_id, static_cast<c10::DeviceIndex>(device_index),
                                  static_cast<c10::DeviceType>(device_type));
  } else if (stream_ptr != 0) {
    stream = c10::Stream(c10::Stream::UNSAFE, stream.device(), static_cast<c10::StreamId>(stream_ptr));
  } else {
    stream = pool_stream(-1, priority);
  }
  auto* self = reinterpret_cast<THPStream*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  self->stream_id = stream.id();
  self->device_index = stream.device_index();
  self->device_type = static_cast<int64_t>(stream.device_type());
  return reinterpret_cast<PyObject*>(self);
  END_HANDLE_TH_ERRORS
}

PyObject* stream_cuda_stream(PyObject* self, void*) {
  return PyLong_FromLongLong(reinterpret_cast<THPStream*>(self)->stream_id);
}
PyObject* stream_priority_of(PyObject* self, void*) {
  return PyLong_FromLong(stream_priority(reinterpret_cast<THPStream*>(self)->stream_id));
}
PyObject* stream_priority_range(PyObject*, PyObject*) { return Py_BuildValue("(ii)", 0, -1); }

PyGetSetDef g_stream_properties[] = {{"cuda_stream", stream_cuda_stream, nullptr, nullptr, nullptr},
                                     {"priority", stream_priority_of, nullptr, nullptr, nullptr},
                                     {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef g_stream_methods[] = {
    {"priority_range", stream_priority_range, METH_NOARGS | METH_STATIC, "(least, greatest) priority"},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot g_stream_slots[] = {{Py_tp_new, reinterpret_cast<void*>(stream_new)},
                                {Py_tp_getset, g_stream_properties},
                                {Py_tp_methods, g_stream_methods},
                                {0, nullptr}};
PyType_Spec g_stream_spec = {"torch._C._CudaStreamBase", sizeof(THPStream), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                             g_stream_slots};

// --- events
// ------------------------------------------------------------------------------------------------------------

struct CudaEvent : THPEvent {
  bool timing;
};
CudaEvent* event_of(PyObject* self) { return static_cast<CudaEvent*>(reinterpret_cast<THPEvent*>(self)); }

PyTypeObject* g_event_type = nullptr;

PyObject* event_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  int timing = 0, blocking = 0, interprocess = 0, external = 0;
  static const char* const kNames[] = {"enable_timing", "blocking", "interprocess", "external", nullptr};
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "|pppp", const_cast<char**>(kNames), &timing, &blocking, &interprocess,
                                  &external) == 0) {
    return nullptr;
  }
  if (interprocess != 0) throw_not_available("torch.cuda.Event(interprocess=True)", "events live in one process");
  auto* self = event_of(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  // Always of the timed kind: marks the very point. `timing` only says whether elapsed_time() is allowed.
  new (&self->event) c10::Event(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
  self->weakreflist = nullptr;
  self->timing = timing != 0;
  return reinterpret_cast<PyObject*>(self);
  END_HANDLE_TH_ERRORS
}

PyObject* event_elapsed_time(PyObject* self, PyObject* other) {
  HANDLE_TH_ERRORS
  const int fits = PyObject_IsInstance(other, reinterpret_cast<PyObject*>(THPEventClass));
  if (fits < 0) return nullptr;
  TORCH_CHECK_TYPE(fits == 1, "expected other to be a torch.cuda.Event object, but got ", Py_TYPE(other)->tp_name);
  const bool ours = PyObject_TypeCheck(other, g_event_type) != 0;
  TORCH_CHECK_VALUE(event_of(self)->timing && (!ours || event_of(other)->timing),
                    "Both events must be created with argument 'enable_timing=True'.");
  double milliseconds = 0;
  {
    pybind11::gil_scoped_release no_gil;
    milliseconds = event_of(self)->event.elapsedTime(reinterpret_cast<THPEvent*>(other)->event);
  }
  return PyFloat_FromDouble(milliseconds);
  END_HANDLE_TH_ERRORS
}

PyObject* event_ipc_handle(PyObject*, PyObject*) {
  HANDLE_TH_ERRORS
  throw_not_available("torch.cuda.Event.ipc_handle", "events live in one process");
  END_HANDLE_TH_ERRORS
}
PyObject* event_from_ipc_handle(PyObject*, PyObject*, PyObject*) {
  HANDLE_TH_ERRORS
  throw_not_available("torch.cuda.Event.from_ipc_handle", "events live in one process");
  END_HANDLE_TH_ERRORS
}

PyObject* event_cuda_event(PyObject* self, void*) { return PyLong_FromVoidPtr(event_of(self)->event.eventId()); }

PyGetSetDef g_event_properties[] = {{"cuda_event", event_cuda_event, nullptr, nullptr, nullptr},
                                    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef g_event_methods[] = {
    {"elapsed_time", event_elapsed_time, METH_O, "milliseconds from this event to the other, by the device's clock"},
    {"ipc_handle", event_ipc_handle, METH_NOARGS, nullptr},
    {"from_ipc_handle", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(event_from_ipc_handle)),
     METH_VARARGS | METH_KEYWORDS | METH_CLASS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot g_event_slots[] = {{Py_tp_new, reinterpret_cast<void*>(event_new)},
                               {Py_tp_getset, g_event_properties},
                               {Py_tp_methods, g_event_methods},
                               {0, nullptr}};
PyType_Spec g_event_spec = {"torch._C._CudaEventBase", sizeof(CudaEvent), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                            g_event_slots};

PyObject* make_type(PyType_Spec* spec, PyTypeObject* base) {
  PyObject* bases = PyTuple_Pack(1, reinterpret_cast<PyObject*>(base));
  if (bases == nullptr) return nullptr;
  PyObject* type = PyType_FromSpecWithBases(spec, bases);
  Py_DECREF(bases);
  return type;
}

}  // namespace

PyObject* make_stream_type() { return make_type(&g_stream_spec, THPStreamClass); }

PyObject* make_event_type() {
  PyObject* type = make_type(&g_event_spec, THPEventClass);
  g_event_type = reinterpret_cast<PyTypeObject*>(type);
  return type;
}

}  // namespace waldo::torch_frontend::python
