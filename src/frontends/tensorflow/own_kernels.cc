// Kernels that are not a plain call: constants, which are uploaded once, and what makes, asks after and ends variables.
#include <map>

#include "frontends/tensorflow/errors.h"
#include "frontends/tensorflow/forward.h"
#include "frontends/tensorflow/kernels.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/node_def.pb.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace waldo::tensorflow_frontend {

using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::ResourceHandle;

namespace {

// Uploads its value at its first run, and gives out the same buffer from then on.
class ConstKernel final : public tensorflow::OpKernel {
 public:
  explicit ConstKernel(OpKernelConstruction* construction) : OpKernel(construction) {
    const tensorflow::TensorProto* proto = nullptr;
    OP_REQUIRES_OK(construction, construction->GetAttr("value", &proto));
    OP_REQUIRES(construction, host_.FromProto(tensorflow::cpu_allocator(), *proto),
                absl::InvalidArgumentError("cannot parse the value of the constant " + name()));
  }
  bool IsExpensive() override { return false; }

  void Compute(OpKernelContext* context) override {
    std::lock_guard lock(mutex_);
    if (!made_) {
      FarDevice* device = far_device(context->device());
      OP_REQUIRES(context, device != nullptr, absl::InternalError("a constant on a device that is not ours"));
      Tensor far(&device->allocator(), host_.dtype(), host_.shape());
      OP_REQUIRES(context, host_.NumElements() == 0 || far.IsInitialized(),
                  absl::ResourceExhaustedError("out of the memory of " + device->name()));
      OP_REQUIRES_OK(context, device->far().upload(host_, &far));
      far_ = far;
      host_ = Tensor();
      made_ = true;
    }
    context->set_output(0, far_);
  }

 private:
  std::mutex mutex_;  // guards the rest
  Tensor host_, far_;
  bool made_ = false;
};

// Variables with a name are found again by it, as in TensorFlow's own resource manager.
class NamedResources {
 public:
  static NamedResources& instance() {
    static auto* const all = new NamedResources();
    return *all;
  }
  bool find(const std::string& key, ResourceHandle* handle) {
    std::lock_guard lock(mutex_);
    const auto found = handles_.find(key);
    if (found == handles_.end()) return false;
    *handle = found->second;
    return true;
  }
  void keep(const std::string& key, const ResourceHandle& handle) {
    std::lock_guard lock(mutex_);
    handles_[key] = handle;
  }
  void forget(const RemoteResource* resource) {
    std::lock_guard lock(mutex_);
    std::erase_if(handles_, [&](const auto& entry) { return entry.second.resource().get() == resource; });
  }

 private:
  std::mutex mutex_;
  std::map<std::string, ResourceHandle> handles_;  // mutex_
};

class VarHandleKernel final : public CallKernel {
 public:
  explicit VarHandleKernel(OpKernelConstruction* construction) : CallKernel(construction) {
    plan_.name = def().op();
    std::string container, shared_name;
    OP_REQUIRES_OK(construction, construction->GetAttr("container", &container));
    OP_REQUIRES_OK(construction, construction->GetAttr("shared_name", &shared_name));
    OP_REQUIRES_OK(construction, construction->GetAttr("dtype", &dtype_));
    OP_REQUIRES_OK(construction, construction->GetAttr("shape", &shape_));
    if (shared_name.empty()) shared_name = name();
    anonymous_ = shared_name == ResourceHandle::ANONYMOUS_NAME;
    if (device_ != nullptr) key_ = device_->name() + "\n" + container + "\n" + shared_name;
    for (const auto& [attribute, value] : def().attr()) {
      if (attribute.starts_with("_") || attribute == "shared_name") continue;
      plan_.attributes.emplace_back(attribute, value.SerializeAsString());
    }
    tensorflow::AttrValue named;
    named.set_s(shared_name);
    plan_.attributes.emplace_back("shared_name", named.SerializeAsString());
  }

  void Compute(OpKernelContext* context) override {
    ResourceHandle handle;
    if (!anonymous_ && NamedResources::instance().find(key_, &handle)) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, tensorflow::TensorShape(), &output));
      output->scalar<ResourceHandle>()() = handle;
      return;
    }
    Call call{};
    call.context = context;
    std::vector<Predicted> predicted(1);
    predicted[0].data.emplace_back(shape_, dtype_);
    OP_REQUIRES_OK(context, run(call, predicted));
    if (!anonymous_) {
      NamedResources::instance().keep(key_, context->mutable_output(0)->scalar<ResourceHandle>()());
    }
  }

 private:
  tensorflow::DataType dtype_;
  tensorflow::PartialTensorShape shape_;
  std::string key_;
  bool anonymous_ = false;
};

