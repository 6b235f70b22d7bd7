#include "server/backends/tensorflow/queue.h"

#include <chrono>
#include <utility>

namespace waldo::tensorflow_backend {

using wire::tf::CallBody;
using wire::tf::Input;
using wire::tf::InputKind;
using wire::tf::PlanKind;

namespace {

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

// A slot's failure belongs to the call that should have made its value.
Status poisoned(const Status& error) {
  return Status(StatusKind::kDevice, "a value from " + error.detail().op + ", which failed: " + error.text(),
                error.detail());
}

std::string device_name(bool gpu, QueueId queue) {
  return "/job:localhost/replica:0/task:0/device:" + (gpu ? "GPU:" + std::to_string(queue.raw) : std::string("CPU:0"));
}

}  // namespace

Shared::~Shared() {
  slots.clear();
  if (context != nullptr) TFE_DeleteContext(context);
}

TfQueue::TfQueue(std::shared_ptr<Shared> shared, QueueId queue)
    : shared_(std::move(shared)), queue_(queue), device_(device_name(shared_->gpu, queue)), status_(TF_NewStatus()) {}

TfQueue::~TfQueue() {
  std::lock_guard lock(shared_->mutex);
  std::erase_if(shared_->slots, [&](const auto& entry) { return entry.first.queue() == queue_; });
}

Status TfQueue::define(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> bytes) {
  auto body = wire::tf::decode_plan_body(bytes);
  if (!body.ok()) return body.status();
  size_t named = 0;
  for (const InputKind kind : body->inputs) named += kind == InputKind::kSlot ? 1 : 0;
  if (named != reads || body->outputs != creates) return invalid("malformed plan body: another number of slots");
  const bool makes = body->kind == PlanKind::kMake, shapes = body->kind == PlanKind::kShape;
  const size_t inputs = body->inputs.size();
  if ((makes && (inputs != 1 || reads != 0 || creates != 1)) || (shapes && (reads != 1 || creates != 0)) ||
      (body->kind == PlanKind::kAlias && (reads != 1 || inputs != 1 || creates != 1))) {
    return invalid("malformed plan body: slots that its kind has not");
  }
  if (plan.raw >= plans_.size()) plans_.resize(plan.raw + 1);
  plans_[plan.raw] = {std::move(*body), reads, true, nullptr};
  return {};
}

std::string TfQueue::op_name(PlanId plan) const {
  return plan.raw < plans_.size() && plans_[plan.raw].defined ? plans_[plan.raw].body.name : std::string();
}

Status TfQueue::call(PlanId id, std::span<const Slot> slots, std::span<const std::byte> scalars, bool*,
                     Buffer* report) {
  Plan& plan = plans_[id.raw];
  auto call = wire::tf::decode_call(scalars);
  if (!call.ok()) return call.status();
  if (call->inputs.empty()) call->inputs.resize(plan.body.inputs.size());
  if (call->inputs.size() != plan.body.inputs.size()) return invalid("a call with another number of inputs");
  return run(plan, slots, *call, report);
}

Status TfQueue::run(Plan& plan, std::span<const Slot> slots, const CallBody& call, Buffer* report) {
  const auto creates = slots.subspan(plan.reads);
  if (plan.body.kind == PlanKind::kShape) return shape_upload(slots[0], call.inputs[0].meta);
  auto inputs = bind(plan, slots.first(plan.reads), call);
  if (!inputs.ok()) return inputs.status();
  std::vector<Handle> outputs;
  switch (plan.body.kind) {
    case PlanKind::kMake:
    case PlanKind::kAlias:
      outputs.push_back(std::move((*inputs)[0]));
      break;
    default:
      WALDO_TRY(run_op(plan, *inputs, outputs));
  }
  if (report != nullptr || call.outputs_expected != 0) {
    wire::tf::Report metas;
    for (const Handle& output : outputs) metas.outputs.push_back(meta_of(output.get(), status_.get()));
    WALDO_TRY(to_status(status_.get(), plan.body.name));
    if (call.outputs_expected != 0 && call.outputs_expected != wire::tf::fingerprint(metas.outputs)) {
      return failure(TF_INTERNAL, "its outputs have other shapes than at its last call with inputs like these",
                     plan.body.name);
    }
    if (report != nullptr) *report = wire::tf::encode(metas);
  }
  return keep(creates, std::move(outputs));
}

Result<std::vector<Handle>> TfQueue::bind(const Plan& plan, std::span<const Slot> reads, const CallBody& call) {
  std::vector<Handle> inputs;
  inputs.reserve(call.inputs.size());
  size_t next = 0;
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    const Input& input = call.inputs[i];
    const bool is_slot = plan.body.inputs[i] == InputKind::kSlot;
    if (is_slot == (input.form == Input::Form::kInline)) return invalid("a call whose inputs are not its plan's");
    auto value = is_slot ? take_value(reads[next++]) : make_tensor(input);
    if (value.ok() && input.form == Input::Form::kView) value = make_view(value->get(), input.meta, input.offset_bytes);
    if (!value.ok()) return value.status();
    inputs.push_back(std::move(*value));
  }
  return inputs;
}

