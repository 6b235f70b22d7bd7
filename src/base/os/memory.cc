#include "base/os/memory.h"

#include <sys/mman.h>

#include <cstdint>

namespace waldo::os {

void want_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePageBytes = 2u << 20;  // x86-64's and, with 4 KiB pages, arm64's
  if (bytes < 2 * kHugePageBytes) return;
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kHugePageBytes - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace waldo::os
