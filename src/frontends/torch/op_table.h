// What the forwarding part knows of each operator: the classes of its arguments, how its outputs are foretold, and
// which operators the CUDA key forwards at all.
//
// Owns:    Operators live for ever, one per registered kernel.
// Threads: made while registering, by one thread; read-only afterwards.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/torch/forward_flags.h"

namespace waldo::torch_frontend {

enum class ArgumentClass : uint8_t {
  kTensor,
  kTensorList,
  kScalar,
  kFloat,
  kFloatList,
  kScalarList,  // values outside the key
  kInt,
  kBool,
  kString,
  kIntList,
  kBoolList,
  kStringList,
  kDType,
  kLayout,
  kMemoryFormat,
  kDevice,
  kGenerator,
  kOther,  // nothing that can be sent
};

// Where the outputs of an operator come from when there is no plan yet.
enum class Foresight : uint8_t {
  kMeta,   // PyTorch's C++ Meta kernel, else as kLearn
  kLearn,  // ask once per plan
  kAsk,    // ask every time: the outputs depend on values
};

struct Operator {
  explicit Operator(c10::OperatorHandle handle);

  const c10::OperatorHandle handle;
  uint64_t id = 0;  // in keys; unique in this process
  std::vector<ArgumentClass> arguments;
  std::vector<bool> written;  // per argument: the schema says it is written (out=, in-place)
  size_t return_count = 0;
  Foresight foresight = Foresight::kMeta;
  bool scalars_in_key = false;       // a Scalar's or float's value shapes the outputs (arange, upsample)
  bool masks_ask = false;            // kAsk when an index is a bool or uint8 mask (index.Tensor)
  bool uploads_cpu_tensors = false;  // CPU tensors with dimensions are allowed and go to the device first (index)
  bool crosses_devices = false;      // its tensors may live on several devices (copy_)
  bool pointwise = false;
  // Of _foreach_*: an operator for each tensor, for lists that a device cannot take whole (other devices, CPU numbers).
  std::optional<c10::SafeKernelFunction> one_by_one;
  FlagCheck flags = FlagCheck::kCheap;          // which context flags can change what it computes
  std::optional<c10::SafeKernelFunction> meta;  // see snapshot_meta_kernels()

  std::string name() const;  // "aten::add.Tensor"
};

// The C++ Meta kernel that `handle` had when snapshot_meta_kernels() ran; none when it had none.
std::optional<c10::SafeKernelFunction> snapshotted_meta(const c10::OperatorHandle& handle);

// Every operator whose CUDA kernel is the boxed one, in order of their names: those that list CUDA in PyTorch's
// native_functions.yaml (op_table.inc), and all that CompositeExplicitAutogradNonFunctional would decompose.
// Not among them: those by hand (is_by_hand) and those that stay composite.
std::vector<c10::OperatorHandle> forwarded_operators();

// Has the operator ("aten::copy_") a kernel of its own in kernels.cc?
bool is_by_hand(std::string_view name);

}  // namespace waldo::torch_frontend