Status TfQueue::run_op(Plan& plan, const std::vector<Handle>& inputs, std::vector<Handle>& outputs) {
  TF_Status* status = status_.get();
  const Op op(TFE_NewOp(shared_->context, plan.body.name.c_str(), status));
  WALDO_TRY(to_status(status, plan.body.name));
  TFE_OpSetDevice(op.get(), device_.c_str(), status);
  WALDO_TRY(to_status(status, plan.body.name));
  WALDO_TRY(parse_attributes(plan));
  if (plan.attributes != nullptr) TFE_OpAddAttrs(op.get(), TFE_OpGetAttrs(plan.attributes.get()));
  for (const Handle& input : inputs) {
    TFE_OpAddInput(op.get(), input.get(), status);
    WALDO_TRY(to_status(status, plan.body.name));
  }
  std::vector<TFE_TensorHandle*> made(plan.body.outputs, nullptr);
  int count = plan.body.outputs;
  TFE_Execute(op.get(), made.data(), &count, status);
  WALDO_TRY(to_status(status, plan.body.name));
  for (int i = 0; i < count; ++i) outputs.emplace_back(made[static_cast<size_t>(i)]);
  if (outputs.size() != plan.body.outputs) {
    return failure(TF_INTERNAL, "the operator has another number of outputs than its plan", plan.body.name);
  }
  return {};
}

// Once for each plan: an operator that is never run and carries the attributes of those that are.
Status TfQueue::parse_attributes(Plan& plan) {
  if (plan.attributes != nullptr || plan.body.attributes.empty()) return {};
  TF_Status* status = status_.get();
  Op op(TFE_NewOp(shared_->context, plan.body.name.c_str(), status));
  WALDO_TRY(to_status(status, plan.body.name));
  for (const auto& [name, value] : plan.body.attributes) {
    TFE_OpSetAttrValueProto(op.get(), name.c_str(), value.data(), value.size(), status);
    WALDO_TRY(to_status(status, plan.body.name));
  }
  plan.attributes = std::move(op);
  return {};
}

Result<Handle> TfQueue::take_value(Slot slot) {
  std::lock_guard lock(shared_->mutex);
  const auto found = shared_->slots.find(slot);
  if (found == shared_->slots.end()) return invalid("slot " + std::to_string(slot.raw) + " is empty");
  if (!found->second.error.ok()) return poisoned(found->second.error);
  if (found->second.handle == nullptr) return invalid("slot " + std::to_string(slot.raw) + " holds no tensor");
  Handle copy(TFE_TensorHandleCopySharingTensor(found->second.handle.get(), status_.get()));
  WALDO_TRY(to_status(status_.get(), ""));
  return copy;
}

