// What this machine says of its hardware. Any thread; read anew at each call.
#pragma once

#include <cstdint>
#include <string>

namespace waldo::os {

std::string cpu_name();            // the model's name; "CPU" where the system does not say
uint64_t physical_memory_bytes();  // 0 where the system does not say

}  // namespace waldo::os
