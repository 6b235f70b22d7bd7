#include "frontends/torch/process_group.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <cstdlib>
#include <map>
#include <string_view>

#include "frontends/torch/bridge.h"
#include "frontends/torch/commands.h"
#include "frontends/torch/device.h"
#include "frontends/torch/forward.h"
#include "frontends/torch/kernels.h"
#include "frontends/torch/storage.h"
#include "wire/collectives.h"

namespace waldo::torch_frontend {
namespace {

using c10d::OpType;
using Tensors = ProcessGroupNCCL::Tensors;
using Timeout = ProcessGroupNCCL::Timeout;

constexpr Timeout kDefaultTimeout{10 * 60 * 1000};  // NCCL's

// An operator of wire/collectives.h, below autograd: collectives are no part of a graph.
template <typename... Arguments>
void record(const char* name, const Arguments&... arguments) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("waldo::") + name).c_str(), "");
  torch::jit::Stack stack;
  (stack.emplace_back(arguments), ...);
  const at::AutoDispatchBelowADInplaceOrView below;
  handle.callBoxed(&stack);
}

c10::List<at::Tensor> list_of(const Tensors& tensors) {
  c10::List<at::Tensor> list;
  list.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) list.push_back(tensor);
  return list;
}

void check_tensor(const at::Tensor& tensor) {
  if (!tensor.is_cuda() || tensor.is_sparse()) C10_THROW_ERROR(ValueError, "Tensors must be CUDA and dense");
  if (!tensor.is_non_overlapping_and_dense()) C10_THROW_ERROR(ValueError, "Tensors must be contiguous");
}

// As NCCL checks them: all on one device of ours and dense.
c10::Device check_tensors(const Tensors& tensors) {
  if (tensors.empty()) C10_THROW_ERROR(ValueError, "Tensor list must be nonempty");
  for (const at::Tensor& tensor : tensors) {
    check_tensor(tensor);
    if (tensor.device() != tensors[0].device())
      C10_THROW_ERROR(ValueError, "Expected list of tensors on the same device");
  }
  return tensors[0].device();
}

c10::Device check_single(const Tensors& tensors) {
  if (tensors.size() != 1) C10_THROW_ERROR(ValueError, "Expecting one tensor only but got multiple");
  return check_tensors(tensors);
}

void check_same_types(const Tensors& tensors, const at::Tensor& as) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.scalar_type() != as.scalar_type()) C10_THROW_ERROR(TypeError, "Tensors must have identical type");
    if (tensor.device() != as.device()) C10_THROW_ERROR(ValueError, "Tensor list must be on the same device");
  }
}

void check_sizes_per_rank(const Tensors& tensors, size_t size, const char* what) {
  if (tensors.size() != size)
    C10_THROW_ERROR(ValueError, std::string("Incorrect ") + what + " list size " + std::to_string(tensors.size()) +
                                    ". " + what + " list size should be " + std::to_string(size) +
                                    ", same as size of the process group.");
}

void check_root(int64_t root, int size, const char* what) {
  if (root < 0 || root >= size)
    C10_THROW_ERROR(ValueError,
                    std::string("ProcessGroupNCCL::") + what + ": invalid root rank: " + std::to_string(root));
}

struct Reduce {
  int64_t kind;
  double factor = 1;
};

Reduce reduce_of(const c10d::ReduceOp& op, const at::Tensor& tensor) {
  TORCH_CHECK(op.op_ <= c10d::ReduceOp::PREMUL_SUM, "Unsupported ReduceOp for NCCL process group reduction");
  if (op.op_ == c10d::ReduceOp::AVG && tensor.scalar_type() == at::kBool)
    C10_THROW_ERROR(TypeError, "Cannot use ReduceOp.AVG with boolean inputs");
  const bool bitwise = op.op_ >= c10d::ReduceOp::BAND && op.op_ <= c10d::ReduceOp::BXOR;
  if (bitwise && !at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true))
    C10_THROW_ERROR(ValueError, "Cannot use ReduceOp.BAND, BOR or BXOR with non-integral dtype");
  if (tensor.is_complex() && !c10d::isComplexViewAsRealAllowed(op))
    C10_THROW_ERROR(Error, "all_reduce does not support this ReduceOp on complex tensors");
  Reduce reduce{static_cast<int64_t>(op.op_)};
  if (op.op_ == c10d::ReduceOp::PREMUL_SUM) {
    const auto* premul = static_cast<const c10d::NCCLPreMulSumSupplement*>(op.supplement_.get());
    TORCH_CHECK(premul != nullptr, "PREMUL_SUM without its factor");
    reduce.factor = premul->tensor_factor.defined() ? premul->tensor_factor.item<double>() : premul->double_factor;
  }
  return reduce;
}

