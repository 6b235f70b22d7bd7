// What libwaldo_torch.so, which knows no Python, needs from the Python module. A C++ program without an interpreter
// simply has none of it: lost devices are AcceleratorErrors then, and waits hold no lock to release.
#pragma once

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

struct PythonBridge {
  void (*raise_lost)(const char* text) = nullptr;  // throws python_error with waldo.DeviceLostError
  void (*raise_cancelled)() = nullptr;             // throws python_error with what the signal's handler raised
  void* (*release_gil)() = nullptr;                // null when this thread does not hold it
  void (*acquire_gil)(void* state) = nullptr;
};
WALDO_TORCH_API void set_python_bridge(const PythonBridge& bridge);
WALDO_TORCH_API const PythonBridge& python_bridge();

// Stands around everything that may wait (reads, asks, synchronize, uploads): releases the interpreter's lock when this
// thread holds it, and takes it back at the end.
class WaitScope {
 public:
  WaitScope() : state_(python_bridge().release_gil ? python_bridge().release_gil() : nullptr) {}
  ~WaitScope() {
    if (state_ != nullptr) python_bridge().acquire_gil(state_);
  }
  WaitScope(const WaitScope&) = delete;
  WaitScope& operator=(const WaitScope&) = delete;

 private:
  void* state_;
};

}  // namespace waldo::torch_frontend
