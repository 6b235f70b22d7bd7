#include "frontends/torch/generator.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GeneratorImpl.h>

#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include "frontends/torch/commands.h"
#include "frontends/torch/device.h"

namespace waldo::torch_frontend {
namespace {

constexpr size_t kCudaStateBytes = 16;  // seed and Philox offset, 8 bytes each; a CPU worker's state is longer

class WorkerGenerator final : public c10::GeneratorImpl {
 public:
  WorkerGenerator(c10::DeviceIndex device, uint32_t number)
      : GeneratorImpl(c10::Device(c10::DeviceType::CUDA, device), c10::DispatchKeySet(c10::DispatchKey::CUDA)),
        number_(number) {}
  ~WorkerGenerator() override {
    if (number_ == 0) return;
    try {
      send({.kind = wire::CommandKind::kFreeGenerator});
    } catch (...) {  // the session is gone, and the generator with it
    }
  }

  uint32_t number() const { return number_; }

  void set_current_seed(uint64_t seed) override {
    send({.kind = wire::CommandKind::kSeed, .value = seed});
    seed_ = seed;
  }
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override {
    const uint64_t seed = c10::detail::getNonDeterministicRandom(true);
    set_current_seed(seed);
    return seed;
  }

  uint64_t get_offset() const override {
    uint64_t offset = 0;
    std::memcpy(&offset, philox_state().data() + 8, sizeof offset);
    return offset;
  }
  void set_offset(uint64_t offset) override {
    std::vector<std::byte> state = philox_state();
    std::memcpy(state.data() + 8, &offset, sizeof offset);
    send({.kind = wire::CommandKind::kSetGeneratorState, .bytes = std::move(state)});
  }

  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    const std::vector<std::byte> state = state_bytes();
    const at::Tensor tensor = at::empty({static_cast<int64_t>(state.size())}, at::TensorOptions().dtype(at::kByte));
    std::memcpy(tensor.mutable_data_ptr(), state.data(), state.size());
    return tensor.getIntrusivePtr();
  }
  void set_state(const c10::TensorImpl& state) override {
    at::detail::check_rng_state(state);
    const auto* data = static_cast<const std::byte*>(state.data());
    std::vector<std::byte> bytes(data, data + state.numel());
    if (bytes.size() == kCudaStateBytes) std::memcpy(&seed_, bytes.data(), sizeof seed_);
    send({.kind = wire::CommandKind::kSetGeneratorState, .bytes = std::move(bytes)});
  }

 private:
  WorkerGenerator* clone_impl() const override;

  void send(wire::Command command) const {
    command.generator = number_;
    send_command(device_.index(), command);
  }
  std::vector<std::byte> state_bytes() const {
    return ask_command(device_.index(), {.kind = wire::CommandKind::kGetGeneratorState, .generator = number_}).bytes;
  }
  std::vector<std::byte> philox_state() const {
    std::vector<std::byte> state = state_bytes();
    TORCH_CHECK(state.size() == kCudaStateBytes,
                "this device's generator has no offset: its worker is not a CUDA device (its state has ", state.size(),
                " bytes)");
    return state;
  }

  const uint32_t number_;
  uint64_t seed_ = c10::default_rng_seed_val;
};

uint32_t next_number() {
  static std::atomic<uint32_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

WorkerGenerator* WorkerGenerator::clone_impl() const {
  auto copy = std::make_unique<WorkerGenerator>(device_.index(), next_number());
  copy->send({.kind = wire::CommandKind::kNewGenerator, .value = seed_});
  copy->send({.kind = wire::CommandKind::kCopyGenerator, .value = number_});
  copy->seed_ = seed_;
  return copy.release();
}

}  // namespace

uint32_t generator_number(const std::optional<at::Generator>& generator, c10::DeviceIndex device) {
  if (!generator.has_value() || !generator->defined()) return 0;
  TORCH_CHECK(generator->device().type() == c10::DeviceType::CUDA,
              "Expected a 'cuda' device type for generator but found '", generator->device().type(), "'");
  TORCH_CHECK(generator->device().index() == device, "Expected a generator of cuda:", static_cast<int>(device),
              " but found one of ", generator->device());
  return static_cast<WorkerGenerator*>(generator->unsafeGetGeneratorImpl())->number();
}

const at::Generator& default_generator(c10::DeviceIndex device) {
  static std::array<at::Generator, kDevicesMax>* generators = new std::array<at::Generator, kDevicesMax>;
  static std::mutex mutex;
  const auto index = resolve_device(device);
  const std::lock_guard lock(mutex);
  auto& generator = (*generators)[static_cast<size_t>(index)];
  if (!generator.defined()) generator = at::make_generator<WorkerGenerator>(index, 0u);
  return generator;
}

at::Generator new_generator(c10::DeviceIndex device) {
  const auto index = resolve_device(device);
  auto generator = at::make_generator<WorkerGenerator>(index, next_number());
  send_command(index, {.kind = wire::CommandKind::kNewGenerator,
                       .generator = static_cast<WorkerGenerator*>(generator.unsafeGetGeneratorImpl())->number(),
                       .value = c10::default_rng_seed_val});
  return generator;
}

}  // namespace waldo::torch_frontend
