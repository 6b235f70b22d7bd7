#include "frontends/tensorflow/forward.h"

#include <functional>

#include "frontends/tensorflow/errors.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/node_def.pb.h"
#include "tensorflow/core/framework/op_def.pb.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace waldo::tensorflow_frontend {

using tensorflow::DataType;
using tensorflow::OpKernelConstruction;
using tensorflow::PartialTensorShape;
using tensorflow::TensorShape;
using wire::tf::Input;
using wire::tf::InputKind;

namespace {

constexpr uint64_t kKnownContentBytesMax = 1024;  // of a host input that a prediction may be remembered by
constexpr size_t kKnownMax = 64;

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ (value + 0x632be59bd9b4e019ull)) * 0x9e3779b97f4a7c15ull;
  return hash ^ (hash >> 29);
}

uint64_t hash_of(const TensorShape& shape, DataType dtype) {
  uint64_t hash = mix(mix(1, static_cast<uint64_t>(dtype)), static_cast<uint64_t>(shape.dims()));
  for (int i = 0; i < shape.dims(); ++i) hash = mix(hash, static_cast<uint64_t>(shape.dim_size(i)));
  return hash;
}

bool lives_on_worker(DataType dtype) { return dtype == tensorflow::DT_RESOURCE || dtype == tensorflow::DT_VARIANT; }

}  // namespace

// --- a call ----------------------------------------------------------------------------------------------------------

CallKernel::CallKernel(OpKernelConstruction* construction) : OpKernel(construction) {
  device_ = far_device(construction->device());
  if (device_ == nullptr) {
    construction->CtxFailure(absl::InternalError("a forwarding kernel on a device that is not ours"));
  }
  plan_.outputs = static_cast<uint16_t>(construction->num_outputs());
}