Status TfQueue::keep(std::span<const Slot> creates, std::vector<Handle> outputs) {
  std::lock_guard lock(shared_->mutex);
  for (size_t i = 0; i < creates.size(); ++i) {
    shared_->slots.insert_or_assign(creates[i], SlotEntry{std::move(outputs[i]), nullptr, {}});
  }
  return {};
}

Status TfQueue::shape_upload(Slot slot, const wire::tf::TensorMeta& meta) {
  std::lock_guard lock(shared_->mutex);
  const auto found = shared_->slots.find(slot);
  if (found == shared_->slots.end() || found->second.bytes == nullptr) {
    if (found != shared_->slots.end() && !found->second.error.ok()) return poisoned(found->second.error);
    return invalid("slot " + std::to_string(slot.raw) + " holds no upload");
  }
  auto tensor = make_tensor(meta, std::move(*found->second.bytes));
  found->second.bytes.reset();
  if (!tensor.ok()) return tensor.status();
  found->second.handle = std::move(*tensor);
  return {};
}

Status TfQueue::create(Slot, uint64_t) { return invalid("TensorFlow's storages are made by calls"); }
Status TfQueue::resize(Slot, uint64_t) { return invalid("TensorFlow's storages keep their size"); }

Status TfQueue::write(Slot slot, uint64_t offset, server::UploadedBytes bytes) {
  if (offset != 0) return invalid("TensorFlow's storages are uploaded whole");
  std::lock_guard lock(shared_->mutex);
  shared_->slots.insert_or_assign(slot,
                                  SlotEntry{nullptr, std::make_shared<server::UploadedBytes>(std::move(bytes)), {}});
  return {};
}

Status TfQueue::read(Slot slot, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) {
  auto value = take_value(slot);
  if (!value.ok()) return value.status();
  if (bytes == 0 && offset == 0) return {};
  const Tensor tensor(TFE_TensorHandleResolve(value->get(), status_.get()));
  WALDO_TRY(to_status(status_.get(), "read"));
  const size_t there = TF_TensorByteSize(tensor.get());
  if (TF_DataTypeSize(TF_TensorType(tensor.get())) == 0) return invalid("a read of a value without plain bytes");
  if (offset > there || bytes > there - offset) return invalid("a read past the end of its value");
  return sink({static_cast<const std::byte*>(TF_TensorData(tensor.get())) + offset, bytes});
}

void TfQueue::free(Slot slot) {
  SlotEntry entry;  // destroyed without the lock: a resource may take its time
  std::lock_guard lock(shared_->mutex);
  const auto found = shared_->slots.find(slot);
  if (found == shared_->slots.end()) return;
  std::swap(entry, found->second);
  shared_->slots.erase(found);
}

void TfQueue::poison(Slot slot, const Status& why) {
  std::lock_guard lock(shared_->mutex);
  shared_->slots.insert_or_assign(slot, SlotEntry{nullptr, nullptr, why});
}

Status TfQueue::command(std::span<const std::byte> body, Buffer*) {
  Reader in(body);
  const auto kind = static_cast<wire::tf::CommandKind>(in.get<uint8_t>("kind"));
  if (!in.ok() || (kind != wire::tf::CommandKind::kFunctionPiece && kind != wire::tf::CommandKind::kFunctionLast)) {
    return Status(StatusKind::kUnsupported, "a command that this worker does not know");
  }
  function_.append(as_text(in.rest()));
  if (kind == wire::tf::CommandKind::kFunctionPiece) return {};
  const std::string whole = std::exchange(function_, {});
  TFE_ContextAddFunctionDef(shared_->context, whole.data(), whole.size(), status_.get());
  if (TF_GetCode(status_.get()) == TF_ALREADY_EXISTS) return {};  // by another queue
  return to_status(status_.get(), "a function's definition");
}

Status TfQueue::synchronize() { return {}; }  // operators have ended when they return; a read waits for a GPU's

uint64_t TfQueue::now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace waldo::tensorflow_backend
