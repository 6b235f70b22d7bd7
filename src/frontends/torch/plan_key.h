// The key of a call: everything in it that decides how it runs and what comes out, as words to be hashed, and beside it
// what changes from call to call: the storages used and the values of scalars and offsets.
//
// In the key: the operator; per tensor dtype, sizes, strides, conj and neg bits, whether the offset is zero, and which
// of the call's storages it lies in, by first appearance; ints, bools, strings and lists by value. Not in it: the
// content and names of storages, offsets, and the values of Scalars, floats and 0-dim CPU tensors
// (Operator::scalars_in_key).
//
// Owns:    nothing of the arguments; they must outlive it.
// Threads: one; it lives on the stack of the call.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "client/plan_table.h"
#include "frontends/torch/inline_vector.h"
#include "frontends/torch/op_table.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

class CallKey {
 public:
  // Hot: once per operation. Throws what CUDA throws when tensors live on several devices.
  void walk(const Operator& op, const c10::IValue* arguments);

  client::PlanKey hash() const;
  c10::DeviceIndex device() const { return device_; }
  std::span<StorageRef* const> storages() const { return storages_.span(); }
  std::span<const std::byte> scalars() const { return std::as_bytes(scalars_.span()); }
  uint16_t storage_index(const StorageRef* ref) const;  // of one that walk() saw

  // An index tensor on the CPU must be uploaded first; the key is not complete.
  bool wants_upload() const { return wants_upload_; }
  // A bool or uint8 tensor is in a tensor list: for operators with masks_ask the result's size depends on its content.
  bool has_mask() const { return has_mask_; }

 private:
  void tensor(const Operator& op, const c10::IValue& value, size_t argument, bool in_list);
  void other_tensor_slow(const Operator& op, const c10::IValue& value, size_t argument, bool in_list);
  void scalar(const Operator& op, const c10::IValue& value);
  void list(const Operator& op, const c10::IValue& value, ArgumentClass what, size_t argument);
  void rare(const Operator& op, const c10::IValue& value, ArgumentClass what, size_t argument);
  uint64_t group_of(StorageRef* ref);
  uint64_t group_slow(StorageRef* ref);
  void put(uint64_t word) { words_.push_back(word); }
  [[noreturn]] void throw_mixed(const Operator& op, const at::Tensor& tensor, size_t argument) const;

  InlineVector<uint64_t, 96> words_;
  InlineVector<uint64_t, 12> scalars_;
  InlineVector<StorageRef*, 16> storages_;
  std::vector<uint16_t> buckets_;  // storages_ by hash, once there are more than a few
  c10::DeviceIndex device_ = -1;
  bool wants_upload_ = false;
  bool has_mask_ = false;
};

}  // namespace waldo::torch_frontend
