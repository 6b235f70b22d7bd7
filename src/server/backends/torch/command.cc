#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/queue.h"

namespace waldo::torch_backend {
namespace {

using wire::CommandKind;
using wire::ContextFlag;

// The settings of the client's libtorch that change what operators compute.
void set_flags(uint64_t value) {
  const auto has = [value](ContextFlag flag) { return (value & static_cast<uint64_t>(flag)) != 0; };
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(has(ContextFlag::kDeterministic), has(ContextFlag::kDeterministicWarnOnly));
  context.setDeterministicFillUninitializedMemory(has(ContextFlag::kFillUninitialized));
  context.setBenchmarkCuDNN(has(ContextFlag::kBenchmarkCudnn));
  context.setDeterministicCuDNN(has(ContextFlag::kDeterministicCudnn));
  context.setUserEnabledCuDNN(has(ContextFlag::kCudnnEnabled));
  context.setFlushDenormal(has(ContextFlag::kFlushDenormal));  // this thread's, which is the one that computes
  if (context.hasCUDA()) {
    context.setAllowTF32CuBLAS(has(ContextFlag::kAllowTf32Cublas));
    context.setAllowTF32CuDNN(has(ContextFlag::kAllowTf32Cudnn));
    context.setAllowFP16ReductionCuBLAS(has(ContextFlag::kAllowFp16Reduction));
    context.setAllowBF16ReductionCuBLAS(has(ContextFlag::kAllowBf16Reduction));
  }
}

}  // namespace

Status TorchQueue::command(std::span<const std::byte> body, Buffer* report) {
  return guarded({}, [&]() -> Status {
    device_.enter_thread();
    Result<wire::Command> decoded = wire::decode_command(body);
    if (!decoded.ok()) return decoded.status();
    wire::Command answer;
    answer.kind = decoded->kind;
    answer.generator = decoded->generator;
    WALDO_TRY(run_command(decoded.value(), answer));
    if (report != nullptr) *report = wire::encode(answer);
    return Status();
  });
}

Status TorchQueue::run_command(const wire::Command& command, wire::Command& answer) {
  switch (command.kind) {
    case CommandKind::kSeed:
      return generators_.seed(command.generator, command.value);
    case CommandKind::kGetGeneratorState: {
      auto state = generators_.state(command.generator);
      if (!state.ok()) return state.status();
      answer.bytes = std::move(state).value();
      return Status();
    }
    case CommandKind::kSetGeneratorState:
      return generators_.set_state(command.generator, command.bytes);
    case CommandKind::kNewGenerator:
      return generators_.create(command.generator, command.value);
    case CommandKind::kFreeGenerator:
      return generators_.free(command.generator);
    case CommandKind::kCopyGenerator:
      if (command.value > UINT32_MAX) return Status(StatusKind::kInvalid, "there is no such generator");
      return generators_.copy(command.generator, static_cast<uint32_t>(command.value));
    case CommandKind::kMemoryInfo: {
      const auto used = memory_.used.load(std::memory_order_relaxed);
      const uint64_t total = memory_.cap;
      const uint64_t free = std::min(device_.free_bytes(used), total > used ? total - used : 0);
      answer.ints = {static_cast<int64_t>(free), static_cast<int64_t>(total), static_cast<int64_t>(used),
                     static_cast<int64_t>(used)};
      return Status();
    }
    case CommandKind::kEmptyCache:
      device_.empty_cache();
      return Status();
    case CommandKind::kOpenGroup:
    case CommandKind::kJoinGroup:
    case CommandKind::kLeaveGroup:
    case CommandKind::kAbortGroup:
      return shared_->collectives.command(command, answer);
    case CommandKind::kSetFlags: {
      const uint64_t threads = command.value >> wire::context_threads_shift;
      if (threads > wire::context_threads_max) return Status(StatusKind::kInvalid, "too many threads");
      set_flags(command.value);
      if (threads > 0)
        at::set_num_threads(static_cast<int>(threads));  // of this thread, which is the one that computes
      return Status();
    }
  }
  return Status(StatusKind::kInvalid, "an unknown command");
}

}  // namespace waldo::torch_backend
