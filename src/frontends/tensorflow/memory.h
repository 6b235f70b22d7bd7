// Device memory as this process sees it: addresses in a reservation that is never readable, so that a stray dereference
// faults at once, and every tensor's buffer can be told from a host one by its address.
//
// Block: one buffer. Its slot is taken when TensorFlow allocates it and freed when TensorFlow gives it back; the worker
// has a value there once a call or an upload made it. Buffers are written once, when they are made (variables live on
// the worker), so a small upload can be kept here and read again without asking anybody.
//
// Threads: any. find() takes no lock. What a Block says may be read by whoever holds a tensor over it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/session.h"
#include "tensorflow/core/framework/allocator.h"

namespace waldo::tensorflow_frontend {

struct Block {
  client::Queue* queue = nullptr;
  Slot slot;
  void* address = nullptr;
  uint64_t bytes = 0;
  uint64_t fingerprint = 0;        // type and shape of the value there (wire::tf::fingerprint); 0: not made yet
  std::unique_ptr<char[]> shadow;  // the content, when it came from here and is small
};

// The block that an address lies in, or null when it is not ours (a host tensor).
Block* find_block(const void* address);

inline constexpr uint64_t kShadowBytesMax = 64u << 10;
inline constexpr uint64_t kInlineBytesMax = 64u << 10;  // in a call; above it an upload's own lane is the better way

// The allocator of one device.
class FarAllocator final : public tsl::Allocator {
 public:
  FarAllocator(std::string name, uint64_t limit) : name_(std::move(name)), limit_(limit) {}

  void set_queue(client::Queue* queue) { queue_ = queue; }
  // The next allocation on this thread gets this slot instead of a new one: what an asked call has made already.
  static void adopt(Slot slot);

  std::string Name() override { return name_; }
  void* AllocateRaw(size_t alignment, size_t bytes) override;  // null past the limit: ResourceExhausted
  void DeallocateRaw(void* address) override;
  bool TracksAllocationSizes() const override { return true; }
  size_t RequestedSize(const void* address) const override;
  std::optional<tsl::AllocatorStats> GetStats() override;
  bool ClearStats() override;
  tsl::AllocatorMemoryType GetMemoryType() const override { return tsl::AllocatorMemoryType::kDevice; }

 private:
  const std::string name_;
  const uint64_t limit_;
  client::Queue* queue_ = nullptr;
  std::mutex mutex_;  // guards the rest
  tsl::AllocatorStats stats_;
};

}  // namespace waldo::tensorflow_frontend
