// CUDA_VISIBLE_DEVICES.
#pragma once

#include <vector>

namespace waldo::client {

// Which of `count` devices the variable leaves, in its order; unset (null): all. As CUDA reads it: numbers with commas
// between, the first that is no device ends the list, a device named twice leaves none.
std::vector<int> visible_devices(const char* variable, int count);

}  // namespace waldo::client
