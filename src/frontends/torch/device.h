// The devices `cuda:0`, `cuda:1`, … as this process sees them: how many, which is current on this thread, and the queue
// behind each. Nothing connects before queue_for() or device_info() (or when the count cannot be known otherwise).
//
// Threads: any; the current device is per thread.
#pragma once

#include <c10/core/Device.h>

#include <array>
#include <atomic>

#include "client/session.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

inline constexpr int kDevicesMax = 64;

// 0 when there is none; never throws. connect_error() of the runtime says why.
WALDO_TORCH_API int device_count() noexcept;

WALDO_TORCH_API c10::DeviceIndex current_device() noexcept;
// Throws AcceleratorError "CUDA error: invalid device ordinal" for a device that is not there.
WALDO_TORCH_API void set_device(c10::DeviceIndex device);
WALDO_TORCH_API c10::DeviceIndex exchange_device(c10::DeviceIndex device);
void unchecked_set_device(c10::DeviceIndex device) noexcept;
// -1 means the current device; anything else is checked against device_count().
WALDO_TORCH_API c10::DeviceIndex resolve_device(c10::DeviceIndex device);

WALDO_TORCH_API extern std::array<std::atomic<client::Queue*>, kDevicesMax> g_queues;
WALDO_TORCH_API client::Queue& open_queue_slow(c10::DeviceIndex device);

// Hot. The queue of a device, connected at first use. A device without an index is the current one.
// Throws: no device (RuntimeError with the reason), or CUDA's own text in a forked child.
inline client::Queue& queue_for(c10::Device device) {
  const auto index = static_cast<uint8_t>(device.index());
  if (index < kDevicesMax) [[likely]] {
    if (auto* queue = g_queues[index].load(std::memory_order_acquire)) [[likely]]
      return *queue;
  }
  return open_queue_slow(device.index());
}

// Connects. The reference lives for ever.
WALDO_TORCH_API const client::DeviceInfo& device_info(c10::DeviceIndex device);
// What of the device this program may use: all of it, or $WALDO_MEMORY (`waldo run --memory`).
WALDO_TORCH_API uint64_t memory_of(const client::DeviceInfo& device);
WALDO_TORCH_API bool opened(c10::DeviceIndex device) noexcept;  // has queue_for() connected it?

// Waits until everything recorded for the device has ended.
WALDO_TORCH_API void synchronize_device(c10::DeviceIndex device);

}  // namespace waldo::torch_frontend
