// Random bytes from the operating system, for secrets.
#pragma once

#include <cstddef>
#include <span>

namespace waldo::os {

void fill_random(std::span<std::byte> bytes);  // cannot fail: a system without entropy is not one we run on

}  // namespace waldo::os
