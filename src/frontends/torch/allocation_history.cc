#include "frontends/torch/allocation_history.h"

#include <torch/csrc/profiler/combined_traceback.h>

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include "frontends/torch/device.h"
#include "frontends/torch/memory_pool.h"
#include "frontends/torch/storage.h"
#include "frontends/torch/streams.h"

namespace waldo::torch_frontend {
namespace {

std::atomic<bool> g_kept{false};

// Of this thread, inside an AllocationContext. Empty frames are frames too: none may have been asked for.
thread_local std::optional<Traceback> t_frames;

class Recorder final : public MemoryWatch {
 public:
  void start(const HistoryOptions& options) {
    const std::scoped_lock lock(mutex_);
    if (options.clear) forget_locked();
    options_ = options;
    for (auto& entries : entries_) shorten(entries);
    g_kept.store(true, std::memory_order_release);
  }
  void stop() {
    const std::scoped_lock lock(mutex_);
    g_kept.store(false, std::memory_order_release);
    options_ = {};
    forget_locked();
  }

  // Null when nothing is kept, or no frames are asked for at such a time.
  Traceback gather(HistoryContext least) {
    bool cpp = false;
    {
      const std::scoped_lock lock(mutex_);
      if (options_.context < least) return nullptr;
      cpp = options_.with_cpp_frames;
    }
    try {
      return torch::CapturedTraceback::gather(/*python=*/true, /*script=*/true, cpp);
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  bool may_take() override { return t_frames.has_value(); }
  void taken(const StorageRef& ref) override {
    const std::scoped_lock lock(mutex_);
    Living& living = living_[address_of(ref.address)];
    living = {t_frames.value_or(nullptr), nullptr, current_stream(ref.device.index()).id()};
    add(ref.device.index(), HistoryAction::kAlloc, address_of(ref.address), ref.bytes, living.stream, living.frames);
  }
  void given_back(const StorageRef& ref) override {
    const std::scoped_lock lock(mutex_);
    const Living living = take_living(address_of(ref.address));
    add(ref.device.index(), HistoryAction::kFreeCompleted, address_of(ref.address), ref.bytes, living.stream,
        living.freed_by ? living.freed_by : living.frames);
  }
  void refused(c10::DeviceIndex device, uint64_t bytes, uint64_t free) override {
    const std::scoped_lock lock(mutex_);
    add(device, HistoryAction::kOutOfMemory, free, bytes, current_stream(device).id(), t_frames.value_or(nullptr));
  }
  void free_requested(c10::DeviceIndex device, const void* address, uint64_t bytes, Traceback frames) {
    const std::scoped_lock lock(mutex_);
    const auto found = living_.find(address_of(address));
    if (found == living_.end())
      return add(device, HistoryAction::kFreeRequested, address_of(address), bytes, 0, frames);
    found->second.freed_by = frames ? std::move(frames) : found->second.frames;
    add(device, HistoryAction::kFreeRequested, address_of(address), bytes, found->second.stream,
        found->second.freed_by);
  }
  void snapshot(c10::DeviceIndex device, uint64_t bytes) {
    const std::scoped_lock lock(mutex_);
    add(device, HistoryAction::kSnapshot, 0, bytes, 0, nullptr);
  }

  History all(size_t devices) {
    const std::scoped_lock lock(mutex_);
    History copy;
    for (size_t i = 0; i < devices && i < entries_.size(); ++i)
      copy.devices.emplace_back(entries_[i].begin(), entries_[i].end());
    for (const auto& [address, living] : living_) copy.living[address] = {living.frames, living.stream};
    return copy;
  }
  void set_metadata(const std::string& metadata) {
    const std::scoped_lock lock(mutex_);
    metadata_ = metadata.empty() ? nullptr : std::make_shared<const std::string>(metadata);
  }
  std::string metadata() {
    const std::scoped_lock lock(mutex_);
    return metadata_ ? *metadata_ : std::string();
  }

 private:
  struct Living {
    Traceback frames, freed_by;
    int64_t stream = 0;
  };
  using Entries = std::deque<HistoryEntry>;

  static uint64_t address_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

  void add(c10::DeviceIndex device, HistoryAction action, uint64_t address, uint64_t bytes, int64_t stream,
           Traceback frames) {
    if (!g_kept.load(std::memory_order_relaxed) || (options_.skipped >> static_cast<int>(action) & 1u) != 0) return;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    if (options_.context < HistoryContext::kAlloc) frames = nullptr;
    Entries& entries = entries_[static_cast<size_t>(device)];
    entries.push_back({action, address, bytes, stream,
                       std::chrono::duration_cast<std::chrono::microseconds>(now).count(), std::move(frames),
                       metadata_});
    shorten(entries);
  }
  void shorten(Entries& entries) const {
    while (entries.size() > options_.entries_max) entries.pop_front();
  }
  Living take_living(uint64_t address) {
    const auto node = living_.extract(address);
    return node.empty() ? Living{} : std::move(node.mapped());
  }
  void forget_locked() {
    for (auto& entries : entries_) entries.clear();
    living_.clear();
  }

  std::mutex mutex_;
  HistoryOptions options_;
  std::array<Entries, kDevicesMax> entries_;
  std::unordered_map<uint64_t, Living> living_;
  std::shared_ptr<const std::string> metadata_;
};
Recorder& recorder() {
  static auto* instance = new Recorder;  // never destroyed: deleters outlive us
  return *instance;
}

struct Observers {
  std::mutex mutex;
  std::vector<std::shared_ptr<const OutOfMemoryObserver>> all;
};
Observers& observers() {
  static auto* instance = new Observers;  // never destroyed: what they hold may need an interpreter that has gone
  return *instance;
}

void watch_opened(MemoryWatch* watch) {
  for (int i = 0; i < kDevicesMax; ++i) {
    const auto device = static_cast<c10::DeviceIndex>(i);
    if (opened(device)) watch_memory(device, watch);
  }
}

}  // namespace

void start_history(const HistoryOptions& options) {
  recorder().start(options);
  watch_opened(&recorder());
}

void stop_history() {
  watch_opened(nullptr);
  recorder().stop();
}

bool history_is_kept() { return g_kept.load(std::memory_order_acquire); }
History history(size_t devices) { return recorder().all(devices); }
void note_snapshot(c10::DeviceIndex device, uint64_t bytes) {
  if (history_is_kept()) recorder().snapshot(device, bytes);
}
void set_history_metadata(const std::string& metadata) { recorder().set_metadata(metadata); }
std::string history_metadata() { return recorder().metadata(); }

void observe_out_of_memory(OutOfMemoryObserver observer) {
  const std::scoped_lock lock(observers().mutex);
  observers().all.push_back(std::make_shared<const OutOfMemoryObserver>(std::move(observer)));
}

void tell_out_of_memory(c10::DeviceIndex device, uint64_t bytes, uint64_t allocated, uint64_t free) {
  std::vector<std::shared_ptr<const OutOfMemoryObserver>> all;
  {
    const std::scoped_lock lock(observers().mutex);
    all = observers().all;
  }
  for (const auto& observer : all) (*observer)(device, bytes, allocated, free);
}

AllocationContext::AllocationContext() : kept_(history_is_kept()) {
  if (kept_) t_frames = recorder().gather(HistoryContext::kState);
}
AllocationContext::~AllocationContext() { t_frames.reset(); }

void history_of_opened(c10::DeviceIndex device) {
  if (history_is_kept()) watch_memory(device, &recorder());
}

void note_free_requested(c10::DeviceIndex device, const void* address, uint64_t bytes) noexcept {
  if (address == nullptr || !history_is_kept()) return;
  try {
    recorder().free_requested(device, address, bytes, recorder().gather(HistoryContext::kAll));
  } catch (const std::exception&) {  // no memory for it: an entry less
  }
}

}  // namespace waldo::torch_frontend
