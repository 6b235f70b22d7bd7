// The one kernel: an operator becomes a call. Its output shapes come from the operator's own shape function, so that
// nothing waits; where they depend on values on the worker the call is asked (one wait). Outputs that the program's
// kernels want in host memory are read (one wait).
//
// Threads: any; a kernel may run on several at once.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "frontends/tensorflow/device.h"
#include "frontends/tensorflow/remote.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace waldo::tensorflow_frontend {

// Binds inputs, makes outputs and records the call; what the outputs look like is for those below to say.
class CallKernel : public tensorflow::OpKernel {
 public:
  explicit CallKernel(tensorflow::OpKernelConstruction* construction);
  bool IsExpensive() override { return false; }  // recording is quick, and is to happen in order

 protected:
  // One output's shape (nothing: not known before the call) and, for resources and variants, what they hold.
  struct Predicted {
    std::optional<tensorflow::TensorShape> shape;
    HandleData data;
    std::vector<tensorflow::FullTypeDef> types;  // variants: one for each of `data`
  };
  struct Call {
    tensorflow::OpKernelContext* context;
    std::string pattern;      // one letter for each input: s slot, i inline
    std::vector<Slot> slots;  // reads, then creates
    wire::tf::CallBody body;
    bool whole = true;                       // nothing to say but the slots
    std::vector<Slot> extra;                 // freed after the call
    std::vector<RemoteResource*> resources;  // by input; null for others
  };

  // Runs it all. `predicted`: one for each output.
  absl::Status run(Call& call, const std::vector<Predicted>& predicted);
  absl::Status bind(Call& call);

  FarDevice* device_ = nullptr;
  wire::tf::PlanBody plan_;  // without inputs

 private:
  absl::Status bind_input(Call& call, int index);
  absl::Status bind_host(Call& call, const Tensor& tensor);
  absl::Status make_output(Call& call, int index, const Predicted& predicted, const tensorflow::TensorShape& shape,
                           Slot made);
  absl::Status read_host_outputs(Call& call, const std::vector<std::pair<Tensor*, Slot>>& wanted);
  PlanId plan_for(const std::string& pattern);

  std::mutex mutex_;  // guards what follows
  std::string last_pattern_;
  std::optional<PlanId> last_plan_;
};

class ForwardKernel : public CallKernel {
 public:
  explicit ForwardKernel(tensorflow::OpKernelConstruction* construction);
  void Compute(tensorflow::OpKernelContext* context) override;

 private:
  absl::Status predict(Call& call, std::vector<Predicted>* predicted);
  uint64_t signature(const Call& call, bool* complete) const;

  const tensorflow::OpRegistrationData* registered_ = nullptr;
  const int graph_version_;
  bool assigns_ = false;
  std::mutex mutex_;  // guards what follows
  std::unordered_map<uint64_t, std::vector<Predicted>> known_;
};

}  // namespace waldo::tensorflow_frontend
