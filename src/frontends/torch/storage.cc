#include "frontends/torch/storage.h"

#include <c10/util/Exception.h>

#include <cstdio>
#include <string>

#include "frontends/torch/allocation_history.h"
#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/far_tensor.h"
#include "frontends/torch/graph_recording.h"
#include "frontends/torch/memory_pool.h"
#include "wire/limits.h"

namespace waldo::torch_frontend {
namespace {

enum class Deleters : uint8_t { kPlain, kWatched, kClosed };
std::atomic<Deleters> g_deleters{Deleters::kPlain};

std::string in_units(uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text;
}

// Of a new storage with a slot that was taken under the same lock; null when there is no room, and then `slot` is left
// alone.
StorageRef* take_locked(client::SlotTable& slots, client::Queue& queue, c10::DeviceIndex device, uint64_t bytes,
                        Slot slot) {
  StorageRef* ref = MemoryPool::of(device).take(StorageNeed(bytes));
  if (ref == nullptr) return nullptr;
  ref->queue = &queue;
  ref->slot = slot;
  slots.set_owner(slot, ref);
  return ref;
}

c10::Storage storage_with(c10::DataPtr data, uint64_t bytes) {
  return c10::Storage(c10::make_intrusive<FarStorageImpl>(bytes, std::move(data)));
}

void reset_accumulated(Tally& tally) {
  tally.allocated = 0;
  tally.at_reset = tally.current;
}

// Tries twice when the first time lacked only who it is for (allocation_history.h).
template <typename Attempt>
StorageRef* take_or_null(const Attempt& attempt) {
  StorageRef* ref = attempt();
  if (ref != nullptr) [[likely]]
    return ref;
  const AllocationContext context;
  return context.worth_another_try() ? attempt() : nullptr;
}

[[gnu::noinline]] void delete_slow(StorageRef* ref) noexcept {
  if (ref == nullptr || g_deleters.load(std::memory_order_relaxed) == Deleters::kClosed) return;
  note_free_requested(ref->device.index(), ref->address, ref->bytes);
  ref->queue->free_slot(ref->slot);
}

void release_watched(void* owner) noexcept {
  auto* ref = static_cast<StorageRef*>(owner);
  MemoryPool::of(ref->device.index()).give_back_watched(ref);
}

// Under the queue's lock where the device has one; before that nothing was ever counted.
template <typename Change>
void change_stats(c10::DeviceIndex device, const Change& change) {
  if (!opened(device)) return;
  queue_for(c10::Device(c10::DeviceType::CUDA, device)).locked([&](client::SlotTable&) {
    change(MemoryPool::of(device).stats());
  });
}

}  // namespace

void delete_storage_ref(void* context) noexcept {
  auto* ref = static_cast<StorageRef*>(context);
  if (ref == nullptr || g_deleters.load(std::memory_order_relaxed) != Deleters::kPlain) [[unlikely]]
    return delete_slow(ref);
  ref->queue->free_slot(ref->slot);
}

void release_storage_ref(void* owner) noexcept {
  auto* ref = static_cast<StorageRef*>(owner);
  MemoryPool::of(ref->device.index()).give_back(ref);
}

void watch_memory(c10::DeviceIndex device, MemoryWatch* watch) {
  auto mode = watch != nullptr ? Deleters::kPlain : Deleters::kWatched;
  g_deleters.compare_exchange_strong(mode, watch != nullptr ? Deleters::kWatched : Deleters::kPlain);
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, device));
  queue.locked([&](client::SlotTable&) { MemoryPool::of(device).set_watch(watch); });
  queue.on_released(watch != nullptr ? &release_watched : &release_storage_ref);
}

void throw_out_of_memory(c10::DeviceIndex device, uint64_t bytes) {
  const MemoryStats stats = memory_stats(device);
  const auto used = static_cast<uint64_t>(stats.bytes[0].current);
  const uint64_t free = stats.limit > used ? stats.limit - used : 0;
  tell_out_of_memory(device, bytes, used, free);
  C10_THROW_ERROR(OutOfMemoryError, "CUDA out of memory. Tried to allocate " + in_units(bytes) + ". GPU " +
                                        std::to_string(device) + " has a total capacity of " + in_units(stats.limit) +
                                        " of which " + in_units(free) + " is free. Of the allocated memory " +
                                        in_units(used) + " is allocated by PyTorch.");
}

c10::Storage make_storage(client::Queue& queue, c10::DeviceIndex device, uint64_t bytes, Slot slot) {
  StorageRef* ref = take_or_null([&] {
    return queue.locked([&](client::SlotTable& slots) { return take_locked(slots, queue, device, bytes, slot); });
  });
  if (ref == nullptr) [[unlikely]] {
    queue.free_slot(slot);
    throw_out_of_memory(device, bytes);
  }
  return storage_with(data_of(ref), bytes);
}

