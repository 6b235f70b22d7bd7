#include "frontends/tensorflow/collectives.h"

#include <algorithm>
#include <utility>

#include "frontends/tensorflow/errors.h"
#include "frontends/tensorflow/kernels.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace waldo::tensorflow_frontend {

using tensorflow::AsyncOpKernel;
using tensorflow::DataType;
using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using wire::tf::CallBody;
using wire::tf::Input;
using wire::tf::InputKind;
using wire::tf::PlanBody;
using wire::tf::PlanKind;
using Member = MeetingPoint::Member;

MeetingPoint& MeetingPoint::instance() {
  static auto* const point = new MeetingPoint();  // never destroyed: steps may end late
  return *point;
}

std::vector<Member> MeetingPoint::join(const Key& key, size_t size, Member member) {
  std::lock_guard lock(mutex_);
  auto& rounds = rounds_[key];
  const auto lacks = [&](const std::vector<Member>& round) {
    return std::none_of(round.begin(), round.end(), [&](const Member& one) { return one.device == member.device; });
  };
  auto round = std::find_if(rounds.begin(), rounds.end(), lacks);
  if (round == rounds.end()) round = rounds.emplace(rounds.end());
  round->push_back(std::move(member));
  if (round->size() < size) return {};
  std::vector<Member> all = std::move(*round);
  rounds.erase(round);
  if (rounds.empty()) rounds_.erase(key);
  std::sort(all.begin(), all.end(),
            [](const Member& a, const Member& b) { return a.device->parsed_name().id < b.device->parsed_name().id; });
  return all;
}

bool MeetingPoint::leave(const Key& key, const OpKernelContext* context, Member* member) {
  std::lock_guard lock(mutex_);
  const auto rounds = rounds_.find(key);
  if (rounds == rounds_.end()) return false;
  for (auto round = rounds->second.begin(); round != rounds->second.end(); ++round) {
    const auto found =
        std::find_if(round->begin(), round->end(), [&](const Member& one) { return one.context == context; });
    if (found == round->end()) continue;
    *member = std::move(*found);
    round->erase(found);
    if (round->empty()) rounds->second.erase(round);
    if (rounds->second.empty()) rounds_.erase(rounds);
    return true;
  }
  return false;
}

namespace {

PlanBody operator_on(const std::string& name, std::vector<InputKind> inputs, DataType type) {
  PlanBody body;
  body.name = name;
  body.inputs = std::move(inputs);
  body.outputs = 1;
  tensorflow::AttrValue value;
  value.set_type(type);
  body.attributes.emplace_back("T", value.SerializeAsString());
  return body;
}

// A slot that a call is to make, freed after what was recorded with it.
class Temporary {
 public:
  explicit Temporary(client::Queue& queue) : queue_(queue), slot_(queue.new_slot()) {}
  Temporary(const Temporary&) = delete;
  ~Temporary() { queue_.free_slot(slot_); }
  Slot slot() const { return slot_; }

 private:
  client::Queue& queue_;
  const Slot slot_;
};

// What one group does, recorded when all its members are there.
class Recording {
 public:
  explicit Recording(std::vector<Member>& members) : members_(members) {}

