// Random bytes from the operating system, for secrets.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace waldo::os {

void fill_random(std::span<std::byte> bytes);  // cannot fail: a system without entropy is not one we run on

std::string random_name();  // 128 bits as 32 letters and digits, for what nobody shall guess

}  // namespace waldo::os
