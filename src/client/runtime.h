// What is process-wide: the devices a program sees, the session behind them, and the one loop thread. session.h has the
// class; this is the part of it that tests look into.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace waldo::client {

// Which of `count` devices CUDA_VISIBLE_DEVICES leaves, in its order; unset (null): all. As CUDA reads it: numbers with
// commas between, the first that is no device ends the list, a device named twice leaves none.
std::vector<int> visible_devices(const char* variable, int count);

}  // namespace waldo::client
