// The device guard of the CUDA device type: what autograd, c10::Event, ivalue::Future and torch.Stream go through.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "frontends/torch/device.h"
#include "frontends/torch/register.h"
#include "frontends/torch/streams.h"
#include "frontends/torch/torch_version.h"

namespace waldo::torch_frontend {
namespace {

c10::Device device_at(c10::DeviceIndex index) { return {c10::DeviceType::CUDA, index}; }

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(device_count()); }

  c10::Device getDevice() const override { return device_at(current_device()); }
  c10::Device exchangeDevice(c10::Device device) const override { return device_at(exchange_device(device.index())); }
  void setDevice(c10::Device device) const override { set_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { unchecked_set_device(device.index()); }

  c10::Stream getStream(c10::Device device) const override { return current_stream(device.index()); }
  c10::Stream getDefaultStream(c10::Device device) const override { return default_stream(device.index()); }
  c10::Stream getNewStream(c10::Device device, int priority) const override {
    return pool_stream(device.index(), priority);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high) const override {
    return pool_stream(device.index(), high ? -1 : 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return exchange_stream(stream); }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(stream.id());  // an opaque name; nothing here can use it
  }
  // Every dtype: what a worker's device cannot compute it says itself.
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }
  bool isStreamCapturing(const c10::Stream&) const WALDO_GUARD_KNOWS_CAPTURE { return is_capturing(); }
  bool queryStream(const c10::Stream& stream) const override { return query_device(stream.device_index()); }
  void synchronizeStream(const c10::Stream& stream) const override { synchronize_device(stream.device_index()); }
  void synchronizeDevice(const c10::DeviceIndex device) const override { synchronize_device(device); }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}  // one queue: already ordered

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex,
              const c10::EventFlag flag) const override {
    if (*event == nullptr) *event = new Event;
    const bool timed = flag == c10::EventFlag::BACKEND_DEFAULT;
    static_cast<Event*>(*event)->record(stream.device_index(), timed ? Event::Mark::kNow : Event::Mark::kLater);
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) static_cast<Event*>(event)->block(stream.device_index());
  }
  bool queryEvent(void* event) const override { return event == nullptr || static_cast<Event*>(event)->query(); }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) static_cast<Event*>(event)->wait_until_reached();
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* first, void* second, const c10::DeviceIndex) const override {
    TORCH_CHECK(first != nullptr && second != nullptr, "Both events must be recorded before calculating elapsed time.");
    const auto begin = static_cast<int64_t>(static_cast<Event*>(first)->wait_time_ns());
    const auto end = static_cast<int64_t>(static_cast<Event*>(second)->wait_time_ns());
    return static_cast<double>(end - begin) / 1e6;  // milliseconds
  }
};

}  // namespace

void register_guard() {
  static const auto* guard = new Guard;  // never destroyed, as the registry asks
  c10::impl::DeviceGuardImplRegistrar(c10::DeviceType::CUDA, guard);
}

}  // namespace waldo::torch_frontend
