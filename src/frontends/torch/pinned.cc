#include "frontends/torch/pinned.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace waldo::torch_frontend {
namespace {

constexpr size_t kPageBytes = 4096;

struct Registry {
  std::mutex mutex;
  std::map<const std::byte*, size_t> blocks;
  PinnedStats stats;
};
Registry& registry() {
  static auto* instance = new Registry;  // never destroyed: tensors outlive us
  return *instance;
}

void release(void* block) {
  if (block == nullptr) return;
  auto& known = registry();
  {
    const std::lock_guard lock(known.mutex);
    const auto found = known.blocks.find(static_cast<std::byte*>(block));
    if (found != known.blocks.end()) {
      known.stats.bytes -= static_cast<int64_t>(found->second);
      known.stats.count -= 1;
      known.blocks.erase(found);
    }
  }
  std::free(block);
}

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, c10::Device(c10::DeviceType::CPU)};
    const size_t whole = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    void* block = std::aligned_alloc(kPageBytes, whole);
    TORCH_CHECK_WITH(OutOfMemoryError, block != nullptr, "pin_memory: cannot allocate ", bytes, " bytes on the host");
    auto& known = registry();
    const std::lock_guard lock(known.mutex);
    known.blocks.emplace(static_cast<std::byte*>(block), whole);
    known.stats.count += 1;
    known.stats.count_total += 1;
    known.stats.bytes += static_cast<int64_t>(whole);
    known.stats.bytes_total += static_cast<int64_t>(whole);
    known.stats.bytes_peak = std::max(known.stats.bytes_peak, known.stats.bytes);
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static auto* instance = new PinnedAllocator;
  return instance;
}

bool is_pinned(const void* address) {
  auto& known = registry();
  const std::lock_guard lock(known.mutex);
  auto after = known.blocks.upper_bound(static_cast<const std::byte*>(address));
  if (after == known.blocks.begin()) return false;
  --after;
  return static_cast<const std::byte*>(address) < after->first + after->second;
}

PinnedStats pinned_stats() {
  const std::lock_guard lock(registry().mutex);
  return registry().stats;
}

}  // namespace waldo::torch_frontend
