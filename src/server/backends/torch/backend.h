// The torch backend: operators on a c10 device, for any number of queues.
#pragma once

#include <memory>
#include <string>

#include "server/backend.h"

namespace waldo::torch_backend {

// `options_json`: {"gpus": 1, "memory_bytes": 0, "intra_op_threads": 0, "device": "auto" | "cpu"}; 0 and what is left
// out mean "as the machine has it". kInvalid when it makes no sense, kUnsupported when libtorch cannot start.
Result<std::unique_ptr<server::Backend>> make_backend(const std::string& options_json);

}  // namespace waldo::torch_backend