  absl::Status reduce(const std::string& merge, bool mean) {
    const TensorShape& shape = members_[0].context->input(0).shape();
    for (const Member& member : members_) {
      if (member.context->input(0).shape() != shape) {
        return absl::InvalidArgumentError("the replicas reduce tensors of different shapes: " + shape.DebugString() +
                                          " and " + member.context->input(0).shape().DebugString());
      }
    }
    if (shape.num_elements() == 0) return make_outputs(shape);
    if (absl::Status s = bring_inputs(); !s.ok()) return s;
    const DataType type = members_[0].context->input(0).dtype();
    const size_t last = inputs_.size() - 1;
    Slot sum = whole_[0];
    for (size_t i = 1; i <= last; ++i) {
      const Slot made = next();
      const Slot slots[3] = {sum, whole_[i], made};
      const PlanId plan = far().plan(operator_on(merge, {InputKind::kSlot, InputKind::kSlot}, type));
      if (Status s = far().queue().call(plan, slots, {}); !s.ok()) return to_tensorflow(s);
      sum = made;
    }
    if (mean) {
      Tensor count(type, TensorShape());
      if (absl::Status s = set_count(&count); !s.ok()) return s;
      CallBody body;
      body.inputs.resize(2);
      body.inputs[1].form = Input::Form::kInline;
      body.inputs[1].meta = meta_of(count);
      body.inputs[1].content = {static_cast<const std::byte*>(count.data()), count.TotalBytes()};
      const Slot made = next();
      const Slot slots[2] = {sum, made};
      Buffer scalars;
      wire::tf::encode(body, scalars);
      const PlanId plan = far().plan(operator_on("Div", {InputKind::kSlot, InputKind::kInline}, type));
      if (Status s = far().queue().call(plan, slots, scalars); !s.ok()) return to_tensorflow(s);
      sum = made;
    }
    return give_all(sum, shape);
  }

  absl::Status gather() {  // along the first dimension
    TensorShape shape = members_[0].context->input(0).shape();
    if (shape.dims() == 0) return absl::InvalidArgumentError("a gather of scalars");
    int64_t rows = 0;
    for (const Member& member : members_) {
      TensorShape one = member.context->input(0).shape();
      if (one.dims() != shape.dims()) return absl::InvalidArgumentError("a gather of tensors of different rank");
      rows += one.dim_size(0);
      one.set_dim(0, shape.dim_size(0));
      if (one != shape) return absl::InvalidArgumentError("a gather of tensors of different shapes");
    }
    shape.set_dim(0, rows);
    if (shape.num_elements() == 0) return make_outputs(shape);
    if (absl::Status s = bring_inputs(); !s.ok()) return s;
    PlanBody body = operator_on("ConcatV2", std::vector<InputKind>(whole_.size(), InputKind::kSlot),
                                members_[0].context->input(0).dtype());
    body.inputs.push_back(InputKind::kInline);
    tensorflow::AttrValue count, index;
    count.set_i(static_cast<int64_t>(whole_.size()));
    index.set_type(tensorflow::DT_INT32);
    body.attributes.emplace_back("N", count.SerializeAsString());
    body.attributes.emplace_back("Tidx", index.SerializeAsString());
    CallBody call;
    call.inputs.resize(whole_.size() + 1);
    const int32_t axis = 0;
    call.inputs.back().form = Input::Form::kInline;
    call.inputs.back().meta.dtype = tensorflow::DT_INT32;
    call.inputs.back().content = std::as_bytes(std::span(&axis, 1));
    std::vector<Slot> slots = whole_;
    slots.push_back(next());
    Buffer scalars;
    wire::tf::encode(call, scalars);
    if (Status s = far().queue().call(far().plan(body), slots, scalars); !s.ok()) return to_tensorflow(s);
    return give_all(slots.back(), shape);
  }

  absl::Status broadcast() {
    const auto sender = std::find_if(members_.begin(), members_.end(), [](const Member& one) { return one.gives; });
    if (sender == members_.end()) return absl::InternalError("a broadcast that nobody sends");
    const TensorShape shape = sender->context->input(0).shape();
    if (shape.num_elements() == 0) return make_outputs(shape);
    std::swap(*sender, members_[0]);
    if (absl::Status s = bring_inputs(); !s.ok()) return s;
    return give_all(whole_[0], shape);
  }

 private:
  FarQueue& far() { return members_[0].device->far(); }
  Slot next() { return temporaries_.emplace_back(far().queue()).slot(); }

