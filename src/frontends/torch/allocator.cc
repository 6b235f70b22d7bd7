// c10's allocator of the CUDA device type: at::empty and friends come through it. Figures are those of storage.h.
#include <c10/core/CachingDeviceAllocator.h>

#include "client/session.h"
#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/memory_info.h"
#include "frontends/torch/register.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {
namespace {

using c10::CachingAllocator::Stat;
using c10::CachingAllocator::StatArray;

Stat stat_of(const Tally& tally) {
  Stat stat;
  stat.current = tally.current;
  stat.peak = tally.peak;
  stat.allocated = tally.allocated;
  stat.freed = tally.freed();
  return stat;
}
StatArray stats_of(const Tally (&tallies)[3]) {
  return {stat_of(tallies[0]), stat_of(tallies[1]), stat_of(tallies[2])};
}
StatArray stats_of(const Tally& all) { return {stat_of(all), Stat{}, stat_of(all)}; }

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override { return create_data(current_device(), bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // our data is never its own context
  void copy_data(void*, const void*, size_t) const override {
    throw_not_available("copying through raw device pointers", "use Tensor.clone() or Tensor.copy_()");
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    for (int device = 0; device < kDevicesMax; ++device) {
      if (opened(static_cast<c10::DeviceIndex>(device))) empty_cache(static_cast<c10::DeviceIndex>(device));
    }
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}  // one queue per device: order already protects it
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const MemoryStats from = memory_stats(resolve_device(device));
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocation = stats_of(from.count);
    stats.active = stats_of(from.count);
    stats.allocated_bytes = stats_of(from.bytes);
    stats.active_bytes = stats_of(from.bytes);
    stats.requested_bytes = stats_of(from.requested);
    stats.reserved_bytes = stats_of(from.reserved);
    stats.segment = stats_of(from.segments);
    stats.num_ooms = static_cast<int64_t>(from.out_of_memory);
    stats.num_device_alloc = from.segments.allocated;
    stats.num_device_free = from.segments.freed();
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override { reset_accumulated_memory(resolve_device(device)); }
  void resetPeakStats(c10::DeviceIndex device) override { reset_peak_memory(resolve_device(device)); }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const MemoryInfo info = memory_info(device);
    return {info.free, info.total};
  }
};

}  // namespace

c10::Allocator* allocator() {
  static auto* instance = new Allocator;  // never destroyed: storages outlive us
  return instance;
}

void register_allocator() { c10::SetAllocator(c10::DeviceType::CUDA, allocator(), 1); }

}  // namespace waldo::torch_frontend
