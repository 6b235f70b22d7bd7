#include "frontends/tensorflow/kernels.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string_view>

#include "frontends/tensorflow/collectives.h"
#include "frontends/tensorflow/forward.h"
#include "tensorflow/core/framework/kernel_def.pb.h"
#include "tensorflow/core/framework/op_def.pb.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace waldo::tensorflow_frontend {

using tensorflow::KernelDef;
using tensorflow::OpKernelConstruction;

namespace {

constexpr std::string_view kTable[] = {
#include WALDO_TENSORFLOW_KERNEL_TABLE
};

constexpr std::string_view kRunHere[] = {
    "Abort",
    "Case",
    "ControlTrigger",
    "DestroyResourceOp",
    "EagerPyFunc",
    "Enter",
    "Exit",
    "FakeParam",
    "For",
    "Identity",
    "IdentityN",
    "If",
    "LoopCond",
    "Merge",
    "NextIteration",
    "NoOp",
    "PartitionedCall",
    "Placeholder",
    "PlaceholderV2",
    "PlaceholderWithDefault",
    "PreventGradient",
    "PyFunc",
    "PyFuncStateless",
    "Rank",
    "RefEnter",
    "RefExit",
    "RefIdentity",
    "RefMerge",
    "RefNextIteration",
    "RefSelect",
    "RefSwitch",
    "RemoteCall",
    "Shape",
    "ShapeN",
    "Size",
    "StatefulPartitionedCall",
    "StatelessCase",
    "StatelessIf",
    "StatelessWhile",
    "StopGradient",
    "Switch",
    "SymbolicGradient",
    "VarHandleOp",
    "While",
    "XlaLaunch",
    "XlaLaunchV2",
    "_Arg",
    "_DeviceArg",
    "_DeviceRetval",
    "_HostCast",
    "_HostRecv",
    "_HostSend",
    "_If",
    "_Recv",
    "_Retval",
    "_Send",
    "_SwitchN",
    "_While",
    "_XlaCompile",
    "_XlaMerge",
    "_XlaRun",
};

// Datasets and their iterators hand out what they made in host memory.
bool is_pipeline(const std::string& op) {
  for (const char* word : {"Iterator", "Dataset", "Optional"}) {
    if (op.find(word) != std::string::npos) return true;
  }
  return false;
}

struct Line {
  std::string op;
  std::vector<std::pair<std::string, std::vector<int>>> types;
  std::vector<std::string> host;
};

std::vector<std::string> split(std::string_view text, char mark) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(mark, at), text.size());
    parts.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Line parse(std::string_view text) {
  const size_t first = text.find('|'), second = text.find('|', first + 1);
  Line line{std::string(text.substr(0, first)), {}, split(text.substr(second + 1), ',')};
  for (const auto& constraint : split(text.substr(first + 1, second - first - 1), ';')) {
    const size_t equals = constraint.find('=');
    auto& [name, types] = line.types.emplace_back(constraint.substr(0, equals), std::vector<int>());
    for (const auto& type : split(std::string_view(constraint).substr(equals + 1), ',')) {
      types.push_back(std::atoi(type.c_str()));
    }
  }
  return line;
}

const tensorflow::OpDef* find_op(const std::string& name) {
  const tensorflow::OpRegistrationData* data = nullptr;
  return tensorflow::OpRegistry::Global()->LookUp(name, &data).ok() ? &data->op_def : nullptr;
}

// Operators on reference variables (TensorFlow 1) write into the buffers of their inputs.
bool takes_references(const tensorflow::OpDef& op) {
  const auto is_ref = [](const auto& argument) { return argument.is_ref(); };
  return std::any_of(op.input_arg().begin(), op.input_arg().end(), is_ref) ||
         std::any_of(op.output_arg().begin(), op.output_arg().end(), is_ref);
}

template <typename Kernel>
tensorflow::OpKernel* create(OpKernelConstruction* construction) {
  return new Kernel(construction);
}

void register_one(KernelDef def, int priority, const char* name,
                  tensorflow::OpKernel* (*factory)(OpKernelConstruction*)) {
  def.set_device_type("GPU");
  def.set_priority(priority);
  tensorflow::kernel_factory::OpKernelRegistrar(new KernelDef(std::move(def)), name, factory);
}

class AuditKernel final : public tensorflow::OpKernel {
 public:
  explicit AuditKernel(OpKernelConstruction* construction) : OpKernel(construction) {
    construction->CtxFailure(absl::UnimplementedError(
        def().op() +
        " is not available on a Waldo device: it would use device memory in this process. Try: "
        "with tf.device('/CPU:0')"));
  }
  void Compute(tensorflow::OpKernelContext*) override {}
};

bool all_on_host(const KernelDef& kernel, const tensorflow::OpDef& op) {
  const auto on_host = [&](const auto& argument) {
    const auto& names = kernel.host_memory_arg();
    return argument.type() == tensorflow::DT_STRING || argument.type() == tensorflow::DT_RESOURCE ||
           std::find(names.begin(), names.end(), argument.name()) != names.end();
  };
  return std::all_of(op.input_arg().begin(), op.input_arg().end(), on_host) &&
         std::all_of(op.output_arg().begin(), op.output_arg().end(), on_host);
}

void audit() {
  std::set<std::string> seen;
  const tensorflow::KernelList kernels = tensorflow::GetAllRegisteredKernels();
  for (const KernelDef& kernel : kernels.kernel()) {
    if (kernel.device_type() != "GPU" && kernel.device_type() != "DEFAULT") continue;
    if (kernel.priority() >= kAuditPriority || !kernel.label().empty() || runs_here(kernel.op())) continue;
    const auto* op = find_op(kernel.op());
    if (op == nullptr || all_on_host(kernel, *op)) continue;
    KernelDef mine;
    mine.set_op(kernel.op());
    *mine.mutable_constraint() = kernel.constraint();
    if (!seen.insert(mine.SerializeAsString()).second) continue;
    *mine.mutable_host_memory_arg() = kernel.host_memory_arg();
    register_one(std::move(mine), kAuditPriority, "WaldoAudit", &create<AuditKernel>);
  }
}

}  // namespace

bool runs_here(const std::string& op) {
  static const auto* const here = new std::set<std::string, std::less<>>(std::begin(kRunHere), std::end(kRunHere));
  return here->contains(op) || is_pipeline(op);
}

void register_kernels() {
  register_own_kernels();
  register_collectives();
  for (const std::string_view text : kTable) {
    const Line line = parse(text);
    const auto* op = find_op(line.op);
    if (op == nullptr || line.op == "Const" || runs_here(line.op) || takes_references(*op)) continue;
    if (line.op.starts_with("Collective") || line.op.starts_with("Nccl") || line.op.starts_with("_Nccl")) continue;
    KernelDef def;
    def.set_op(line.op);
    for (const auto& [name, types] : line.types) {
      auto* constraint = def.add_constraint();
      constraint->set_name(name);
      for (const int type : types) {
        constraint->mutable_allowed_values()->mutable_list()->add_type(static_cast<tensorflow::DataType>(type));
      }
    }
    for (const auto& argument : line.host) def.add_host_memory_arg(argument);
    register_one(std::move(def), kForwardPriority, "WaldoForward", &create<ForwardKernel>);
  }
  audit();
}

}  // namespace waldo::tensorflow_frontend
