// Streams and events of a device. A device is one queue, so all of its streams run in the order their calls were
// recorded: a stricter order than CUDA promises, hence right for every program. Stream ids: 0 the default one, 1-32 and
// 33-64 (high priority) from the pool, others external handles. An id is also what cuda_stream shows.
//
// Threads: any; the current stream is per thread and device.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <memory>

#include "client/session.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

WALDO_TORCH_API c10::Stream current_stream(c10::DeviceIndex device);
WALDO_TORCH_API c10::Stream exchange_stream(c10::Stream stream);
WALDO_TORCH_API c10::Stream default_stream(c10::DeviceIndex device);
WALDO_TORCH_API c10::Stream pool_stream(c10::DeviceIndex device, int priority);  // lower is more urgent; < 0: high
WALDO_TORCH_API int stream_priority(c10::StreamId id);

// Does python/waldo/_torch/capture.py write down what runs? Then every stream is capturing.
WALDO_TORCH_API void set_capturing(bool capturing);
WALDO_TORCH_API bool is_capturing();

// Has everything recorded for the device ended? Never waits: the first question sends a probe.
WALDO_TORCH_API bool query_device(c10::DeviceIndex device);

// A point in a device's queue. Copies nothing, waits only where the name says so.
class Event {
 public:
  enum class Mark : uint8_t {
    kNow,    // the worker notes its clock when it gets here: exact, costs one small record
    kLater,  // only if somebody asks: an answer is late rather than wrong
  };
  ~Event();
  void record(c10::DeviceIndex device, Mark mark);
  bool recorded() const { return queue_ != nullptr; }
  c10::DeviceIndex device() const { return device_; }
  bool query();                               // reached? true when never recorded
  void wait_until_reached();                  // at once when never recorded
  void block(c10::DeviceIndex device) const;  // later work of `device` runs after this point
  uint64_t wait_time_ns();                    // the worker's clock at this point

 private:
  void ensure_mark();
  void forget() noexcept;

  client::Queue* queue_ = nullptr;
  c10::DeviceIndex device_ = -1;
  CallNumber call_;       // the last one before this point
  CallNumber time_call_;  // 0: not marked yet
};

}  // namespace waldo::torch_frontend
