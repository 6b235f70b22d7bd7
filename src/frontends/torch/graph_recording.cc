#include "frontends/torch/graph_recording.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "frontends/torch/memory_pool.h"
#include "wire/limits.h"

namespace waldo::torch_frontend {

constinit std::atomic<uint32_t> g_graph_recordings{0};

namespace {

thread_local GraphRecording* t_recording = nullptr;

}  // namespace

GraphRecording* GraphRecording::of_this_thread() { return t_recording; }

GraphRecording::GraphRecording(c10::DeviceIndex device, std::span<const Slot> inputs)
    : device_(device), inputs_(static_cast<uint32_t>(inputs.size())) {
  TORCH_INTERNAL_ASSERT(t_recording == nullptr);
  for (uint32_t i = 0; i < inputs_; ++i) values_[inputs[i].raw] = i;
  t_recording = this;
  g_graph_recordings.fetch_add(1, std::memory_order_relaxed);
}

GraphRecording::~GraphRecording() {
  t_recording = nullptr;
  g_graph_recordings.fetch_sub(1, std::memory_order_relaxed);
}

std::optional<uint32_t> GraphRecording::value_in(Slot slot) const {
  const auto found = values_.find(slot.raw);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

// A slot that was freed may be taken again: its name is the newer value's.
uint32_t GraphRecording::make(Slot slot, uint64_t bytes) {
  const auto value = static_cast<uint32_t>(inputs_ + made_bytes_.size());
  values_[slot.raw] = value;
  made_bytes_.push_back(bytes);
  return value;
}

void note_call(const Plan& plan, std::span<const Slot> slots, std::span<const std::byte> scalars) {
  GraphRecording* mine = t_recording;
  if (mine == nullptr || mine->unfit_ != nullptr) return;
  if (plan.device != mine->device_) return note_unfit("uses two devices");
  wire::GraphStep step;
  step.plan = plan.id;
  step.scalars.assign(scalars.begin(), scalars.end());
  for (size_t i = 0; i < plan.reads; ++i) {
    const std::optional<uint32_t> value = mine->value_in(slots[i]);
    if (!value.has_value()) return note_unfit("uses a tensor that it neither gets nor makes");
    step.values.push_back(*value);
  }
  for (size_t i = 0; i < plan.creates; ++i) {
    step.values.push_back(mine->make(slots[plan.reads + i], plan.needs[i].bytes));
  }
  mine->steps_.push_back(std::move(step));
}

void note_create(c10::DeviceIndex device, Slot slot, uint64_t bytes) {
  GraphRecording* mine = t_recording;
  if (mine == nullptr || mine->unfit_ != nullptr) return;
  if (device != mine->device_) return note_unfit("uses two devices");
  const uint32_t value = mine->make(slot, bytes);
  mine->steps_.push_back({.kind = wire::GraphStep::Kind::kCreate, .bytes = bytes, .values = {value}});
}

// An operator that makes its result by way of an out= of its own.
void note_resize(c10::DeviceIndex device, Slot slot, uint64_t bytes) {
  GraphRecording* mine = t_recording;
  if (mine == nullptr || mine->unfit_ != nullptr) return;
  const std::optional<uint32_t> value = mine->value_in(slot);
  if (device != mine->device_ || !value.has_value() || *value < mine->inputs_)
    return note_unfit("changes the size of an argument");
  mine->made_bytes_[*value - mine->inputs_] = bytes;
  mine->steps_.push_back({.kind = wire::GraphStep::Kind::kResize, .bytes = bytes, .values = {*value}});
}

void note_unfit(const char* what) {
  if (t_recording != nullptr && t_recording->unfit_ == nullptr) t_recording->unfit_ = what;
}

GraphRecording::Graph GraphRecording::finish(std::span<const uint32_t> outputs) const {
  constexpr uint32_t kUnknown = UINT32_MAX;
  const size_t count = inputs_ + made_bytes_.size();
  std::vector<uint32_t> number(count, kUnknown);
  uint32_t next = 0;
  for (uint32_t i = 0; i < inputs_; ++i) number[i] = next++;
  for (const uint32_t output : outputs) number[output] = next++;
  const uint32_t named = next;
  for (uint32_t& value : number) {
    if (value == kUnknown) value = next++;
  }

  Graph graph;
  graph.body.value_count = next;
  graph.body.steps = steps_;
  std::vector<size_t> last_step(count, 0);
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (const uint32_t value : steps_[i].values) last_step[value] = i;
  }
  const auto taken = [this](uint32_t value) { return MemoryPool::rounded(bytes_of(value)); };
  std::vector<bool> made(count, false);
  uint64_t now = 0;
  for (size_t i = 0; i < steps_.size(); ++i) {
    for (const uint32_t value : steps_[i].values) {
      if (value < inputs_ || made[value]) continue;
      made[value] = true;
      now += taken(value);
    }
    graph.peak_bytes = std::max(graph.peak_bytes, now);
    std::vector<uint32_t>& values = graph.body.steps[i].values;
    for (uint32_t& value : values) {
      const uint32_t was = value;
      value = number[was];
      if (value >= named && last_step[was] == i && made[was]) {
        made[was] = false;
        now -= taken(was);
      }
    }
  }
  return graph;
}

}  // namespace waldo::torch_frontend
