// A function with jit_compile (Keras's default where a GPU is listed) is one call: its definition and everything it
// reaches are sent once, its variables are found by their handles, and its step is one message.
//
// What its outputs look like is asked at the first call with inputs of these shapes and remembered: a compiled function
// has one set of shapes for each. The worker checks that against what it really made.
#include <set>

#include "frontends/tensorflow/errors.h"
#include "frontends/tensorflow/forward.h"
#include "frontends/tensorflow/kernels.h"
#include "tensorflow/compiler/jit/xla_kernel_creator.h"
#include "tensorflow/core/common_runtime/function.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/function.pb.h"
#include "tensorflow/core/framework/node_def.pb.h"

namespace waldo::tensorflow_frontend {

using tensorflow::DataType;
using tensorflow::FunctionDef;
using tensorflow::FunctionLibraryRuntime;
using tensorflow::NodeDef;
using tensorflow::NodeProperties;
using tensorflow::TensorShape;

namespace {

constexpr const char* kMustCompile = "_XlaMustCompile";
constexpr size_t kPieceBytes = 256u << 10;

bool is_true(const NodeDef& node, const char* attribute) {
  const auto found = node.attr().find(attribute);
  return found != node.attr().end() && found->second.b();
}

// The function a node calls; "" when it calls none.
std::string called_function(const NodeDef& node, const tensorflow::FunctionLibraryDefinition& library) {
  if (node.op() == "PartitionedCall" || node.op() == "StatefulPartitionedCall") {
    const auto found = node.attr().find("f");
    return found == node.attr().end() ? "" : found->second.func().name();
  }
  return library.Find(node.op()) != nullptr ? node.op() : "";
}

// Python, files and input pipelines stay in the program's process.
bool stays_here(const std::string& op) {
  for (const char* word : {"PyFunc", "Iterator", "Dataset", "Optional", "Summary", "SaveV2", "RestoreV2", "File",
                           "Print", "Collective", "Nccl"}) {
    if (op.find(word) != std::string::npos) return true;
  }
  return false;
}

bool can_leave(const FunctionDef& function) {
  for (const auto& node : function.node_def()) {
    if (stays_here(node.op())) return false;
  }
  for (const auto& output : function.signature().output_arg()) {
    if (output.type() == tensorflow::DT_STRING || output.type() == tensorflow::DT_RESOURCE) return false;
  }
  return true;
}

// As the worker is to have it: without this process's devices and without the wish to be compiled.
std::string for_worker(const FunctionDef& function) {
  FunctionDef copy = function;
  copy.mutable_attr()->erase(kMustCompile);
  for (auto& node : *copy.mutable_node_def()) {
    node.clear_device();
    node.mutable_attr()->erase(kMustCompile);
  }
  return copy.SerializeAsString();
}

class FunctionKernel final : public CallKernel {
 public:
  explicit FunctionKernel(tensorflow::OpKernelConstruction* construction, const std::string& function,
                          std::vector<std::pair<std::string, std::string>> definitions)
      : CallKernel(construction), definitions_(std::move(definitions)) {
    plan_.kind = wire::tf::PlanKind::kFunction;
    plan_.name = function;
  }

  void Compute(tensorflow::OpKernelContext* context) override {
    OP_REQUIRES_OK(context, send_definitions());
    Call call{};
    call.context = context;
    OP_REQUIRES_OK(context, bind(call));
    const std::string key = signature(call);
    std::vector<Predicted> predicted(static_cast<size_t>(context->num_outputs()));
    {
      std::lock_guard lock(mutex_);
      const auto found = known_.find(key);
      if (found != known_.end()) {
        predicted = found->second.outputs;
        call.body.outputs_expected = found->second.fingerprint;
      }
    }
    const bool asked = call.body.outputs_expected == 0 && context->num_outputs() > 0;
    OP_REQUIRES_OK(context, run(call, predicted));
    if (asked) remember(key, context);
  }

 private:
  struct Known {
    std::vector<Predicted> outputs;
    uint64_t fingerprint = 0;
  };

  absl::Status send_definitions() {
    std::lock_guard lock(mutex_);
    if (definitions_.empty()) return absl::OkStatus();
    for (const auto& [name, bytes] : definitions_) {
      if (!device_->far().once(name)) continue;
      for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
        const bool last = at + kPieceBytes >= bytes.size();
        const auto piece = as_bytes(bytes).subspan(at, std::min(kPieceBytes, bytes.size() - at));
        const Status status = device_->far().queue().command(wire::tf::encode_command(
            last ? wire::tf::CommandKind::kFunctionLast : wire::tf::CommandKind::kFunctionPiece, piece));
        if (!status.ok()) return to_tensorflow(status);
      }
    }
    definitions_.clear();
    return absl::OkStatus();
  }

