#include "frontends/torch/streams.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <mutex>

#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/idle.h"

namespace waldo::torch_frontend {
namespace {

constexpr c10::StreamId kPoolSize = 32;

thread_local std::array<c10::StreamId, kDevicesMax> t_current_stream{};
std::atomic<bool> g_capturing{false};

c10::Stream stream_of(c10::DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::CUDA, device), id);
}

client::Queue& queue_of(c10::DeviceIndex device) { return queue_for(c10::Device(c10::DeviceType::CUDA, device)); }

}  // namespace

void set_capturing(bool capturing) { g_capturing.store(capturing, std::memory_order_relaxed); }
bool is_capturing() { return g_capturing.load(std::memory_order_relaxed); }

c10::Stream current_stream(c10::DeviceIndex device) {
  const auto index = resolve_device(device);
  return stream_of(index, t_current_stream[static_cast<size_t>(index)]);
}

c10::Stream exchange_stream(c10::Stream stream) {
  const auto index = resolve_device(stream.device_index());
  auto& current = t_current_stream[static_cast<size_t>(index)];
  const c10::Stream before = stream_of(index, current);
  current = stream.id();
  return before;
}

c10::Stream default_stream(c10::DeviceIndex device) { return stream_of(resolve_device(device), 0); }

c10::Stream pool_stream(c10::DeviceIndex device, int priority) {
  static std::array<std::array<std::atomic<uint32_t>, 2>, kDevicesMax> next{};
  const auto index = resolve_device(device);
  const bool high = priority < 0;
  const auto turn = next[static_cast<size_t>(index)][high].fetch_add(1, std::memory_order_relaxed) % kPoolSize;
  return stream_of(index, 1 + (high ? kPoolSize : 0) + turn);
}

int stream_priority(c10::StreamId id) { return id > kPoolSize && id <= 2 * kPoolSize ? -1 : 0; }

bool query_device(c10::DeviceIndex device) {
  static std::mutex mutex;
  static std::array<CallNumber, kDevicesMax> probes{};
  const auto index = resolve_device(device);
  if (!opened(index)) return true;
  auto& queue = queue_of(index);
  if (queue.last_call() == idle_since(index)) return true;  // nothing was recorded after a synchronize
  const std::lock_guard lock(mutex);
  CallNumber& probe = probes[static_cast<size_t>(index)];
  if (probe.raw == 0 || queue.last_call() != probe) {  // something was recorded since
    if (probe.raw != 0) queue.forget_time(probe);
    Result<CallNumber> recorded = queue.record_time();
    check(recorded.status());
    probe = *recorded;
  }
  return queue.reached(probe);
}

Event::~Event() { forget(); }

void Event::forget() noexcept {
  if (queue_ != nullptr && time_call_.raw != 0) queue_->forget_time(time_call_);
  time_call_ = {};
}

void Event::record(c10::DeviceIndex device, Mark mark) {
  forget();
  device_ = resolve_device(device);
  queue_ = &queue_of(device_);
  if (mark == Mark::kNow) ensure_mark();
  call_ = mark == Mark::kNow ? time_call_ : queue_->last_call();
}

void Event::ensure_mark() {
  if (time_call_.raw != 0) return;
  Result<CallNumber> recorded = queue_->record_time();
  check(recorded.status());
  time_call_ = *recorded;
}

bool Event::query() {
  if (queue_ == nullptr) return true;
  ensure_mark();
  return queue_->reached(time_call_);
}

void Event::wait_until_reached() {
  if (queue_ != nullptr) static_cast<void>(wait_time_ns());
}

uint64_t Event::wait_time_ns() {
  TORCH_CHECK(queue_ != nullptr, "Both events must be recorded before calculating elapsed time.");
  ensure_mark();
  if (!queue_->reached(time_call_)) {
    WaitScope wait;
    Result<uint64_t> time = queue_->time_ns(time_call_);
    if (time.ok()) return *time;
    throw_status(time.status());
  }
  Result<uint64_t> time = queue_->time_ns(time_call_);
  check(time.status());
  return *time;
}

void Event::block(c10::DeviceIndex device) const {
  if (queue_ == nullptr) return;
  auto& other = queue_of(resolve_device(device));
  if (&other == queue_ || call_.raw == 0) return;  // in order already
  check(other.after(*queue_, call_));
}

}  // namespace waldo::torch_frontend
