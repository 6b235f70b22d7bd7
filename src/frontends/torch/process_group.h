// torch.distributed's backend "nccl" on devices of ours. A rank is this process and its worker; a collective is
// recorded as an operator of wire/collectives.h and never waits here, and its bytes go from worker to worker. A Work is
// therefore done as soon as it is made: whoever uses its tensors comes later in the device's queue. A failure is raised
// as that of any call. Only barrier() waits, as NCCL's does.
//
// Owns:    its group on the worker, made at the first collective: one ask, then each rank reads where the others'
//          workers listen from the store that c10d hands over.
// Threads: any; collectives of one group in one order, as c10d requires.
// Errors:  thrown, in c10d's own words where it has some.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <vector>

#include "client/session.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

class WALDO_TORCH_API ProcessGroupNCCL final : public c10d::Backend {
 public:
  struct WALDO_TORCH_API Options final : c10d::Backend::Options {
    explicit Options(bool high_priority = false);
    bool is_high_priority_stream = false;  // of no meaning here
    c10::intrusive_ptr<c10d::Backend> split_from;
    int64_t split_color = 0;
  };
  using Work = c10::intrusive_ptr<c10d::Work>;
  using Tensors = std::vector<at::Tensor>;
  using Timeout = std::chrono::milliseconds;

  ProcessGroupNCCL(c10::intrusive_ptr<c10d::Store> store, int rank, int size, c10::intrusive_ptr<Options> options);
  ~ProcessGroupNCCL() override;

  const std::string getBackendName() const override { return "nccl"; }
  c10::intrusive_ptr<c10d::Backend::Options> getBackendOptions() override { return options_; }
  c10::intrusive_ptr<Options> options() const { return options_; }
  bool supportsCoalescing() const override { return true; }
  void setTimeout(Timeout timeout) override { options_->timeout = timeout; }
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return sequence_; }
  void startCoalescing() override;
  Work endCoalescing() override;
  c10d::ErrorType getError() override { return c10d::ErrorType::SUCCESS; }
  void eagerConnectSingleDevice(at::Device device) override;
  bool initialized() const { return number_.load() != 0; }

  Work broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  Work allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  Work allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override;
  Work reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  Work allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override;
  Work _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& options) override;
  Work allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                       const c10d::AllgatherOptions& options) override;
  Work gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) override;
  Work scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) override;
  Work reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                      const c10d::ReduceScatterOptions& options) override;
  Work _reduce_scatter_base(at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& options) override;
  Work reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                       const c10d::ReduceScatterOptions& options) override;
  Work alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                     std::vector<int64_t>& input_splits, const c10d::AllToAllOptions& options) override;
  Work alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) override;
  Work send(Tensors& tensors, int peer, int tag) override;
  Work recv(Tensors& tensors, int peer, int tag) override;
  Work barrier(const c10d::BarrierOptions& options) override;

  // Waits for what was recorded (at most `at_most`; the group's timeout when negative) and leaves the group.
  void leave(Timeout at_most);
  void shutdown() override { leave(Timeout(-1)); }
  void abort() override;

 private:
  // The group's number on the worker of `device`'s session; makes the group when it is the first time.
  int64_t group(c10::Device device);
  int64_t timeout_ms(Timeout of_call) const;
  Work done(c10d::OpType type, c10::Device device, c10::IValue result, Tensors outputs);
  Work wait_for(c10d::OpType type, c10::Device device, Tensors outputs);

  const c10::intrusive_ptr<c10d::Store> store_;
  const c10::intrusive_ptr<Options> options_;
  const uint64_t instance_;  // of groups of this name in this process: the store may outlive a group
  std::atomic<uint64_t> sequence_{0};
  std::atomic<bool> left_{false};
  std::atomic<int64_t> number_{0};  // 0: not made yet

  std::mutex making_;
  const client::Session* session_ = nullptr;
  c10::DeviceIndex device_ = -1;  // first used
  Timeout opened_timeout_{0};

  std::mutex coalescing_mutex_;
  Tensors coalesced_;
  bool coalescing_ = false;
};

}  // namespace waldo::torch_frontend
