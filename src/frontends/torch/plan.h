// A plan as the front end keeps it: its number on the worker, and what its outputs are.
//
// Owns:    plans live for ever; a newer plan for the same key is reached through the older one.
// Threads: a plan is read by any thread; what changes after it was put into a table is atomic.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/util/SmallVector.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "frontends/torch/far_tensor.h"
#include "frontends/torch/memory_pool.h"
#include "frontends/torch/op_table.h"
#include "frontends/torch/plan_key.h"
#include "wire/plan_body.h"

namespace waldo::torch_frontend {

wire::DType to_wire(at::ScalarType dtype);  // throws NotImplementedError for one that cannot travel
at::ScalarType from_wire(wire::DType dtype);

// Which tensor of a call: an argument, or an element of an argument that is a list (-1: not a list).
struct TensorPlace {
  uint16_t argument = 0;
  int32_t element = -1;
  const at::Tensor& in(const c10::IValue* arguments) const;
};

struct OutputPlan {
  wire::OutputKind kind = wire::OutputKind::kNone;
  bool contiguous = true;
  bool conj = false, neg = false;
  at::ScalarType dtype = at::kFloat;
  uint16_t slot = 0;  // kNew: which of the created ones; kViewOf: which of the storages read
  TensorPlace place;  // kArgument
  uint64_t storage_bytes = 0;
  int64_t offset = 0;  // elements
  c10::SmallVector<int64_t, 5> sizes, strides;
  double number = 0;
  int64_t integer = 0;
  std::vector<OutputPlan> list;
  c10::intrusive_ptr<FarTensorImpl> prototype;  // of a tensor, once the plan is kept
};

// An out= tensor that the operator will resize: we do it before the call, which then has another key.
struct Resize {
  TensorPlace place;
  std::vector<int64_t> sizes, strides;
};

struct Plan {
  enum class Mode : uint8_t {
    kKnown,      // outputs are foretold
    kResize,     // apply `resizes`, then look again
    kLearn,      // ask, then keep the answer as the plan
    kAsk,        // ask every time
    kConformed,  // was known, but the worker's outputs differ from it
    kReplaced,   // look at `newer`
  };
  std::atomic<Mode> mode{Mode::kKnown};
  PlanId id;
  c10::DeviceIndex device = 0;
  uint16_t reads = 0, creates = 0;
  std::vector<OutputPlan> outputs;
  std::vector<StorageNeed> needs;  // of each storage that `outputs` makes
  std::vector<uint64_t> key;       // CallKey::words(); only of plans that are kKnown from the start
  std::vector<Resize> resizes;
  bool shares_storages = false;  // two outputs lie in one new storage
  bool learned = false;          // `outputs` are what the worker itself said
  const Operator* op = nullptr;  // of a plan that was foretold
  std::atomic<Plan*> newer{nullptr};
};

// The tensors of a call in the order the wire counts them: every tensor, 0-dim CPU numbers too, undefined ones not.
std::vector<TensorPlace> tensor_places(const Operator& op, const c10::IValue* arguments);

// The body of a plan, outputs left empty.
wire::PlanBody describe_call(const Operator& op, const c10::IValue* arguments, const CallKey& key);
// Foretold outputs as the wire says them; `places` from tensor_places().
std::vector<wire::Output> to_wire(const std::vector<OutputPlan>& outputs, uint16_t reads,
                                  const std::vector<TensorPlace>& places);
// What a worker reported; `reads` of the call it answers.
std::vector<OutputPlan> from_wire(const std::vector<wire::Output>& outputs, uint16_t reads,
                                  const std::vector<TensorPlace>& places);

// How many slots an asked call gets for its outputs: as many as it can make.
uint16_t creates_max(const Operator& op, const c10::IValue* arguments);

}  // namespace waldo::torch_frontend
