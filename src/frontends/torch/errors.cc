#include "frontends/torch/errors.h"

#include <c10/util/Exception.h>

#include <string>

#include "frontends/torch/bridge.h"
#include "frontends/torch/forward_flags.h"
#include "wire/plan_body.h"

namespace waldo::torch_frontend {
namespace {

constexpr int32_t kUnknownAcceleratorError = 999;  // cudaErrorUnknown

std::string text_of(const Status& status) {
  const auto& op = status.detail().op;
  if (op.empty() || status.text().find(op) != std::string::npos) return status.text();
  return status.text() + " (raised by " + op + " on the worker; it may have been recorded some lines before this one)";
}

[[noreturn]] void throw_device_error(const Status& status) {
  const std::string text = text_of(status);
  switch (static_cast<wire::ErrorClass>(status.detail().error_class)) {
    case wire::ErrorClass::kOutOfMemory:
      C10_THROW_ERROR(OutOfMemoryError, text);
    case wire::ErrorClass::kIndex:
      C10_THROW_ERROR(IndexError, text);
    case wire::ErrorClass::kValue:
      C10_THROW_ERROR(ValueError, text);
    case wire::ErrorClass::kType:
      C10_THROW_ERROR(TypeError, text);
    case wire::ErrorClass::kNotImplemented:
      C10_THROW_ERROR(NotImplementedError, text);
    case wire::ErrorClass::kLinAlg:
      C10_THROW_ERROR(LinAlgError, text);
    case wire::ErrorClass::kDistBackend:
      C10_THROW_ERROR(DistBackendError, text);
    case wire::ErrorClass::kAccelerator:
      throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, kUnknownAcceleratorError, text);
    case wire::ErrorClass::kRuntime:
      break;
  }
  C10_THROW_ERROR(Error, text);
}

PythonBridge g_bridge;

}  // namespace

void throw_status(const Status& status) {
  forget_sent_flags();
  switch (status.kind()) {
    case StatusKind::kDevice:
      throw_device_error(status);
    case StatusKind::kLost:
      if (g_bridge.raise_lost != nullptr) g_bridge.raise_lost(status.text().c_str());
      throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, kUnknownAcceleratorError, status.text());
    case StatusKind::kCancelled:
      if (g_bridge.raise_cancelled != nullptr) g_bridge.raise_cancelled();
      C10_THROW_ERROR(Error, "interrupted: " + status.text());
    case StatusKind::kUnsupported:
      C10_THROW_ERROR(NotImplementedError, text_of(status));
    default:
      C10_THROW_ERROR(Error, text_of(status));
  }
}

void throw_not_available(const char* what, const char* why) {
  C10_THROW_ERROR(NotImplementedError, std::string(what) + " is not available on a Waldo device: " + why);
}

void set_python_bridge(const PythonBridge& bridge) { g_bridge = bridge; }
const PythonBridge& python_bridge() { return g_bridge; }

}  // namespace waldo::torch_frontend