c10::DataPtr create_data(c10::DeviceIndex device, uint64_t bytes) {
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, device));
  Slot slot;
  StorageRef* ref = take_or_null([&] {
    return queue.locked([&](client::SlotTable& slots) -> StorageRef* {
      if (slot.none()) slot = slots.take();
      return slot.none() ? nullptr : take_locked(slots, queue, device, bytes, slot);
    });
  });
  TORCH_CHECK(!slot.none(), "too many device storages are alive at once (", limits::slot_count_max, ")");
  if (ref == nullptr) [[unlikely]] {
    queue.free_slot(slot);
    throw_out_of_memory(device, bytes);
  }
  c10::DataPtr data = data_of(ref);
  check(queue.create(slot, bytes));
  if (any_graph_recording()) [[unlikely]]
    note_create(device, slot, bytes);
  return data;
}

c10::Storage create_storage(c10::DeviceIndex device, uint64_t bytes) {
  return storage_with(create_data(device, bytes), bytes);
}

// The slot keeps its name: it moves to a StorageRef with an address of the new size.
void resize_storage(c10::StorageImpl& storage, uint64_t bytes) {
  StorageRef* old_ref = storage_ref(storage);
  TORCH_CHECK(old_ref != nullptr, "resize: this storage is not on a Waldo device");
  if (old_ref->bytes == bytes) {
    storage.set_nbytes(static_cast<size_t>(bytes));
    return;
  }
  client::Queue& queue = *old_ref->queue;
  MemoryPool& pool = MemoryPool::of(old_ref->device.index());
  StorageRef* ref =
      take_or_null([&] { return queue.locked([&](client::SlotTable&) { return pool.take(StorageNeed(bytes)); }); });
  if (ref == nullptr) throw_out_of_memory(old_ref->device.index(), bytes);
  if (Status status = queue.resize(old_ref->slot, bytes); !status.ok()) {
    queue.locked([&](client::SlotTable&) { pool.give_back_watched(ref); });
    throw_status(status);
  }
  if (any_graph_recording()) [[unlikely]]
    note_resize(old_ref->device.index(), old_ref->slot, bytes);
  ref->queue = &queue;
  ref->slot = old_ref->slot;
  c10::DataPtr old_data = storage.set_data_ptr(data_of(ref));
  storage.set_nbytes(static_cast<size_t>(bytes));
  static_cast<void>(old_data.release_context());  // not its deleter: the slot lives on
  note_free_requested(old_ref->device.index(), old_ref->address, old_ref->bytes);
  queue.locked([&](client::SlotTable& slots) {
    slots.set_owner(ref->slot, ref);
    pool.give_back_watched(old_ref);
  });
}

MemoryStats memory_stats(c10::DeviceIndex device) {
  MemoryStats copy;
  change_stats(device, [&](MemoryStats& stats) { copy = stats; });
  copy.limit = MemoryPool::of(device).limit();
  return copy;
}

std::vector<MemoryBlock> memory_blocks(c10::DeviceIndex device) {
  std::vector<MemoryBlock> blocks;
  change_stats(device, [&](MemoryStats&) { blocks = MemoryPool::of(device).blocks(); });
  return blocks;
}

void reset_peak_memory(c10::DeviceIndex device) {
  change_stats(device, [](MemoryStats& stats) {
    for (auto* tallies : {stats.count, stats.bytes, stats.requested}) {
      for (int i = 0; i < 3; ++i) tallies[i].peak = tallies[i].current;
    }
    stats.reserved.peak = stats.reserved.current;
    stats.segments.peak = stats.segments.current;
  });
}

void reset_accumulated_memory(c10::DeviceIndex device) {
  change_stats(device, [](MemoryStats& stats) {
    for (auto* tallies : {stats.count, stats.bytes, stats.requested}) {
      for (int i = 0; i < 3; ++i) reset_accumulated(tallies[i]);
    }
    reset_accumulated(stats.reserved);
    reset_accumulated(stats.segments);
    stats.out_of_memory = 0;
  });
}

void empty_cache(c10::DeviceIndex device) {
  change_stats(device, [](MemoryStats& stats) {
    const auto step = static_cast<int64_t>(MemoryPool::kSegmentBytes);
    const int64_t segments = (stats.bytes[0].current + step - 1) / step;
    MemoryPool::subtract(stats.reserved, stats.reserved.current - segments * step);
    MemoryPool::subtract(stats.segments, stats.segments.current - segments);
  });
}

void set_memory_limit(c10::DeviceIndex device, uint64_t bytes) { MemoryPool::of(device).set_limit(bytes); }

void close_storages() noexcept { g_deleters.store(Deleters::kClosed, std::memory_order_relaxed); }

}  // namespace waldo::torch_frontend