  static std::string signature(const Call& call) {
    std::string key = call.pattern;
    const auto add = [&](uint64_t value) { key.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
    for (int i = 0; i < call.context->num_inputs(); ++i) {
      const Tensor& tensor = call.context->input(i);
      add(wire::tf::fingerprint(meta_of(tensor)));
      // Small whole numbers in host memory may be sizes: a compiled function would be another for each.
      const auto& input = call.body.inputs[static_cast<size_t>(i)];
      if (tensorflow::DataTypeIsInteger(tensor.dtype()) && input.content.size() <= 256) {
        key.append(as_text(input.content));
      }
    }
    return key;
  }

  void remember(const std::string& key, tensorflow::OpKernelContext* context) {
    Known known;
    std::vector<wire::tf::TensorMeta> metas;
    for (int i = 0; i < context->num_outputs(); ++i) {
      const Tensor& output = *context->mutable_output(i);
      if (output.dtype() == tensorflow::DT_VARIANT) return;
      metas.push_back(meta_of(output));
      known.outputs.emplace_back().shape = output.shape();
    }
    known.fingerprint = wire::tf::fingerprint(metas);
    std::lock_guard lock(mutex_);
    known_.emplace(key, std::move(known));
  }

  std::mutex mutex_;                                              // guards what follows
  std::vector<std::pair<std::string, std::string>> definitions_;  // not sent yet
  std::unordered_map<std::string, Known> known_;
};

class FunctionCreator final : public tensorflow::CustomKernelCreator {
 public:
  bool CanCreateKernel(const FunctionLibraryRuntime& flr,
                       const std::shared_ptr<const NodeProperties>& props) const override {
    if (far_device(const_cast<FunctionLibraryRuntime&>(flr).device()) == nullptr) {
      return xla_.CanCreateKernel(flr, props);
    }
    const auto* library = flr.GetFunctionLibraryDefinition();
    const std::string name = called_function(props->node_def, *library);
    const FunctionDef* function = name.empty() ? nullptr : library->Find(name);
    if (function == nullptr) return false;
    const auto wish = function->attr().find(kMustCompile);
    const bool wished = wish != function->attr().end() && wish->second.b();
    if ((!is_true(props->node_def, kMustCompile) && !wished) || !can_leave(*function)) return false;
    for (const auto& reached : library->ReachableDefinitions(*function).ListFunctionNames()) {
      const FunctionDef* other = library->Find(reached);
      if (other != nullptr && !can_leave(*other)) return false;
    }
    return true;
  }

  absl::Status CreateKernel(FunctionLibraryRuntime* flr, const std::shared_ptr<const NodeProperties>& props,
                            std::unique_ptr<tensorflow::OpKernel>* kernel) const override {
    if (far_device(flr->device()) == nullptr) return xla_.CreateKernel(flr, props, kernel);
    const auto* library = flr->GetFunctionLibraryDefinition();
    const std::string name = called_function(props->node_def, *library);
    const FunctionDef* function = library->Find(name);
    std::vector<std::pair<std::string, std::string>> definitions;
    const auto reachable = library->ReachableDefinitions(*function);
    for (const auto& reached : reachable.ListFunctionNames()) {
      if (reached == name) continue;
      if (const FunctionDef* other = reachable.Find(reached)) definitions.emplace_back(reached, for_worker(*other));
    }
    definitions.emplace_back(name, for_worker(*function));

    // As the graph around it expects: int32 and handles in host memory.
    const auto memory_of = [](const tensorflow::DataTypeVector& types) {
      tensorflow::MemoryTypeVector memory;
      for (const DataType type : types) memory.push_back(tensorflow::MTypeFromDType(type));
      return memory;
    };
    const auto inputs = memory_of(props->input_types), outputs = memory_of(props->output_types);
    absl::Status status;
    tensorflow::Device* device = flr->device();
    tensorflow::OpKernelConstruction construction(
        tensorflow::DeviceType(device->device_type()), device, device->GetAllocator(tensorflow::AllocatorAttributes()),
        flr, device->resource_manager(), props, inputs, outputs, flr->graph_def_version(), &status);
    *kernel = std::make_unique<FunctionKernel>(&construction, name, std::move(definitions));
    return status;
  }

 private:
  tensorflow::XlaKernelCreator xla_;  // for the CPU; the one that was registered is deleted when ours takes its place
};

}  // namespace

void register_functions() { tensorflow::RegisterDefaultCustomKernelCreator(new FunctionCreator()); }

}  // namespace waldo::tensorflow_frontend