// Done when it is made: what comes later in the queue comes later. `waits`: wait() returns when the device is there.
class RecordedWork final : public c10d::Work {
 public:
  RecordedWork(int rank, OpType type, c10::Device device, bool waits, uint64_t sequence, c10::IValue result,
               Tensors outputs)
      : c10d::Work(rank, type), device_(device), waits_(waits), sequence_(sequence), outputs_(std::move(outputs)) {
    const auto tensors = c10::ListType::create(c10::TensorType::get());
    c10::TypePtr kind = tensors;
    if (result.isList() && !result.isTensorList()) kind = c10::ListType::create(tensors);
    future_ = c10::make_intrusive<c10::ivalue::Future>(kind, std::vector<c10::Device>{device});
    future_->markCompleted(std::move(result));
    finish();
  }
  bool wait(Timeout timeout) override {
    if (waits_ || timeout != kNoTimeout) {
      WaitScope no_gil;
      synchronize_device(device_.index());
    }
    return true;
  }
  void synchronize() override {}
  void blockCurrentStream() override {}
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  uint64_t getSequencenumber() const override { return sequence_; }

 private:
  const c10::Device device_;
  const bool waits_;
  const uint64_t sequence_;
  const Tensors outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

// TORCH_NCCL_BLOCKING_WAIT: each wait() is one for the result.
bool blocking_wait() {
  static const bool blocking = [] {
    const char* value = std::getenv("TORCH_NCCL_BLOCKING_WAIT");
    if (value == nullptr) value = std::getenv("NCCL_BLOCKING_WAIT");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return blocking;
}

uint64_t next_instance(const std::string& name) {
  static std::mutex mutex;
  static auto* counts = new std::map<std::string, uint64_t>();
  const std::scoped_lock lock(mutex);
  return (*counts)[name]++;
}

std::string address_key(uint64_t instance, int rank) {
  return "waldo/" + std::to_string(instance) + "/" + std::to_string(rank);
}

}  // namespace

ProcessGroupNCCL::Options::Options(bool high_priority)
    : c10d::Backend::Options("nccl", kDefaultTimeout), is_high_priority_stream(high_priority) {}

ProcessGroupNCCL::ProcessGroupNCCL(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                                   c10::intrusive_ptr<Options> options)
    : c10d::Backend(rank, size),
      store_(std::move(store)),
      options_(std::move(options)),
      instance_(next_instance(options_->group_name)) {
  TORCH_CHECK(device_count() != 0, "ProcessGroupNCCL is only supported with GPUs, no GPUs found!");
}

ProcessGroupNCCL::~ProcessGroupNCCL() = default;  // never waits; the worker leaves its groups when it ends

int64_t ProcessGroupNCCL::group(c10::Device device) {
  TORCH_CHECK(!left_, "NCCL communicator was aborted on rank ", rank_, ": the process group was destroyed.");
  const std::scoped_lock lock(making_);
  const client::Session* session = &queue_for(device).session();
  if (number_ != 0) {
    TORCH_CHECK(session == session_, "a process group's tensors must be on devices of one host; cuda:", device.index(),
                " is on another than cuda:", device_);
    return number_;
  }
  static std::atomic<uint32_t> next_number{1};
  wire::Command command{.kind = wire::CommandKind::kOpenGroup, .generator = next_number++};
  opened_timeout_ = options_->timeout;
  command.ints = {rank_, size_, std::max<int64_t>(opened_timeout_.count(), 1)};
  const wire::Command opened = ask_command(device.index(), command);
  wire::RankAddresses found;
  {
    WaitScope no_gil;
    const auto* mine = reinterpret_cast<const uint8_t*>(opened.bytes.data());
    store_->set(address_key(instance_, rank_), std::vector<uint8_t>(mine, mine + opened.bytes.size()));
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) {
        found.emplace_back();
        continue;
      }
      const std::vector<uint8_t> said = store_->get(address_key(instance_, rank));
      auto addresses = wire::decode_addresses({reinterpret_cast<const std::byte*>(said.data()), said.size()});
      TORCH_CHECK(addresses.ok() && addresses->size() == static_cast<size_t>(size_), "rank ", rank,
                  " said something else than where its worker is");
      found.push_back((*addresses)[static_cast<size_t>(rank_)]);
    }
  }
  command.kind = wire::CommandKind::kJoinGroup;
  command.ints.clear();
  command.bytes = wire::encode_addresses(found);
  send_command(device.index(), command);
  session_ = session;
  device_ = device.index();
  number_ = command.generator;
  return number_;
}

