// What a call is, as far as its plan goes. CallParts: what changes from call to call, the storages used and the values
// of scalars and offsets. The key: everything that decides how the call runs and what comes out, as words. One walk
// over the arguments finds both; it writes the key (CallKey), or compares it with one that is known
// (CallParts::matches), which costs half as much.
//
// In the key: the operator; per tensor dtype, sizes, strides, conj and neg bits, whether the offset is zero, and which
// of the call's storages it lies in, by first appearance; ints, bools, strings and lists by value. Not in it: the
// device; the content and names of storages, offsets, and the values of Scalars, floats and 0-dim CPU tensors
// (Operator::scalars_in_key).
//
// Owns:    nothing of the arguments; they must outlive it.
// Threads: one; it lives on the stack of the call.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "client/plan_table.h"
#include "frontends/torch/inline_vector.h"
#include "frontends/torch/op_table.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

class CallParts {
 public:
  // Hot: once per operation. Is `key`, the CallKey::words() of some call of any operator, the key of this call too? If
  // not, what this holds is of no use. Throws what CUDA throws when tensors live on several devices.
  bool matches(const Operator& op, const c10::IValue* arguments, const uint64_t* key);

  c10::DeviceIndex device() const { return device_; }
  std::span<StorageRef* const> storages() const { return storages_.span(); }
  std::span<const std::byte> scalars() const { return std::as_bytes(scalars_.span()); }
  uint16_t storage_index(const StorageRef* ref) const;  // of one that the walk saw

  // The call must be made another one first: its index tensors on the CPU uploaded, or its lists' tensors taken one by
  // one. Until then the key is that of no plan.
  enum class Detour : uint8_t { kNone, kUpload, kOneByOne };
  Detour detour() const { return detour_; }
  // A bool or uint8 tensor is in a tensor list: for operators with masks_ask the result's size depends on its content.
  bool has_mask() const { return has_mask_; }

  struct Shape;  // of a tensor

 protected:
  // `Words` takes the key word by word; false from it, and then from all of these: that was another key, stop.
  template <typename Words>
  bool walk(Words words, const Operator& op, const c10::IValue* arguments);

 private:
  template <typename Words>
  bool tensor(Words& words, const Operator& op, const c10::IValue& value, size_t argument, bool in_list);
  template <typename Words>
  bool far_tensor(Words& words, const c10::TensorImpl& impl, StorageRef* ref, const Shape& shape, bool in_list);
  template <typename Words>
  bool other_tensor_slow(Words& words, const Operator& op, const c10::IValue& value, size_t argument, bool in_list);
  template <typename Words>
  bool scalar(Words& words, const Operator& op, const c10::IValue& value);
  template <typename Words>
  bool rare(Words& words, const Operator& op, const c10::IValue& value, size_t argument);
  uint64_t group_of(StorageRef* ref);
  uint64_t group_slow(StorageRef* ref);
  [[noreturn]] void throw_mixed(const Operator& op, const at::Tensor& tensor, size_t argument) const;

  InlineVector<uint64_t, 12> scalars_;
  InlineVector<StorageRef*, 16> storages_;
  std::vector<uint16_t> buckets_;  // storages_ by hash, once there are more than a few
  c10::DeviceIndex device_ = -1;
  Detour detour_ = Detour::kNone;
  bool has_mask_ = false;
};

class CallKey : public CallParts {
 public:
  // Throws as matches().
  CallKey(const Operator& op, const c10::IValue* arguments);

  std::span<const uint64_t> words() const { return words_.span(); }
  client::PlanKey hash() const;

 private:
  InlineVector<uint64_t, 96> words_;
};

}  // namespace waldo::torch_frontend
