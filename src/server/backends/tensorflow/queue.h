// One device of a TensorFlow context: plans, slots, and the path of a call.
//
// Slots hold handles of eager tensors. A handle may be a resource or a variant: variables and lists live here.
// Threads: as server/backend.h; slots of all queues are in one table under a lock, since calls may name other queues'.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/backends/tensorflow/tensors.h"

namespace waldo::tensorflow_backend {

struct SlotEntry {
  Handle handle;
  std::shared_ptr<server::UploadedBytes> bytes;  // uploaded, and not yet said to be a tensor
  Status error;                                  // not ok: poisoned
};

// What the queues of a process share. Lives until the last of them is gone.
struct Shared {
  ~Shared();
  TFE_Context* context = nullptr;
  uint16_t queue_count = 1;
  bool gpu = false;
  std::mutex mutex;
  std::unordered_map<Slot, SlotEntry> slots;  // mutex
};

class TfQueue final : public server::QueueBackend {
 public:
  TfQueue(std::shared_ptr<Shared> shared, QueueId queue);
  ~TfQueue() override;

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

 private:
  struct Plan {
    wire::tf::PlanBody body;
    uint16_t reads = 0;
    bool defined = false;
    Op attributes;  // parsed; null: not run yet, or it has none
  };

  Status run(Plan& plan, std::span<const Slot> slots, const wire::tf::CallBody& call, Buffer* report);
  Status run_op(Plan& plan, const std::vector<Handle>& inputs, std::vector<Handle>& outputs);
  Status parse_attributes(Plan& plan);
  Status shape_upload(Slot slot, const wire::tf::TensorMeta& meta);
  // The value in a slot: a reference of its own.
  Result<Handle> take_value(Slot slot);
  Result<std::vector<Handle>> bind(const Plan& plan, std::span<const Slot> reads, const wire::tf::CallBody& call);
  Status keep(std::span<const Slot> creates, std::vector<Handle> outputs);

  const std::shared_ptr<Shared> shared_;
  const QueueId queue_;
  const std::string device_;
  std::vector<Plan> plans_;
  std::string function_;  // pieces so far
  TfStatus status_;
};

}  // namespace waldo::tensorflow_backend
