#include "frontends/torch/python/interpreter.h"

#include <torch/csrc/Exceptions.h>

#include <string>
#include <utility>
#include <vector>

#include "client/session.h"
#include "frontends/torch/bridge.h"

namespace waldo::torch_frontend::python {
namespace {

PyObject* g_lost_class = nullptr;  // owned, for ever
std::vector<std::string>* g_skipped = nullptr;

// What a signal's handler raised while this thread waited; raise_cancelled() raises it again.
struct Raised {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
};
thread_local Raised t_raised;

class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  PyGILState_STATE state_;
};

bool interpreter_is_ending() {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsInitialized() == 0 || Py_IsFinalizing() != 0;
#else
  return Py_IsInitialized() == 0 || _Py_IsFinalizing() != 0;
#endif
}

// Runs the handlers of signals that arrived while a user thread waits. Only the main thread ever has any.
bool interrupted() {
  if (interpreter_is_ending()) return false;
  const Gil gil;
  if (PyErr_CheckSignals() == 0) return false;
  Raised& raised = t_raised;
  Py_XDECREF(raised.type);
  Py_XDECREF(raised.value);
  Py_XDECREF(raised.traceback);
  PyErr_Fetch(&raised.type, &raised.value, &raised.traceback);
  return true;
}

bool is_users(const std::string& file) {
  if (file.starts_with("<frozen")) return false;
  for (const std::string& prefix : *g_skipped) {
    if (file.starts_with(prefix)) return false;
  }
  return true;
}

// The innermost frame of the thread that is the user's; file empty when there is none.
std::pair<std::string, int> user_frame(PyThreadState* thread) {
  std::pair<std::string, int> place;
  PyFrameObject* frame = PyThreadState_GetFrame(thread);
  while (frame != nullptr) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    const char* file = PyUnicode_AsUTF8(code->co_filename);
    if (file != nullptr && is_users(file)) {
      place = {file, PyFrame_GetLineNumber(frame)};
      Py_DECREF(code);
      Py_DECREF(frame);
      return place;
    }
    Py_DECREF(code);
    PyFrameObject* outer = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = outer;
  }
  PyErr_Clear();
  return place;
}

// A wait inside backward() happens on autograd's device thread, which has no frames: then the place is where some
// other thread of the program called it, the oldest thread first.
std::pair<std::string, int> where() {
  if (interpreter_is_ending()) return {"<exit>", 0};
  const Gil gil;
  PyThreadState* self = PyThreadState_Get();
  std::pair<std::string, int> place = user_frame(self);
  if (!place.first.empty()) return place;
  for (PyThreadState* thread = PyInterpreterState_ThreadHead(PyThreadState_GetInterpreter(self)); thread != nullptr;
       thread = PyThreadState_Next(thread)) {  // newest first, so the last one found is the oldest
    if (thread == self) continue;
    std::pair<std::string, int> other = user_frame(thread);
    if (!other.first.empty()) place = std::move(other);
  }
  if (place.first.empty()) place = {"<python>", 0};
  return place;
}

[[noreturn]] void throw_python_error() {
  python_error error;
  error.persist();
  throw error;  // NOLINT: caught by type where torch's bindings end
}

void raise_lost(const char* text) {
  if (interpreter_is_ending()) return;
  const Gil gil;
  PyErr_SetString(g_lost_class, text);
  throw_python_error();
}

void raise_cancelled() {
  if (interpreter_is_ending()) return;
  const Gil gil;
  Raised raised = std::exchange(t_raised, {});
  if (raised.type != nullptr) {
    PyErr_Restore(raised.type, raised.value, raised.traceback);
  } else {
    PyErr_SetNone(PyExc_KeyboardInterrupt);
  }
  throw_python_error();
}

void* release_gil() {
  if (interpreter_is_ending() || PyGILState_Check() == 0) return nullptr;
  return PyEval_SaveThread();
}
void acquire_gil(void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); }

}  // namespace

void lend_interpreter(PyObject* lost_class, PyObject* skipped) {
  Py_INCREF(lost_class);
  g_lost_class = lost_class;
  g_skipped = new std::vector<std::string>;
  for (Py_ssize_t i = 0; i < PyList_Size(skipped); ++i) {
    if (const char* prefix = PyUnicode_AsUTF8(PyList_GetItem(skipped, i))) g_skipped->emplace_back(prefix);
  }
  set_python_bridge({raise_lost, raise_cancelled, release_gil, acquire_gil});
  client::Runtime::instance().set_hooks({interrupted, where});
}

}  // namespace waldo::torch_frontend::python