void ProcessGroupNCCL::eagerConnectSingleDevice(at::Device device) { static_cast<void>(group(device)); }

int64_t ProcessGroupNCCL::timeout_ms(Timeout of_call) const {
  if (of_call != c10d::kUnsetTimeout && of_call != kNoTimeout) return std::max<int64_t>(of_call.count(), 1);
  return options_->timeout == opened_timeout_ ? 0 : std::max<int64_t>(options_->timeout.count(), 1);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::done(OpType type, c10::Device device, c10::IValue result, Tensors outputs) {
  const uint64_t sequence = ++sequence_;
  {
    const std::scoped_lock lock(coalescing_mutex_);
    if (coalescing_) coalesced_.insert(coalesced_.end(), outputs.begin(), outputs.end());
  }
  return c10::make_intrusive<RecordedWork>(rank_, type, device, blocking_wait(), sequence, std::move(result),
                                           std::move(outputs));
}

// Recorded one by one as they come: messages are posted at once, so that nothing here needs to be a group.
void ProcessGroupNCCL::startCoalescing() {
  const std::scoped_lock lock(coalescing_mutex_);
  coalescing_ = true;
  coalesced_.clear();
}

ProcessGroupNCCL::Work ProcessGroupNCCL::endCoalescing() {
  Tensors outputs;
  {
    const std::scoped_lock lock(coalescing_mutex_);
    coalescing_ = false;
    outputs.swap(coalesced_);
  }
  const c10::Device device = outputs.empty() ? c10::Device(c10::kCUDA, current_device()) : outputs.front().device();
  return done(OpType::COALESCED, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  const auto device = check_single(tensors);
  check_root(options.rootRank, size_, "broadcast");
  const int64_t number = group(device);
  record("c10d_broadcast_", list_of(tensors), number, options.rootRank, timeout_ms(options.timeout));
  return done(OpType::BROADCAST, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  const auto device = check_single(tensors);
  const int64_t number = group(device);
  const Reduce reduce = reduce_of(options.reduceOp, tensors[0]);
  record("c10d_allreduce_", list_of(tensors), number, reduce.kind, reduce.factor, timeout_ms(options.timeout));
  return done(OpType::ALLREDUCE, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::allreduce_coalesced(Tensors& tensors,
                                                             const c10d::AllreduceCoalescedOptions& options) {
  const auto device = check_tensors(tensors);
  const int64_t number = group(device);
  const Reduce reduce = reduce_of(options.reduceOp, tensors[0]);
  record("c10d_allreduce_", list_of(tensors), number, reduce.kind, reduce.factor, timeout_ms(options.timeout));
  return done(OpType::COALESCED, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  const auto device = check_single(tensors);
  check_root(options.rootRank, size_, "reduce");
  const int64_t number = group(device);
  const Reduce reduce = reduce_of(options.reduceOp, tensors[0]);
  record("c10d_reduce_", list_of(tensors), number, reduce.kind, reduce.factor, options.rootRank,
         timeout_ms(options.timeout));
  return done(OpType::REDUCE, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                                   const c10d::AllgatherOptions& options) {
  const auto device = check_single(inputs);
  TORCH_CHECK(outputs.size() == 1, "Expecting one list of outputs");
  check_sizes_per_rank(outputs[0], static_cast<size_t>(size_), "output");
  check_same_types(outputs[0], inputs[0]);
  check_tensors(outputs[0]);
  const int64_t number = group(device);
  record("c10d_allgather_", list_of(outputs[0]), list_of(inputs), number, timeout_ms(options.timeout));
  c10::List<c10::List<at::Tensor>> result;
  result.push_back(list_of(outputs[0]));
  return done(OpType::ALLGATHER, device, result, outputs[0]);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                         const c10d::AllgatherOptions& options) {
  check_tensor(input);
  check_tensor(output);
  if (input.dtype() != output.dtype())
    C10_THROW_ERROR(TypeError, "output tensor must have the same type as input tensor");
  if (input.numel() * size_ != output.numel())
    C10_THROW_ERROR(ValueError, "output tensor size must be equal to world_size times input tensor size");
  const int64_t number = group(input.device());
  record("c10d_allgather_", list_of({output}), list_of({input}), number, timeout_ms(options.timeout));
  return done(OpType::_ALLGATHER_BASE, input.device(), list_of({output}), {output});
}

ProcessGroupNCCL::Work ProcessGroupNCCL::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                         const c10d::AllgatherOptions& options) {
  const auto device = check_tensors(inputs);
  check_tensors(outputs);
  const int64_t number = group(device);
  record("c10d_allgather_", list_of(outputs), list_of(inputs), number, timeout_ms(options.timeout));
  return done(OpType::COALESCED, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                                const c10d::GatherOptions& options) {
  const auto device = check_single(inputs);
  check_root(options.rootRank, size_, "gather");
  Tensors into;
  if (rank_ == options.rootRank) {
    if (outputs.size() != 1)
      C10_THROW_ERROR(ValueError,
                      "ProcessGroupNCCL::gather: requires a single-element output list containing a list "
                      "with " +
                          std::to_string(size_) + " tensors.");
    into = outputs[0];
    check_sizes_per_rank(into, static_cast<size_t>(size_), "output");
    check_same_types(into, inputs[0]);
    check_tensors(into);
  } else if (!outputs.empty()) {
    C10_THROW_ERROR(ValueError, "ProcessGroupNCCL::gather: requires empty output on non-root");
  }
  const int64_t number = group(device);
  record("c10d_gather_", list_of(into), inputs[0], number, options.rootRank, timeout_ms(options.timeout));
  c10::List<c10::List<at::Tensor>> result;
  result.push_back(list_of(into));
  return done(OpType::GATHER, device, result, into);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                 const c10d::ScatterOptions& options) {
  const auto device = check_single(outputs);
  check_root(options.rootRank, size_, "scatter");
  Tensors from;
  if (rank_ == options.rootRank) {
    if (inputs.size() != 1)
      C10_THROW_ERROR(ValueError,
                      "ProcessGroupNCCL::scatter: requires a single-element input list containing a list "
                      "with " +
                          std::to_string(size_) + " tensors.");
    from = inputs[0];
    check_sizes_per_rank(from, static_cast<size_t>(size_), "input");
    check_same_types(from, outputs[0]);
    check_tensors(from);
  } else if (!inputs.empty()) {
    C10_THROW_ERROR(ValueError, "ProcessGroupNCCL::scatter: requires empty input on non-root");
  }
  const int64_t number = group(device);
  record("c10d_scatter_", outputs[0], list_of(from), number, options.rootRank, timeout_ms(options.timeout));
  return done(OpType::SCATTER, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                        const c10d::ReduceScatterOptions& options) {
  const auto device = check_single(outputs);
  TORCH_CHECK(inputs.size() == 1, "Expecting one list of inputs");
  check_sizes_per_rank(inputs[0], static_cast<size_t>(size_), "input");
  check_same_types(inputs[0], outputs[0]);
  check_tensors(inputs[0]);
  const int64_t number = group(device);
  const Reduce reduce = reduce_of(options.reduceOp, outputs[0]);
  record("c10d_reduce_scatter_", list_of(outputs), list_of(inputs[0]), number, reduce.kind, reduce.factor,
         timeout_ms(options.timeout));
  return done(OpType::REDUCE_SCATTER, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                              const c10d::ReduceScatterOptions& options) {
  check_tensor(input);
  check_tensor(output);
  if (input.dtype() != output.dtype())
    C10_THROW_ERROR(TypeError, "input tensor must be the same type as the output tensor.");
  if (input.numel() != output.numel() * size_)
    C10_THROW_ERROR(ValueError, "input tensor must be the same size as output size times world size");
  const int64_t number = group(input.device());
  const Reduce reduce = reduce_of(options.reduceOp, output);
  record("c10d_reduce_scatter_", list_of({output}), list_of({input}), number, reduce.kind, reduce.factor,
         timeout_ms(options.timeout));
  return done(OpType::_REDUCE_SCATTER_BASE, input.device(), list_of({output}), {output});
}

ProcessGroupNCCL::Work ProcessGroupNCCL::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                         const c10d::ReduceScatterOptions& options) {
  const auto device = check_tensors(inputs);
  check_tensors(outputs);
  const int64_t number = group(device);
  const Reduce reduce = reduce_of(options.reduceOp, outputs[0]);
  record("c10d_reduce_scatter_", list_of(outputs), list_of(inputs), number, reduce.kind, reduce.factor,
         timeout_ms(options.timeout));
  return done(OpType::COALESCED, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                       std::vector<int64_t>& output_splits,
                                                       std::vector<int64_t>& input_splits,
                                                       const c10d::AllToAllOptions& options) {
  check_tensor(input);
  check_tensor(output);
  check_same_types({output}, input);
  c10d::checkSplitSizes(input_splits, input, size_);
  c10d::checkSplitSizes(output_splits, output, size_);
  const int64_t number = group(input.device());
  record("c10d_alltoall_", list_of({output}), list_of({input}), output_splits, input_splits, number,
         timeout_ms(options.timeout));
  return done(OpType::ALLTOALL_BASE, input.device(), list_of({output}), {output});
}

ProcessGroupNCCL::Work ProcessGroupNCCL::alltoall(Tensors& outputs, Tensors& inputs,
                                                  const c10d::AllToAllOptions& options) {
  const auto device = check_tensors(inputs);
  check_tensors(outputs);
  check_sizes_per_rank(inputs, static_cast<size_t>(size_), "input");
  check_sizes_per_rank(outputs, static_cast<size_t>(size_), "output");
  check_same_types(outputs, inputs[0]);
  const int64_t number = group(device);
  record("c10d_alltoall_", list_of(outputs), list_of(inputs), std::vector<int64_t>(), std::vector<int64_t>(), number,
         timeout_ms(options.timeout));
  return done(OpType::ALLTOALL, device, list_of(outputs), outputs);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::send(Tensors& tensors, int peer, int tag) {
  const auto device = check_single(tensors);
  const int64_t number = group(device);
  record("c10d_send_", tensors[0], number, int64_t{peer}, int64_t{tag}, timeout_ms(c10d::kUnsetTimeout));
  return done(OpType::SEND, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::recv(Tensors& tensors, int peer, int tag) {
  const auto device = check_single(tensors);
  const int64_t number = group(device);
  record("c10d_recv_", tensors[0], number, int64_t{peer}, int64_t{tag}, timeout_ms(c10d::kUnsetTimeout));
  return done(OpType::RECV, device, list_of(tensors), tensors);
}

ProcessGroupNCCL::Work ProcessGroupNCCL::barrier(const c10d::BarrierOptions& options) {
  c10::Device device(c10::kCUDA, -1);
  if (!options.device_ids.empty()) {
    device.set_index(static_cast<c10::DeviceIndex>(options.device_ids.front()));
  } else if (options.device && options.device->is_cuda() && options.device->has_index()) {
    device = *options.device;
  } else if (bound_device_id_) {
    device = *bound_device_id_;
  } else {
    device.set_index(device_ >= 0 ? device_ : current_device());
  }
  const int64_t number = group(device);
  const at::Tensor token = empty_far({1}, at::kFloat, device);
  record("c10d_barrier_", token, number, timeout_ms(options.timeout));
  return c10::make_intrusive<RecordedWork>(rank_, OpType::BARRIER, device, /*waits=*/true, ++sequence_,
                                           list_of({token}), Tensors{token});
}

void ProcessGroupNCCL::leave(Timeout at_most) {
  if (left_.exchange(true) || number_ == 0) return;
  if (at_most.count() < 0) at_most = options_->timeout;
  ask_command(device_, {.kind = wire::CommandKind::kLeaveGroup,
                        .generator = static_cast<uint32_t>(number_.load()),
                        .value = static_cast<uint64_t>(at_most.count())});
}

void ProcessGroupNCCL::abort() {
  if (left_.exchange(true) || number_ == 0) return;
  send_command(device_, {.kind = wire::CommandKind::kAbortGroup, .generator = static_cast<uint32_t>(number_.load())});
}

void register_collective_operators() {
  auto* schemas = new torch::Library(torch::Library::FRAGMENT, "waldo", std::nullopt, __FILE__, __LINE__);
  for (const char* schema : wire::kCollectiveOperators) schemas->def(schema);
  auto* far = new torch::Library(torch::Library::IMPL, "waldo", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  for (const std::string_view schema : wire::kCollectiveOperators) {
    const std::string name(schema.substr(0, schema.find('(')));
    const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(("waldo::" + name).c_str(), "");
    far->impl(name.c_str(), torch::CppFunction::makeFromBoxedKernel(
                                c10::BoxedKernel::makeFromFunctor(std::make_unique<ForwardKernel>(handle))));
  }
}

}  // namespace waldo::torch_frontend
