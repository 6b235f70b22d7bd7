// Our Status as TensorFlow's. One direction only.
#pragma once

#include "absl/status/status.h"
#include "base/status.h"

namespace waldo::tensorflow_frontend {

// What an operator failed with keeps TensorFlow's own code; a lost worker is UNAVAILABLE.
absl::Status to_tensorflow(const Status& status);

}  // namespace waldo::tensorflow_frontend
