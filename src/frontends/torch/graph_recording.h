// A thread's calls, written down while they are recorded: what a graph is made of (graph.h). They run as ever; nothing
// is put off. What a graph cannot hold (a read, an upload, an argument that changes its size, another device, a
// tensor from elsewhere) is noted too, and then there is no graph.
//
// Threads: a recording is its thread's own. The note_…() functions are called by whatever thread records, when
//          any_graph_recording(), and do nothing on threads without a recording.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "frontends/torch/plan.h"
#include "wire/graph_body.h"

namespace waldo::torch_frontend {

extern constinit std::atomic<uint32_t> g_graph_recordings;
// Hot: all that an ordinary call pays for graphs.
[[gnu::always_inline]] inline bool any_graph_recording() {
  return g_graph_recordings.load(std::memory_order_relaxed) != 0;
}

// After the record is on its way.
void note_call(const Plan& plan, std::span<const Slot> slots, std::span<const std::byte> scalars);
void note_create(c10::DeviceIndex device, Slot slot, uint64_t bytes);
void note_resize(c10::DeviceIndex device, Slot slot, uint64_t bytes);
void note_unfit(const char* what);  // "reads a value"

class GraphRecording {
 public:
  // Begins on this thread, which has none. The first values are the storages in these slots.
  GraphRecording(c10::DeviceIndex device, std::span<const Slot> inputs);
  ~GraphRecording();  // on the same thread
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  static GraphRecording* of_this_thread();

  // Why there can be no graph; null: there can.
  const char* unfit() const { return unfit_; }
  // Which value is in a slot now; none: it came from elsewhere.
  std::optional<uint32_t> value_in(Slot slot) const;
  uint64_t bytes_of(uint32_t made) const { return made_bytes_[made - inputs_]; }  // of a value that was made

  struct Graph {
    wire::GraphBody body;
    uint64_t peak_bytes = 0;  // taken at once by all that is made, each rounded as the caching allocator does
  };
  // With the made values `outputs`, each once, as what a call creates.
  Graph finish(std::span<const uint32_t> outputs) const;

 private:
  friend void note_call(const Plan&, std::span<const Slot>, std::span<const std::byte>);
  friend void note_create(c10::DeviceIndex, Slot, uint64_t);
  friend void note_resize(c10::DeviceIndex, Slot, uint64_t);
  friend void note_unfit(const char*);

  uint32_t make(Slot slot, uint64_t bytes);

  const c10::DeviceIndex device_;
  const uint32_t inputs_;
  const char* unfit_ = nullptr;
  std::unordered_map<uint32_t, uint32_t> values_;  // by Slot::raw: the newest one there
  std::vector<uint64_t> made_bytes_;
  std::vector<wire::GraphStep> steps_;
};

}  // namespace waldo::torch_frontend
