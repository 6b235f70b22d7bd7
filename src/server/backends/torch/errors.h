// Exceptions of libtorch become a Status at this border: what kind, which class a CUDA user would have seen, which
// operator. No exception leaves the backend.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend {

// kDevice with the class to raise; `op` may be empty.
Status device_error(wire::ErrorClass error_class, std::string text, std::string_view op = {});

// The text CUDA gives, so that what users match on ("out of memory") is there.
Status out_of_memory(uint64_t wanted_bytes, uint64_t used_bytes, uint64_t cap_bytes, uint16_t device);

// The exception being handled, as a Status. Only inside a catch block.
Status status_of_current_exception(std::string_view op);

// Runs `body`, which returns a Status and may throw.
template <typename Body>
Status guarded(std::string_view op, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return status_of_current_exception(op);
  }
}

}  // namespace waldo::torch_backend