  // The inputs as whole values in slots: on the device, and no views.
  absl::Status bring_inputs() {
    for (Member& member : members_) {
      if (!member.gives) continue;
      Tensor input = member.context->input(0);
      const Block* block = find_block(input.data());
      if (block == nullptr) {
        Tensor there(&member.device->allocator(), input.dtype(), input.shape());
        if (!there.IsInitialized())
          return absl::ResourceExhaustedError("out of the memory of " + member.device->name());
        if (absl::Status s = member.device->far().upload(input, &there); !s.ok()) return s;
        input = there;
      } else if (input.data() != block->address || block->fingerprint != wire::tf::fingerprint(meta_of(input))) {
        Tensor whole(&member.device->allocator(), input.dtype(), input.shape());
        if (!whole.IsInitialized())
          return absl::ResourceExhaustedError("out of the memory of " + member.device->name());
        if (absl::Status s = member.device->far().copy(*block, input, &whole); !s.ok()) return s;
        input = whole;
      }
      whole_.push_back(find_block(input.data())->slot);
      inputs_.push_back(std::move(input));
    }
    return absl::OkStatus();
  }

  absl::Status make_outputs(const TensorShape& shape) {
    for (Member& member : members_) {
      Tensor* output = nullptr;
      if (absl::Status s = member.context->allocate_output(0, shape, &output); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  // Every member's output is the value in `from`.
  absl::Status give_all(Slot from, const TensorShape& shape) {
    if (absl::Status s = make_outputs(shape); !s.ok()) return s;
    PlanBody alias;
    alias.kind = PlanKind::kAlias;
    alias.inputs = {InputKind::kSlot};
    alias.outputs = 1;
    for (Member& member : members_) {
      const Tensor& output = *member.context->mutable_output(0);
      Block* block = find_block(output.data());
      if (block == nullptr) return absl::InternalError("an output of a collective operator is not on the device");
      const Slot slots[2] = {from, block->slot};
      FarQueue& queue = member.device->far();
      if (Status s = queue.queue().call(queue.plan(alias), slots, {}); !s.ok()) return to_tensorflow(s);
      block->fingerprint = wire::tf::fingerprint(meta_of(output));
    }
    return absl::OkStatus();
  }

  absl::Status set_count(Tensor* count) const {
    const auto size = static_cast<int>(members_.size());
    switch (count->dtype()) {
      case tensorflow::DT_FLOAT:
        count->scalar<float>()() = static_cast<float>(size);
        break;
      case tensorflow::DT_DOUBLE:
        count->scalar<double>()() = size;
        break;
      case tensorflow::DT_HALF:
        count->scalar<Eigen::half>()() = static_cast<Eigen::half>(static_cast<float>(size));
        break;
      case tensorflow::DT_BFLOAT16:
        count->scalar<tensorflow::bfloat16>()() = static_cast<tensorflow::bfloat16>(static_cast<float>(size));
        break;
      case tensorflow::DT_INT32:
        count->scalar<int32_t>()() = size;
        break;
      case tensorflow::DT_INT64:
        count->scalar<int64_t>()() = size;
        break;
      default:
        return absl::UnimplementedError("a mean of " + tensorflow::DataTypeString(count->dtype()));
    }
    return absl::OkStatus();
  }

  std::vector<Member>& members_;
  std::vector<Tensor> inputs_;  // kept until everything is recorded
  std::vector<Slot> whole_;
  std::list<Temporary> temporaries_;
};

enum class What : uint8_t { kReduce, kGather, kSend, kReceive };

class CollectiveKernel : public AsyncOpKernel {
 public:
  CollectiveKernel(OpKernelConstruction* construction, What what) : AsyncOpKernel(construction), what_(what) {
    if (what != What::kReduce) return;
    std::string merge, final;
    OP_REQUIRES_OK(construction, construction->GetAttr("merge_op", &merge));
    OP_REQUIRES_OK(construction, construction->GetAttr("final_op", &final));
    merge_ = merge == "Max" ? "Maximum" : merge == "Min" ? "Minimum" : merge;
    mean_ = final == "Div";
    OP_REQUIRES(construction, merge_ == "Add" || merge_ == "Mul" || merge_ == "Maximum" || merge_ == "Minimum",
                absl::UnimplementedError("the merge operator " + merge));
    OP_REQUIRES(construction, mean_ || final == "Id", absl::UnimplementedError("the final operator " + final));
  }

  void ComputeAsync(OpKernelContext* context, DoneCallback done) override {
    Member member;
    member.device = far_device(context->device());
    member.context = context;
    member.done = done;
    member.gives = what_ != What::kReceive;
    OP_REQUIRES_ASYNC(context, member.device != nullptr, absl::InternalError("a collective on a device not ours"),
                      done);
    const auto number = [&](const char* name, int* value) {
      const Tensor* tensor = nullptr;
      absl::Status status = context->input(name, &tensor);
      if (status.ok() && (tensor->dtype() != tensorflow::DT_INT32 || tensor->NumElements() != 1))
        status = absl::InvalidArgumentError(std::string(name) + " is not a number");
      if (status.ok()) *value = tensor->flat<int32_t>()(0);
      return status;
    };
    int size = 0, group = 0, instance = 0;
    OP_REQUIRES_OK_ASYNC(context, number("group_size", &size), done);
    OP_REQUIRES_OK_ASYNC(context, number("group_key", &group), done);
    OP_REQUIRES_OK_ASYNC(context, number("instance_key", &instance), done);
    OP_REQUIRES_ASYNC(context, size > 0, absl::InvalidArgumentError("a group without members"), done);
    const MeetingPoint::Key key(word(), group, instance);
    MeetingPoint& point = MeetingPoint::instance();

    auto* steps = context->cancellation_manager();
    if (steps != nullptr) {
      member.token = steps->get_cancellation_token();
      const bool lives = steps->RegisterCallback(member.token, [key, context] {
        Member gone;
        if (!MeetingPoint::instance().leave(key, context, &gone)) return;
        gone.context->CtxFailure(absl::CancelledError("another replica failed before a collective operator"));
        gone.done();
      });
      OP_REQUIRES_ASYNC(context, lives, absl::CancelledError("the step was cancelled"), done);
    }
    auto members = point.join(key, static_cast<size_t>(size), std::move(member));
    if (members.empty()) return;
    for (const Member& one : members) {
      if (one.token != tensorflow::CancellationManager::kInvalidToken)
        one.context->cancellation_manager()->DeregisterCallback(one.token);
    }
    const absl::Status status = record(members);
    for (Member& one : members) {
      if (!status.ok()) one.context->CtxFailure(status);
      one.done();
    }
  }

 private:
  const char* word() const {
    return what_ == What::kReduce ? "reduce" : what_ == What::kGather ? "gather" : "broadcast";
  }
  absl::Status record(std::vector<Member>& members) {
    Recording recording(members);
    if (what_ == What::kReduce) return recording.reduce(merge_, mean_);
    return what_ == What::kGather ? recording.gather() : recording.broadcast();
  }

  const What what_;
  std::string merge_;
  bool mean_ = false;
};

template <What kWhat>
tensorflow::OpKernel* create(OpKernelConstruction* construction) {
  return new CollectiveKernel(construction, kWhat);
}

void register_one(const char* op, std::initializer_list<const char*> host,
                  tensorflow::OpKernel* (*factory)(OpKernelConstruction*)) {
  auto* def = new tensorflow::KernelDef();
  def->set_op(op);
  def->set_device_type("GPU");
  def->set_priority(kForwardPriority);
  for (const char* argument : host) def->add_host_memory_arg(argument);
  tensorflow::kernel_factory::OpKernelRegistrar(def, op, factory);
}

}  // namespace

void register_collectives() {
  register_one("CollectiveReduceV2", {"group_size", "group_key", "instance_key"}, &create<What::kReduce>);
  register_one("CollectiveGatherV2", {"group_size", "group_key", "instance_key"}, &create<What::kGather>);
  register_one("CollectiveBcastSendV2", {"group_size", "group_key", "instance_key"}, &create<What::kSend>);
  register_one("CollectiveBcastRecvV2", {"group_size", "group_key", "instance_key", "shape"}, &create<What::kReceive>);
}

}  // namespace waldo::tensorflow_frontend
