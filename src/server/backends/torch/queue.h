// A queue on a c10 device: slots, plans, and the one path of a call (bind, run, verify).
#pragma once

#include <ATen/core/stack.h>

#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/backend.h"
#include "server/backends/torch/collectives.h"
#include "server/backends/torch/device.h"
#include "server/backends/torch/generators.h"
#include "server/backends/torch/geometry.h"
#include "server/backends/torch/plans.h"
#include "server/backends/torch/slots.h"
#include "wire/limits.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend {

// What the queues of a process share. Lives until the last of them is gone.
struct Shared {
  explicit Shared(std::string collective_net = "127.0.0.1") : collectives(std::move(collective_net)) {}

  bool cuda = false;
  uint16_t queue_count = 1;
  std::array<SlotTable, limits::queue_count_max> slots;
  std::array<MemoryCount, limits::queue_count_max> memory;
  Collectives collectives;
};

class TorchQueue final : public server::QueueBackend {
 public:
  TorchQueue(std::shared_ptr<Shared> shared, QueueId queue);
  ~TorchQueue() override;

  Status define(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> body) override;
  std::string op_name(PlanId plan) const override;
  Status call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars, bool* conformed,
              Buffer* report) override;
  Status create(Slot slot, uint64_t bytes) override;
  Status resize(Slot slot, uint64_t bytes) override;
  Status write(Slot slot, uint64_t offset, server::UploadedBytes bytes) override;
  Status read(Slot slot, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) override;
  void free(Slot slot) override;
  void poison(Slot slot, const Status& why) override;
  Status command(std::span<const std::byte> body, Buffer* report) override;
  Status synchronize() override;
  uint64_t now_ns() override;
  bool answers_later() const override { return !device_.is_cpu(); }
  Status read_later(Slot slot, uint64_t offset, uint64_t bytes, server::LateRead read) override;
  Status mark_later(server::LateMark told) override;

 private:
  // A call in progress.
  struct Call {
    Plan& plan;
    std::span<const Slot> slots;
    std::span<const std::byte> scalars;
    bool* conformed;
  };
  // An output that passed, on its way into a slot.
  struct Made {
    Slot slot;
    at::Tensor tensor;
    const Geometry* geometry;  // null: not a predicted one
  };

  // bind.cc: arguments onto the stack.
  Status bind(Call& call);
  Status bind_step(Call& call, const Step& step);
  // The tensor for `use`, valid until the end of the call; null and `failure` set when there is none.
  const at::Tensor* tensor_for(Call& call, const TensorUse& use, Status& failure);
  const at::Tensor* value_tensor(Call& call, const TensorUse& use);
  const at::Tensor* build_tensor(Call& call, const TensorUse& use, SlotEntry& entry, Slot slot, int64_t offset,
                                 Status& failure);
  SlotEntry* find(Slot slot) const;
  Result<c10::Storage> to_read(Slot slot, uint64_t offset, uint64_t bytes);
  Result<SlotEntry*> value_in(Slot slot) const;  // not ok: empty, poisoned, unknown

  // outputs.cc: results off the stack.
  Status take_outputs(Call& call);
  Status take_output(Call& call, const OutputPlan& predicted, c10::IValue&& real, size_t number);
  Status take_new(Call& call, const OutputPlan& predicted, at::Tensor tensor, size_t number);
  Status check_argument(Call& call, const OutputPlan& predicted, const c10::IValue& real, size_t number);
  Status check_view(Call& call, const OutputPlan& predicted, const at::Tensor& real, size_t number);
  Status check_written(Call& call, bool asked);
  Status report_outputs(Call& call, wire::Report& report);
  Status report_output(Call& call, c10::IValue&& real, wire::Output& output);
  Status report_tensor(Call& call, at::Tensor tensor, wire::Output& output);
  Status ordinary(Call& call, at::Tensor& tensor) const;  // resolves lazy flags; kUnsupported: not a plain tensor
  void commit();

  // command.cc
  Status run_command(const wire::Command& command, wire::Command& answer);

  Status call_plan(PlanId number, std::span<const Slot> slots, std::span<const std::byte> scalars, bool* conformed,
                   Buffer* report);
  Status run(Call& call, Buffer* report);
  Status create_storage(Slot slot, uint64_t bytes);
  Status define_graph(PlanId number, uint16_t reads, uint16_t creates, std::span<const std::byte> body);
  void keep_plan(PlanId number, Plan plan);

  // graphs.cc
  Status run_graph(const Graph& graph, std::span<const Slot> slots, bool* conformed);
  // Waits for the collectives that use what is in these slots. Not ok: one failed.
  Status settle(std::span<const Slot> slots) { return shared_->collectives.any() ? settle_slow(slots) : Status(); }
  Status settle_slow(std::span<const Slot> slots);
  Status own(Slot slot) const;
  Status reserve(uint64_t more) const;  // kDevice, out of memory, when the device's figure forbids it
  void count_bytes(SlotEntry& entry);   // brings the device's figure up to date with the entry
  void clear(SlotEntry& entry);
  c10::DispatchKeySet keys_for(const c10::Storage& storage) const;

  const std::shared_ptr<Shared> shared_;
  const QueueId queue_;
  const Device device_;
  SlotTable& slots_;
  MemoryCount& memory_;
  Generators generators_;
  GeometryTable geometries_;
  std::vector<std::unique_ptr<Plan>> plans_;

  // Of the call in progress; kept for their memory.
  torch::jit::Stack stack_;
  std::vector<const c10::TensorImpl*> bound_;  // by position in plan.tensors
  std::vector<at::Tensor> kept_;               // tensors over other queues' slots
  std::vector<Made> made_;
  size_t created_count_ = 0;  // slots a report has handed out

  // Last: their threads end first. Of a CPU they are never used. A short answer does not wait behind a download.
  DeviceClock clock_;  // the thread of short_answers_
  server::LateAnswers short_answers_{server::kStagedReadBytesMax}, long_answers_{server::kStagedReadBytesMax};
};

}  // namespace waldo::torch_backend
