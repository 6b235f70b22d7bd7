// The TensorFlow backend: runs plans (wire/tensorflow_body.h) with TensorFlow's C API, without Python, on the GPUs that
// its TensorFlow has, else on the CPU posing as as many devices as were asked for.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "server/backend.h"

namespace waldo::tensorflow_backend {

// Options as server/backend.h says; unknown ones are left alone.
Result<std::unique_ptr<server::Backend>> make_backend(const std::string& options_json);

}  // namespace waldo::tensorflow_backend
