#include "frontends/torch/forward_flags.h"

#include <ATen/Context.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/graph_recording.h"
#include "wire/plan_body.h"

namespace waldo::torch_frontend {
namespace {

std::atomic<uint64_t> wanted_threads{0};

uint64_t cheap_flags() {
  using Flag = wire::ContextFlag;
  const auto& context = at::globalContext();
  uint64_t word = wanted_threads.load(std::memory_order_relaxed) << wire::context_threads_shift;
  const auto put = [&word](Flag flag, bool on) { word |= on ? static_cast<uint64_t>(flag) : 0; };
  put(Flag::kDeterministic, context.deterministicAlgorithms());
  put(Flag::kDeterministicWarnOnly, context.deterministicAlgorithmsWarnOnly());
  put(Flag::kFillUninitialized, context.deterministicFillUninitializedMemory());
  put(Flag::kCudnnEnabled, context.userEnabledCuDNN());
  put(Flag::kBenchmarkCudnn, context.benchmarkCuDNN());
  put(Flag::kDeterministicCudnn, context.deterministicCuDNN());
  using Reduction = at::CuBLASReductionOption;
  put(Flag::kAllowFp16Reduction, context.allowFP16ReductionCuBLAS() == Reduction::AllowReducedPrecisionWithSplitK);
  put(Flag::kAllowBf16Reduction, context.allowBF16ReductionCuBLAS() == Reduction::AllowReducedPrecisionWithSplitK);
  return word;
}

constexpr uint64_t kPrecisionBits = static_cast<uint64_t>(wire::ContextFlag::kAllowTf32Cublas) |
                                    static_cast<uint64_t>(wire::ContextFlag::kAllowTf32Cudnn);

// float32Precision() and not allowTF32…(): those throw when a program mixed the old and the new way to say it.
uint64_t precision_flags() {
  const auto& context = at::globalContext();
  uint64_t word = 0;
  if (context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) == at::Float32Precision::TF32) {
    word |= static_cast<uint64_t>(wire::ContextFlag::kAllowTf32Cublas);
  }
  if (context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV) != at::Float32Precision::IEEE) {
    word |= static_cast<uint64_t>(wire::ContextFlag::kAllowTf32Cudnn);
  }
  return word;
}

constexpr uint64_t kNeverSent = ~uint64_t{0};
std::array<std::atomic<uint64_t>, kDevicesMax>& sent() {
  static auto* all = [] {
    auto* made = new std::array<std::atomic<uint64_t>, kDevicesMax>();
    for (auto& one : *made) one.store(kNeverSent);
    return made;
  }();
  return *all;
}

}  // namespace

uint64_t context_flags() { return cheap_flags() | precision_flags(); }

void send_flags_if_changed(FlagCheck what, client::Queue& queue, c10::DeviceIndex device) {
  auto& mine = sent()[static_cast<size_t>(device)];
  const uint64_t last = mine.load(std::memory_order_relaxed);
  const bool all = what == FlagCheck::kAll || last == kNeverSent;
  const uint64_t word = cheap_flags() | (all ? precision_flags() : last & kPrecisionBits);
  if (word == last) [[likely]]
    return;
  wire::Command command;
  command.kind = wire::CommandKind::kSetFlags;
  command.value = word;
  note_unfit("changes a flag");
  check(queue.command(wire::encode(command)));
  mine.store(word, std::memory_order_relaxed);
}

void set_worker_threads(int threads) noexcept {
  if (threads < 1) return;
  wanted_threads.store(std::min(static_cast<uint64_t>(threads), wire::context_threads_max), std::memory_order_relaxed);
}

void forget_sent_flags() noexcept {
  for (auto& one : sent()) one.store(kNeverSent, std::memory_order_relaxed);
}

}  // namespace waldo::torch_frontend
