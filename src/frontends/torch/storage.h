// Storages that live on a worker. Each is a plain c10::StorageImpl whose DataPtr has a StorageRef as its context and a
// unique address that is never valid here as its pointer, so that data_ptr() arithmetic, overlap checks and tied-weight
// detection behave, and a stray dereference faults at once.
//
// Owns:    StorageRefs are pooled for ever (memory_pool.h). A live one is owned by the DataPtr of one StorageImpl, and
// its
//          slot names it as its owner: both end when the slot's FREE is recorded.
// Threads: any; what is counted, under the lock of the device's queue.
// Errors:  thrown as the exception a CUDA user expects. Deleters throw nothing, and do nothing after shutdown or fork.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Storage.h>
#include <c10/core/TensorImpl.h>

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "client/session.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

struct StorageRef {
  client::Queue* queue = nullptr;
  Slot slot;
  c10::Device device{c10::DeviceType::CUDA, 0};  // whole, as every DataPtr wants it
  uint32_t size_class = 0;                       // of the address; fixed
  uint64_t bytes = 0;                            // as asked for
  void* address = nullptr;  // null when `bytes` is 0 at creation (size class 0), as CUDA gives; fixed
  StorageRef* next_free = nullptr;
};

// The deleter of every far storage's DataPtr, and so its mark.
WALDO_TORCH_API void delete_storage_ref(void* ref) noexcept;

// Told by the queue when the FREE of its slot is recorded: its memory can be counted as free and taken again.
void release_storage_ref(void* ref) noexcept;
class MemoryWatch;
// Null: nobody. The device is opened; the watch lives for ever.
void watch_memory(c10::DeviceIndex device, MemoryWatch* watch);
// A storage's data from a StorageRef that has its slot.
inline c10::DataPtr data_of(StorageRef* ref) { return {ref->address, ref, &delete_storage_ref, ref->device}; }
[[noreturn]] WALDO_TORCH_API void throw_out_of_memory(c10::DeviceIndex device, uint64_t bytes);

// The StorageRef of a far storage, or null when the storage is not ours (a CPU or meta tensor).
inline StorageRef* storage_ref(const c10::StorageImpl& storage) {
  return storage.data_ptr().cast_context<StorageRef>(&delete_storage_ref);
}
inline StorageRef* storage_ref(const c10::TensorImpl& tensor) {
  const c10::StorageImpl* storage = tensor.unsafe_storage().unsafeGetStorageImpl();
  return storage == nullptr ? nullptr : storage_ref(*storage);
}

inline bool is_waldo(const c10::StorageImpl& storage) { return storage_ref(storage) != nullptr; }

// A storage that an asked call has already made in `slot`. Throws OutOfMemoryError when the device's memory would be
// exceeded (`slot` is given back then).
WALDO_TORCH_API c10::Storage make_storage(client::Queue& queue, c10::DeviceIndex device, uint64_t bytes, Slot slot);

// A storage that exists at once: records CREATE. The DataPtr form is what the allocator hands out.
WALDO_TORCH_API c10::Storage create_storage(c10::DeviceIndex device, uint64_t bytes);
c10::DataPtr create_data(c10::DeviceIndex device, uint64_t bytes);

WALDO_TORCH_API c10::Allocator* allocator();  // of the CUDA device type

// Changes the size on both sides: records RESIZE, takes a new address and accounts for it. Content that fits is kept.
WALDO_TORCH_API void resize_storage(c10::StorageImpl& storage, uint64_t bytes);

// Which device an address of ours belongs to; -1 when it is not ours.
WALDO_TORCH_API int device_of_address(const void* address);

// What the CUDA caching allocator would say, counted here: sizes rounded to 512 bytes; [0] all, [1] small, [2] large.
struct Tally {
  int64_t current = 0, peak = 0, allocated = 0;
  int64_t at_reset = 0;  // `current` when `allocated` was last set to 0
  int64_t freed() const { return at_reset + allocated - current; }
};
struct MemoryStats {
  Tally count[3], bytes[3], requested[3];
  Tally reserved;  // mirrors the peak of `bytes`, in 2 MiB steps, until empty_cache()
  Tally segments;
  uint64_t out_of_memory = 0;
  uint64_t limit = 0;  // bytes that may be allocated; 0: not known
};
// A storage that lives now; a block of the caching allocator, where CUDA has one.
struct MemoryBlock {
  const void* address = nullptr;
  uint64_t bytes = 0;  // as asked for
  uint64_t taken = 0;  // rounded, as MemoryStats counts it
  bool is_large = false;
};
WALDO_TORCH_API std::vector<MemoryBlock> memory_blocks(c10::DeviceIndex device);  // by address
WALDO_TORCH_API MemoryStats memory_stats(c10::DeviceIndex device);
WALDO_TORCH_API void reset_peak_memory(c10::DeviceIndex device);
WALDO_TORCH_API void reset_accumulated_memory(c10::DeviceIndex device);
WALDO_TORCH_API void empty_cache(c10::DeviceIndex device);
WALDO_TORCH_API void set_memory_limit(c10::DeviceIndex device, uint64_t bytes);

// After these, deleters do nothing. close_storages() is for the end of the process; the fork handler calls it too.
WALDO_TORCH_API void close_storages() noexcept;

}  // namespace waldo::torch_frontend