absl::Status CallKernel::bind(Call& call) {
  const int count = call.context->num_inputs();
  call.resources.assign(static_cast<size_t>(count), nullptr);
  for (int i = 0; i < count; ++i) {
    if (absl::Status status = bind_input(call, i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CallKernel::bind_input(Call& call, int index) {
  const Tensor& tensor = call.context->input(index);
  const auto take = [&](Slot slot) {
    call.pattern.push_back('s');
    call.slots.push_back(slot);
    call.body.inputs.emplace_back();
    return absl::OkStatus();
  };
  if (tensor.dtype() == tensorflow::DT_RESOURCE) {
    if (tensor.NumElements() != 1) return absl::UnimplementedError(def().op() + " takes an array of resources");
    const auto& handle = tensor.flat<tensorflow::ResourceHandle>()(0);
    auto* resource = dynamic_cast<RemoteResource*>(handle.resource().get());
    if (resource == nullptr) {
      return absl::FailedPreconditionError("the resource " + handle.name() + ", an input of " + def().op() +
                                           ", is not on the device " + device_->name());
    }
    call.resources[static_cast<size_t>(index)] = resource;
    return take(resource->slot());
  }
  if (tensor.dtype() == tensorflow::DT_VARIANT) {
    const auto* remote =
        tensor.NumElements() == 1 ? tensor.flat<tensorflow::Variant>()(0).get<RemoteVariant>() : nullptr;
    if (remote == nullptr) {
      return absl::UnimplementedError("a variant that was not made on " + device_->name() + " is an input of " +
                                      def().op());
    }
    return take(remote->slot->slot());
  }
  const Block* block = tensor.NumElements() == 0 ? nullptr : find_block(tensor.data());
  if (block == nullptr) return bind_host(call, tensor);
  (void)take(block->slot);
  Input& input = call.body.inputs.back();
  input.meta = meta_of(tensor);
  input.offset_bytes = static_cast<const char*>(tensor.data()) - static_cast<const char*>(block->address);
  if (input.offset_bytes != 0 || block->fingerprint != wire::tf::fingerprint(input.meta)) {
    input.form = Input::Form::kView;
    call.whole = false;
  }
  return absl::OkStatus();
}

absl::Status CallKernel::bind_host(Call& call, const Tensor& tensor) {
  if (tensor.dtype() != tensorflow::DT_STRING && tensor.TotalBytes() > kInlineBytesMax) {
    Tensor far(&device_->allocator(), tensor.dtype(), tensor.shape());
    if (!far.IsInitialized()) return absl::ResourceExhaustedError("out of the memory of " + device_->name());
    if (absl::Status status = device_->far().upload(tensor, &far); !status.ok()) return status;
    Block* block = find_block(far.data());
    call.pattern.push_back('s');
    call.slots.push_back(block->slot);
    call.extra.push_back(block->slot);
    block->slot = Slot{};  // ours to free, after the call
    call.body.inputs.emplace_back();
    return absl::OkStatus();
  }
  call.pattern.push_back('i');
  call.whole = false;
  Input& input = call.body.inputs.emplace_back();
  input.form = Input::Form::kInline;
  input.meta = meta_of(tensor);
  if (tensor.dtype() == tensorflow::DT_STRING) {
    const auto strings = tensor.flat<tensorflow::tstring>();
    for (int64_t i = 0; i < strings.size(); ++i) input.texts.emplace_back(strings(i).data(), strings(i).size());
  } else {
    input.content = {static_cast<const std::byte*>(tensor.data()), tensor.TotalBytes()};
  }
  return absl::OkStatus();
}

PlanId CallKernel::plan_for(const std::string& pattern) {
  std::lock_guard lock(mutex_);
  if (last_plan_ && pattern == last_pattern_) return *last_plan_;
  plan_.inputs.clear();
  for (const char letter : pattern) plan_.inputs.push_back(letter == 's' ? InputKind::kSlot : InputKind::kInline);
  last_plan_ = device_->far().plan(plan_);
  last_pattern_ = pattern;
  return *last_plan_;
}

absl::Status CallKernel::run(Call& call, const std::vector<Predicted>& predicted) {
  client::Queue& queue = device_->far().queue();
  tensorflow::OpKernelContext* context = call.context;
  const int outputs = context->num_outputs();
  const size_t reads = call.slots.size();
  bool asks = false;
  for (int i = 0; i < outputs; ++i) {
    asks |= !predicted[static_cast<size_t>(i)].shape && !lives_on_worker(context->expected_output_dtype(i));
  }
  Buffer scalars;
  if (!call.whole || call.body.outputs_expected != 0) wire::tf::encode(call.body, scalars);
  if (scalars.size() > limits::call_scalar_bytes_max) {
    return absl::UnimplementedError(def().op() + " has more in host memory than one call can carry");
  }
  const PlanId plan = plan_for(call.pattern);
  const auto give_back = [&] {
    for (const Slot slot : call.extra) queue.free_slot(slot);
    call.extra.clear();
  };

  if (asks) {
    for (int i = 0; i < outputs; ++i) call.slots.push_back(queue.new_slot());
    Buffer bytes;
    const Status status = queue.ask(plan, call.slots, scalars, &bytes);
    give_back();
    const auto drop_made = [&] {
      for (size_t i = reads; i < call.slots.size(); ++i) queue.free_slot(call.slots[i]);
    };
    if (!status.ok()) {
      drop_made();
      return to_tensorflow(status);
    }
    auto report = wire::tf::decode_report(bytes);
    if (!report.ok() || report->outputs.size() != static_cast<size_t>(outputs)) {
      drop_made();
      return absl::InternalError("the worker describes other outputs than " + def().op() + " has");
    }
    std::vector<std::pair<Tensor*, Slot>> wanted;
    for (int i = 0; i < outputs; ++i) {
      const Slot made = call.slots[reads + static_cast<size_t>(i)];
      const auto& meta = report->outputs[static_cast<size_t>(i)];
      TensorShape shape;
      if (absl::Status s = TensorShape::BuildTensorShape(meta.dims, &shape); !s.ok()) return s;
      absl::Status s = make_output(call, i, predicted[static_cast<size_t>(i)], shape, made);
      if (!s.ok()) return s;
      if (!call.extra.empty() && call.extra.back() == made && shape.num_elements() > 0) {
        wanted.emplace_back(context->mutable_output(i), made);
      }
    }
    absl::Status s = read_host_outputs(call, wanted);
    give_back();
    return s;
  }

  std::vector<std::pair<Tensor*, Slot>> wanted;
  absl::Status made = absl::OkStatus();
  for (int i = 0; i < outputs && made.ok(); ++i) {
    const Predicted& one = predicted[static_cast<size_t>(i)];
    const TensorShape shape = one.shape.value_or(TensorShape());
    const bool on_host = output_memory_types()[static_cast<size_t>(i)] == tensorflow::HOST_MEMORY;
    if (!lives_on_worker(context->expected_output_dtype(i)) && !on_host && shape.num_elements() > 0) {
      Tensor* output = nullptr;
      made = context->allocate_output(i, shape, &output);
      if (!made.ok()) break;
      Block* block = find_block(output->data());
      if (block == nullptr) return absl::InternalError("an output of " + def().op() + " is not on the device");
      block->fingerprint = wire::tf::fingerprint(meta_of(*output));
      call.slots.push_back(block->slot);
      continue;
    }
    const Slot slot = queue.new_slot();
    call.slots.push_back(slot);
    made = make_output(call, i, one, shape, slot);
    if (made.ok() && !lives_on_worker(context->expected_output_dtype(i)) && shape.num_elements() > 0) {
      wanted.emplace_back(context->mutable_output(i), slot);
    }
  }
  if (made.ok()) made = to_tensorflow(queue.call(plan, call.slots, scalars));
  if (made.ok() && !wanted.empty()) made = read_host_outputs(call, wanted);
  give_back();
  return made;
}

// An output whose value is, or will be, in `made`; takes the slot, or leaves it to `extra`.
absl::Status CallKernel::make_output(Call& call, int index, const Predicted& predicted, const TensorShape& shape,
                                     Slot made) {
  client::Queue& queue = device_->far().queue();
  tensorflow::OpKernelContext* context = call.context;
  const DataType dtype = context->expected_output_dtype(index);
  Tensor* output = nullptr;
  if (dtype == tensorflow::DT_VARIANT) {
    RemoteVariant value{std::make_shared<OwnedSlot>(queue, made), predicted.data, predicted.types};
    if (shape.num_elements() != 1) return absl::UnimplementedError(def().op() + " makes an array of variants");
    tensorflow::AllocatorAttributes on_host;
    on_host.set_on_host(true);
    if (absl::Status s = context->allocate_output(index, shape, &output, on_host); !s.ok()) return s;
    output->flat<tensorflow::Variant>()(0) = std::move(value);
    return absl::OkStatus();
  }
  if (dtype == tensorflow::DT_RESOURCE) {
    auto* resource = new RemoteResource(queue, made, def().name());
    std::vector<tensorflow::DtypeAndPartialTensorShape> holds;
    for (const auto& [held_shape, held_type] : predicted.data) holds.push_back({held_type, held_shape});
    const auto handle = tensorflow::ResourceHandle::MakeRefCountingHandle(resource, device_->name(), holds);
    if (absl::Status s = context->allocate_output(index, TensorShape(), &output); !s.ok()) return s;
    output->scalar<tensorflow::ResourceHandle>()() = handle;
    return absl::OkStatus();
  }
  const bool on_host = output_memory_types()[static_cast<size_t>(index)] == tensorflow::HOST_MEMORY;
  if (on_host || shape.num_elements() == 0) {
    call.extra.push_back(made);
    return context->allocate_output(index, shape, &output);
  }
  FarAllocator::adopt(made);
  absl::Status status = context->allocate_output(index, shape, &output);
  FarAllocator::adopt(Slot{});
  if (!status.ok()) return status;
  find_block(output->data())->fingerprint = wire::tf::fingerprint(meta_of(*output));
  return absl::OkStatus();
}

absl::Status CallKernel::read_host_outputs(Call&, const std::vector<std::pair<Tensor*, Slot>>& wanted) {
  client::Queue& queue = device_->far().queue();
  std::vector<client::ReadTicket> tickets;
  Status first;
  for (const auto& [tensor, slot] : wanted) {
    if (!tensorflow::DataTypeCanUseMemcpy(tensor->dtype())) {
      first = Status(StatusKind::kUnsupported, def().op() + " gives " + tensorflow::DataTypeString(tensor->dtype()));
      break;
    }
    auto ticket = queue.start_read(slot, 0, tensor->data(), tensor->TotalBytes());
    if (!ticket.ok()) {
      first = ticket.status();
      break;
    }
    tickets.push_back(*ticket);
  }
  for (const auto ticket : tickets) {
    Status status = queue.finish_read(ticket);
    if (first.ok()) first = std::move(status);
  }
  return to_tensorflow(first);
}

// --- an operator -----------------------------------------------------------------------------------------------------

ForwardKernel::ForwardKernel(OpKernelConstruction* construction)
    : CallKernel(construction), graph_version_(construction->graph_def_version()) {
  OP_REQUIRES_OK(construction, tensorflow::OpRegistry::Global()->LookUp(def().op(), &registered_));
  plan_.name = def().op();
  assigns_ = def().op() == "AssignVariableOp";
  for (const auto& attribute : registered_->op_def.attr()) {
    const auto found = def().attr().find(attribute.name());
    if (found != def().attr().end()) plan_.attributes.emplace_back(attribute.name(), found->second.SerializeAsString());
  }
}

void ForwardKernel::Compute(tensorflow::OpKernelContext* context) {
  Call call{};
  call.context = context;
  absl::Status status = bind(call);
  std::vector<Predicted> predicted;
  if (status.ok()) status = predict(call, &predicted);
  if (status.ok()) status = run(call, predicted);
  if (!status.ok()) return context->CtxFailure(status);
  if (assigns_ && call.resources[0] != nullptr) call.resources[0]->assigned.store(true, std::memory_order_relaxed);
}

// Of all that a shape function may look at. Not complete: do not remember.
uint64_t ForwardKernel::signature(const Call& call, bool* complete) const {
  uint64_t hash = 1;
  *complete = true;
  for (int i = 0; i < call.context->num_inputs(); ++i) {
    const Tensor& tensor = call.context->input(i);
    hash = mix(hash, hash_of(tensor.shape(), tensor.dtype()));
    if (lives_on_worker(tensor.dtype())) {
      *complete = false;
    } else if (call.pattern[static_cast<size_t>(i)] == 'i') {
      if (tensor.dtype() == tensorflow::DT_STRING || tensor.TotalBytes() > kKnownContentBytesMax) {
        *complete = false;
      } else {
        const std::string_view content(static_cast<const char*>(tensor.data()), tensor.TotalBytes());
        hash = mix(hash, std::hash<std::string_view>()(content));
      }
    }
  }
  return hash;
}

absl::Status ForwardKernel::predict(Call& call, std::vector<Predicted>* predicted) {
  bool complete = false;
  const uint64_t key = signature(call, &complete);
  if (complete) {
    std::lock_guard lock(mutex_);
    const auto found = known_.find(key);
    if (found != known_.end()) {
      *predicted = found->second;
      return absl::OkStatus();
    }
  }
  const auto count = static_cast<size_t>(call.context->num_inputs());
  std::vector<PartialTensorShape> shapes(count);
  std::vector<const Tensor*> values(count, nullptr);
  std::vector<std::unique_ptr<HandleData>> data(count);
  for (size_t i = 0; i < count; ++i) {
    const Tensor& tensor = call.context->input(static_cast<int>(i));
    shapes[i] = tensor.shape();
    if (call.pattern[i] == 'i') values[i] = &tensor;
    if (tensor.dtype() == tensorflow::DT_RESOURCE) {
      data[i] = std::make_unique<HandleData>();
      for (const auto& held : tensor.flat<tensorflow::ResourceHandle>()(0).dtypes_and_shapes()) {
        data[i]->emplace_back(held.shape, held.dtype);
      }
    }
    if (data[i] != nullptr && data[i]->empty()) data[i].reset();
  }
  tensorflow::shape_inference::InferenceContext inference(graph_version_, def(), registered_->op_def, shapes, values,
                                                          {}, data);
  absl::Status status = inference.construction_status();
  for (size_t i = 0; i < count && status.ok(); ++i) {  // of lists, which have a type that the constructor cannot take
    const Tensor& tensor = call.context->input(static_cast<int>(i));
    if (tensor.dtype() != tensorflow::DT_VARIANT) continue;
    const auto* remote = tensor.flat<tensorflow::Variant>()(0).get<RemoteVariant>();
    if (remote == nullptr || remote->data.empty() || remote->types.size() != remote->data.size()) continue;
    std::vector<tensorflow::shape_inference::ShapeAndType> held;
    for (size_t entry = 0; entry < remote->data.size(); ++entry) {
      tensorflow::shape_inference::ShapeHandle shape;
      status.Update(inference.MakeShapeFromPartialTensorShape(remote->data[entry].first, &shape));
      held.emplace_back(shape, remote->data[entry].second, remote->types[entry]);
    }
    inference.set_input_handle_shapes_and_types(static_cast<int>(i), held);
  }
  if (status.ok() && registered_->shape_inference_fn) status = inference.Run(registered_->shape_inference_fn);
  if (!status.ok()) return status;
  for (int i = 0; i < inference.num_outputs(); ++i) {
    Predicted& one = predicted->emplace_back();
    const auto shape = inference.output(i);
    if (registered_->shape_inference_fn && inference.FullyDefined(shape)) {
      TensorShape full;
      for (int d = 0; d < inference.Rank(shape); ++d) full.AddDim(inference.Value(inference.Dim(shape, d)));
      one.shape = full;
    }
    if (const auto* held = inference.output_handle_shapes_and_types(i)) {
      for (const auto& entry : *held) {
        tensorflow::TensorShapeProto proto;
        inference.ShapeHandleToProto(entry.shape, &proto);
        one.data.emplace_back(PartialTensorShape(proto), entry.dtype);
        one.types.push_back(entry.type);
      }
    }
  }
  if (complete) {
    std::lock_guard lock(mutex_);
    if (known_.size() < kKnownMax) known_.emplace(key, *predicted);
  }
  return absl::OkStatus();
}

}  // namespace waldo::tensorflow_frontend
