// What the system is told about memory.
#pragma once

#include <cstddef>

namespace waldo::os {

// Memory that is about to be filled from end to end had better come in huge pages: the first touch of 256 MiB in small
// ones takes longer than filling it. A hint for the whole huge pages inside the range, nothing for less than two of
// them; it changes no content and never fails. Any thread.
void want_huge_pages(void* memory, size_t bytes);

}  // namespace waldo::os
