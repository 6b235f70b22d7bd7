// Two registries that would otherwise be empty and make DDP and the profiler fail.
#include <torch/csrc/profiler/stubs/base.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

#include "frontends/torch/device.h"
#include "frontends/torch/profiler.h"
#include "frontends/torch/register.h"
#include "frontends/torch/streams.h"

namespace waldo::torch_frontend {
namespace {

// Times of DDP's phases, by this process's clock: the phases are those of the program, not of the device.
class Timer final : public c10d::Timer {
 public:
  explicit Timer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event start, Event end) override {
    const auto begin = getTimestamp(start);
    const auto stop = getTimestamp(end);
    if (!begin.has_value() || !stop.has_value() || *stop < *begin) return std::nullopt;
    return *stop - *begin;
  }
};

thread_local ProfiledInterval g_last_interval;

// Device times of the profiler, by the worker's clock.
class ProfilerStubs final : public torch::profiler::impl::ProfilerStubs {
 public:
  bool enabled() const override { return true; }
  void record(c10::DeviceIndex* device, torch::profiler::impl::ProfilerVoidEventStub* event,
              int64_t* cpu_ns) const override {
    const auto index = current_device();
    if (device != nullptr) *device = index;
    auto mark = std::make_shared<Event>();
    mark->record(index, Event::Mark::kNow);
    if (cpu_ns != nullptr) *cpu_ns = c10::getTime();
    *event = std::move(mark);
  }
  float elapsed(const torch::profiler::impl::ProfilerVoidEventStub* first,
                const torch::profiler::impl::ProfilerVoidEventStub* second) const override {
    const auto begin = static_cast<int64_t>(static_cast<Event*>(first->get())->wait_time_ns());
    const auto end = static_cast<int64_t>(static_cast<Event*>(second->get())->wait_time_ns());
    g_last_interval = {static_cast<Event*>(first->get())->device(), begin, end};
    return static_cast<float>(end - begin) / 1e3f;  // microseconds
  }
  void mark(const char*) const override {}
  void rangePush(const char*) const override {}
  void rangePop() const override {}
  void onEachDevice(std::function<void(int)> visit) const override {
    for (int device = 0; device < device_count(); ++device) visit(device);
  }
  void synchronize() const override { synchronize_device(current_device()); }
};

std::unique_ptr<c10d::Timer> make_timer(c10::Device device) { return std::make_unique<Timer>(device); }

}  // namespace

ProfiledInterval last_profiled_interval() { return g_last_interval; }

void register_timer() {
  c10d::TimerRegistry()->Register(c10::DeviceType::CUDA, make_timer, "Waldo", c10::REGISTRY_PREFERRED);
}

void register_profiler() {
  static auto* stubs = new ProfilerStubs;  // never destroyed
  torch::profiler::impl::registerCUDAMethods(stubs);
}

}  // namespace waldo::torch_frontend
