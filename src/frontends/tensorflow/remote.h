// What stands here for values that only live on the worker: resources (variables) and variants (tensor lists). Dropping
// the last reference frees the worker's.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/session.h"
#include "tensorflow/core/framework/full_type.pb.h"
#include "tensorflow/core/framework/resource_handle.h"
#include "tensorflow/core/framework/variant.h"
#include "tensorflow/core/framework/variant_tensor_data.h"

namespace waldo::tensorflow_frontend {

// A slot that is freed with its last owner.
class OwnedSlot {
 public:
  OwnedSlot(client::Queue& queue, Slot slot) : queue_(queue), slot_(slot) {}
  OwnedSlot(const OwnedSlot&) = delete;
  ~OwnedSlot() { queue_.free_slot(slot_); }
  Slot slot() const { return slot_; }

 private:
  client::Queue& queue_;
  const Slot slot_;
};

using HandleData = std::vector<std::pair<tensorflow::PartialTensorShape, tensorflow::DataType>>;

class RemoteResource final : public tensorflow::ResourceBase {
 public:
  RemoteResource(client::Queue& queue, Slot slot, std::string name) : slot_(queue, slot), name_(std::move(name)) {}
  Slot slot() const { return slot_.slot(); }
  std::string DebugString() const override { return "a resource on the worker: " + name_; }

  std::atomic<bool> assigned{false};  // an assignment was recorded; false: ask

 private:
  OwnedSlot slot_;
  const std::string name_;
};

// In a DT_VARIANT scalar in host memory. Copies share the worker's value, which is immutable.
struct RemoteVariant {
  std::shared_ptr<OwnedSlot> slot;
  HandleData data;                             // what shape functions want to know of a list's elements
  std::vector<tensorflow::FullTypeDef> types;  // one for each of `data`

  std::string TypeName() const { return "waldo::RemoteVariant"; }
  std::string DebugString() const { return "a value on the worker"; }
  void Encode(tensorflow::VariantTensorData* out) const { out->set_type_name(TypeName()); }
  bool Decode(const tensorflow::VariantTensorData&) { return false; }  // it cannot leave this process
};

}  // namespace waldo::tensorflow_frontend
