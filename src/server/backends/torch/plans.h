// A plan, prepared: the operator looked up, each argument's way onto the stack decided, geometries interned, outputs
// laid out. What is left for a call is to follow it.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/backends/torch/generators.h"
#include "server/backends/torch/geometry.h"
#include "server/backends/torch/graphs.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend {

// One tensor among the arguments.
struct TensorUse {
  const Geometry* geometry = nullptr;
  int64_t offset = 0;  // elements; when dynamic, where in the scalars it is found instead
  bool dynamic_offset = false;
  bool by_value = false;          // a CPU scalar: its 16 bytes are at `offset` among the scalars, `slot` is into values
  bool to_cpu = false;            // a CPU tensor by content
  bool none = false;              // an absent optional tensor of a list
  uint16_t slot = wire::kNoSlot;  // index into the call's slots
};

// The tensor of a CPU scalar, kept from call to call; its value seldom changes.
struct ValueTensor {
  std::array<std::byte, 16> value{};
  at::Tensor tensor;
};

struct Step {
  enum class Kind : uint8_t {
    kConstant,    // `constant`
    kTensor,      // tensors[first]
    kTensorList,  // tensors[first .. first + count)
    kOptionalTensorList,
    kInt,  // dynamic values from here on, at `at` among the scalars
    kFloat,
    kScalar,
    kIntList,
    kFloatList,
    kScalarList,
    kGenerator,  // number `first`
  };
  Kind kind = Kind::kConstant;
  bool written = false;  // the operator changes it
  bool out = false;      // out=, which the operator may want to resize
  uint32_t first = 0, count = 0;
  uint32_t at = 0;
  std::vector<wire::ScalarTag> tags;
  c10::IValue constant;
};

struct OutputPlan {
  wire::OutputKind kind = wire::OutputKind::kNone;
  uint16_t slot = wire::kNoSlot;
  uint32_t tensor_index = 0;  // into Plan::tensors
  const Geometry* geometry = nullptr;
  int64_t offset = 0;
  uint64_t storage_bytes = 0;
  double number = 0;
  int64_t integer = 0;
  std::vector<OutputPlan> list;
};

struct Plan {
  std::string name;  // "aten::add.Tensor"
  Status unusable;   // not ok: what a call of it fails with
  std::optional<c10::OperatorHandle> handle;
  uint16_t reads = 0, creates = 0;
  uint32_t scalar_bytes = 0;  // a call brings exactly so many
  std::vector<Step> steps;
  std::vector<TensorUse> tensors;
  std::vector<ValueTensor> values;  // of the uses by value; TensorUse::slot says which
  std::vector<OutputPlan> outputs;
  uint64_t new_bytes = 0;   // what the predicted new storages take together
  bool random = false;      // draws from a default generator we cannot hand it
  bool collective = false;  // of wire/collectives.h: says itself what it waits for
  bool plain_keys = false;  // `keys` are right for every call
  c10::DispatchKeySet keys;
  std::unique_ptr<const Graph> graph;  // set: a run of other plans' calls, and nothing else here has a meaning
};

// kInvalid when the body contradicts itself; an operator or argument this worker cannot run makes a plan that is
// `unusable` instead. `queue_count`: device numbers in the body are below it.
Result<Plan> prepare(const wire::PlanBody& body, uint16_t reads, uint16_t creates, GeometryTable& geometries,
                     const Generators& generators, const Device& device, uint16_t queue_count);

}  // namespace waldo::torch_backend
