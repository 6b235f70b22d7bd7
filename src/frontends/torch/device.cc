#include "frontends/torch/device.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "frontends/torch/allocation_history.h"
#include "frontends/torch/bridge.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/idle.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

std::array<std::atomic<client::Queue*>, kDevicesMax> g_queues{};

namespace {

thread_local c10::DeviceIndex t_current_device = 0;
std::array<std::atomic<uint64_t>, kDevicesMax> g_idle_since{};

constexpr int32_t kInvalidDevice = 101;  // cudaErrorInvalidDevice
constexpr const char* kForked =
    "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' start "
    "method";

[[noreturn]] void throw_no_device() {
  const Status why = client::Runtime::instance().connect_error();
  if (why.ok()) C10_THROW_ERROR(Error, "No CUDA GPUs are available");
  throw_status(why);
}

void check_ordinal(int index) {
  const int count = device_count();
  if (index >= 0 && index < count) return;
  if (count == 0) throw_no_device();
  throw c10::AcceleratorError(
      {__func__, __FILE__, __LINE__}, kInvalidDevice,
      "CUDA error: invalid device ordinal (cuda:" + std::to_string(index) + " of " + std::to_string(count) + ")");
}

}  // namespace

int device_count() noexcept {
  try {
    WaitScope wait;  // the first question may connect
    return std::clamp(client::Runtime::instance().device_count(), 0, kDevicesMax);
  } catch (...) {
    return 0;
  }
}

c10::DeviceIndex current_device() noexcept { return t_current_device; }

void set_device(c10::DeviceIndex device) {
  if (device == t_current_device) return;
  check_ordinal(device);
  t_current_device = device;
}

c10::DeviceIndex exchange_device(c10::DeviceIndex device) {
  const auto before = t_current_device;
  set_device(device);
  return before;
}

void unchecked_set_device(c10::DeviceIndex device) noexcept {
  if (device >= 0 && device < kDevicesMax) t_current_device = device;
}

uint64_t memory_of(const client::DeviceInfo& device) {
  static const uint64_t most = [] {
    const char* text = std::getenv("WALDO_MEMORY");  // in bytes; _hook.py has looked at it
    return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
  }();
  if (most == 0) return device.total_memory;
  return device.total_memory == 0 ? most : std::min(device.total_memory, most);
}

c10::DeviceIndex resolve_device(c10::DeviceIndex device) {
  if (device < 0) return t_current_device;
  if (!opened(device)) check_ordinal(device);
  return device;
}

client::Queue& open_queue_slow(c10::DeviceIndex device) {
  auto& runtime = client::Runtime::instance();
  if (runtime.in_forked_child()) C10_THROW_ERROR(Error, kForked);
  const auto index = device < 0 ? t_current_device : device;
  if (auto* queue = g_queues[static_cast<size_t>(index)].load(std::memory_order_acquire)) return *queue;
  check_ordinal(index);
  WaitScope wait;
  Result<client::Queue*> queue = runtime.queue(index);
  if (!queue.ok()) throw_status(queue.status());
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& entry = g_queues[static_cast<size_t>(index)];
  if (entry.load(std::memory_order_relaxed) == nullptr) {
    const auto& info = (*queue)->session().worker().devices;
    const size_t place = (*queue)->id().raw;
    if (place < info.size()) set_memory_limit(index, memory_of(info[place]));
    (*queue)->on_released(&release_storage_ref);
    entry.store(*queue, std::memory_order_release);
    history_of_opened(index);
  }
  return **queue;
}

const client::DeviceInfo& device_info(c10::DeviceIndex device) {
  static const client::DeviceInfo unknown;
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, resolve_device(device)));
  const auto& devices = queue.session().worker().devices;
  const size_t place = queue.id().raw;
  return place < devices.size() ? devices[place] : unknown;
}

bool opened(c10::DeviceIndex device) noexcept {
  return device >= 0 && device < kDevicesMax &&
         g_queues[static_cast<size_t>(device)].load(std::memory_order_acquire) != nullptr;
}

void synchronize_device(c10::DeviceIndex device) {
  const auto index = resolve_device(device);
  if (!opened(index)) return;  // nothing was ever recorded
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, index));
  const CallNumber before = queue.last_call();
  Status status;
  {
    WaitScope wait;
    status = queue.synchronize();
  }
  check(status);
  // The synchronize was a call too. If another thread recorded meanwhile, nobody knows whether its work has ended.
  const CallNumber after = queue.last_call();
  if (after.raw == before.raw + 1) g_idle_since[static_cast<size_t>(index)].store(after.raw, std::memory_order_relaxed);
}

CallNumber idle_since(c10::DeviceIndex device) noexcept {
  return CallNumber{g_idle_since[static_cast<size_t>(device)].load(std::memory_order_relaxed)};
}

}  // namespace waldo::torch_frontend