// True at once when an assignment was recorded here; else asks, since a function may have assigned on the worker.
class VarIsInitializedKernel final : public CallKernel {
 public:
  explicit VarIsInitializedKernel(OpKernelConstruction* construction) : CallKernel(construction) {
    plan_.name = def().op();
  }
  void Compute(OpKernelContext* context) override {
    Call call{};
    call.context = context;
    OP_REQUIRES_OK(context, bind(call));
    if (call.resources[0]->assigned.load(std::memory_order_relaxed)) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, tensorflow::TensorShape(), &output));
      output->scalar<bool>()() = true;
      return;
    }
    std::vector<Predicted> predicted(1);
    predicted[0].shape = tensorflow::TensorShape();
    OP_REQUIRES_OK(context, run(call, predicted));
    if (context->mutable_output(0)->scalar<bool>()()) call.resources[0]->assigned.store(true);
  }
};

class DestroyResourceKernel final : public CallKernel {
 public:
  explicit DestroyResourceKernel(OpKernelConstruction* construction) : CallKernel(construction) {
    plan_.name = def().op();
    for (const auto& [attribute, value] : def().attr()) {
      if (!attribute.starts_with("_")) plan_.attributes.emplace_back(attribute, value.SerializeAsString());
    }
  }
  void Compute(OpKernelContext* context) override {
    const ResourceHandle& handle = context->input(0).flat<ResourceHandle>()(0);
    auto* resource = dynamic_cast<RemoteResource*>(handle.resource().get());
    if (resource == nullptr) {  // an iterator, or another resource of this process
      if (!handle.IsRefCounting()) OP_REQUIRES_OK(context, tensorflow::DeleteResource(context, handle));
      return;
    }
    Call call{};
    call.context = context;
    OP_REQUIRES_OK(context, bind(call));
    OP_REQUIRES_OK(context, run(call, {}));
    NamedResources::instance().forget(resource);
  }
};

template <typename Kernel>
void register_for(const char* op, std::initializer_list<const char*> host) {
  auto* def = new tensorflow::KernelDef();
  def->set_op(op);
  def->set_device_type("GPU");
  def->set_priority(kForwardPriority);
  for (const char* argument : host) def->add_host_memory_arg(argument);
  tensorflow::kernel_factory::OpKernelRegistrar(
      def, op, +[](OpKernelConstruction* c) -> tensorflow::OpKernel* { return new Kernel(c); });
}

void register_const() {
  using namespace tensorflow;  // DT_…
  auto* def = new KernelDef();
  def->set_op("Const");
  def->set_device_type("GPU");
  def->set_priority(kForwardPriority);
  auto* constraint = def->add_constraint();
  constraint->set_name("dtype");
  for (int type = DT_FLOAT; type <= DT_UINT64; ++type) {  // int32 and strings stay in host memory, as on a GPU
    if (type == DT_INT32 || !DataTypeCanUseMemcpy(static_cast<DataType>(type))) continue;
    constraint->mutable_allowed_values()->mutable_list()->add_type(static_cast<DataType>(type));
  }
  auto* lists = new KernelDef(*def);
  kernel_factory::OpKernelRegistrar(
      def, "WaldoConst", +[](OpKernelConstruction* c) -> OpKernel* { return new ConstKernel(c); });
  // A tensor list that Grappler folded into a constant: the worker reads it from the attribute.
  auto* types = lists->mutable_constraint(0)->mutable_allowed_values()->mutable_list();
  types->clear_type();
  types->add_type(DT_VARIANT);
  kernel_factory::OpKernelRegistrar(
      lists, "WaldoConstList", +[](OpKernelConstruction* c) -> OpKernel* { return new ForwardKernel(c); });
}

}  // namespace

void register_own_kernels() {
  register_const();
  register_for<VarHandleKernel>("VarHandleOp", {"resource"});
  register_for<VarIsInitializedKernel>("VarIsInitializedOp", {"resource", "is_initialized"});
  register_for<ForwardKernel>("VariableShape", {"input", "output"});
  register_for<ForwardKernel>("DisableCopyOnRead", {"resource"});  // checkpoints begin with it
  register_for<DestroyResourceKernel>("DestroyResourceOp", {"resource"});
}

}  // namespace waldo::tensorflow_frontend
