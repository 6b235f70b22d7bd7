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

#include <bit>
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
  // Where to look first for the plan of this call: 12 bits that cost next to nothing; no promise that two keys differ.
  static constexpr unsigned kPlaceBits = 12;
  size_t place() const { return static_cast<size_t>(mixed_ * 0x9E3779B97F4A7C15ull >> (64 - kPlaceBits)); }
  std::span<const uint64_t> words() const { return words_.span(); }
  bool same(std::span<const uint64_t> words) const {
    if (words.size() != words_.size()) return false;
    // Word by word as they were written: memcmp would load several at once and wait until the stores have left the
    // core.
    uint64_t different = 0;
    for (size_t i = 0; i < words.size(); ++i) different |= words[i] ^ words_[i];
    return different == 0;
  }
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
  void put(uint64_t word) {
    words_.push_back(word);
    mixed_ = mix(mixed_, word);
  }
  static uint64_t mix(uint64_t mixed, uint64_t word) { return std::rotl(mixed, 23) ^ word; }
  [[noreturn]] void throw_mixed(const Operator& op, const at::Tensor& tensor, size_t argument) const;

  InlineVector<uint64_t, 96> words_;
  InlineVector<uint64_t, 12> scalars_;
  InlineVector<StorageRef*, 16> storages_;
  std::vector<uint16_t> buckets_;  // storages_ by hash, once there are more than a few
  c10::DeviceIndex device_ = -1;
  uint64_t mixed_ = 0;  // of all words, for place()
  bool wants_upload_ = false;
  bool has_mask_ = false;
};

}  // namespace waldo::torch_frontend
