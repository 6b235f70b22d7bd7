// What torch.cuda.memory._record_memory_history() asks for: who took each storage's memory, and every taking and giving
// back in order, with the frames of the thread that did it.
//
// Frames need the interpreter's lock, so they are gathered before the queue's: while a history is kept, memory is
// refused to whoever comes without them (MemoryPool::take), and he comes again inside an AllocationContext. Nothing is
// paid while none is kept.
//
// Owns:    the entries, at most `entries_max` per device, and the frames of what lives.
// Threads: any. Its lock is the innermost; taken() and given_back() are called under the queue's.
// Errors:  frames that cannot be gathered are none.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "frontends/torch/api.h"

namespace torch {
struct CapturedTraceback;
}

namespace waldo::torch_frontend {

enum class HistoryContext : uint8_t { kNever, kState, kAlloc, kAll };  // whose frames are gathered, as PyTorch counts
enum class HistoryAction : uint8_t { kAlloc, kFreeRequested, kFreeCompleted, kOutOfMemory, kSnapshot, kCount };

struct HistoryOptions {
  HistoryContext context = HistoryContext::kNever;
  bool with_cpp_frames = false;
  uint64_t entries_max = 0;  // per device; the oldest go
  bool clear = false;        // forget what an earlier call kept
  uint32_t skipped = 0;      // 1 << HistoryAction
};

using Traceback = std::shared_ptr<torch::CapturedTraceback>;

struct HistoryEntry {
  HistoryAction action = HistoryAction::kAlloc;
  uint64_t address = 0;  // kOutOfMemory: what the device had left
  uint64_t bytes = 0;    // as asked for
  int64_t stream = 0;
  int64_t time_us = 0;  // since 1970
  Traceback frames;
  std::shared_ptr<const std::string> metadata;  // null: none
};

struct History {
  std::vector<std::vector<HistoryEntry>> devices;
  struct Living {
    Traceback frames;
    int64_t stream = 0;
  };
  std::unordered_map<uint64_t, Living> living;  // by address; only what was taken while a history was kept
};

WALDO_TORCH_API void start_history(const HistoryOptions& options);
WALDO_TORCH_API void stop_history();  // and forgets it
WALDO_TORCH_API bool history_is_kept();
WALDO_TORCH_API History history(size_t devices);
WALDO_TORCH_API void note_snapshot(c10::DeviceIndex device, uint64_t bytes);
// Of what is recorded from now on; empty: none.
WALDO_TORCH_API void set_history_metadata(const std::string& metadata);
WALDO_TORCH_API std::string history_metadata();

// Called, with no lock of ours held, before OutOfMemoryError is thrown: device, bytes asked for, allocated, free.
using OutOfMemoryObserver = std::function<void(int, uint64_t, uint64_t, uint64_t)>;
WALDO_TORCH_API void observe_out_of_memory(OutOfMemoryObserver observer);
void tell_out_of_memory(c10::DeviceIndex device, uint64_t bytes, uint64_t allocated, uint64_t free);

// Around the second try of what was refused memory: this thread's frames.
class AllocationContext {
 public:
  AllocationContext();
  ~AllocationContext();
  AllocationContext(const AllocationContext&) = delete;
  AllocationContext& operator=(const AllocationContext&) = delete;
  bool worth_another_try() const { return kept_; }  // the refusal may have been for want of frames

 private:
  const bool kept_;
};

// --- what memory tells -----------------------------------------------------------------------------------------------

void history_of_opened(c10::DeviceIndex device);  // its queue is there from now on
void note_free_requested(c10::DeviceIndex device, const void* address, uint64_t bytes) noexcept;

}  // namespace waldo::torch_frontend
