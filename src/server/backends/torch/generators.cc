#include "server/backends/torch/generators.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/TensorBody.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cstring>

#include "server/backends/torch/errors.h"

namespace waldo::torch_backend {
namespace {

constexpr size_t kGeneratorsMax = 4096;  // per queue; a program has a handful

std::mutex& default_cpu_mutex() {
  static std::mutex mutex;
  return mutex;
}

void exchange(at::CPUGeneratorImpl& a, at::CPUGeneratorImpl& b) {
  const at::mt19937 engine = a.engine();
  const auto next_float = a.next_float_normal_sample();
  const auto next_double = a.next_double_normal_sample();
  a.set_engine(b.engine());
  a.set_next_float_normal_sample(b.next_float_normal_sample());
  a.set_next_double_normal_sample(b.next_double_normal_sample());
  b.set_engine(engine);
  b.set_next_float_normal_sample(next_float);
  b.set_next_double_normal_sample(next_double);
}

Status unknown(uint32_t number) {
  return Status(StatusKind::kInvalid, fmt::format("there is no generator {}", number));
}

at::Generator new_generator(const Device& device, uint64_t seed) {
  if (device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator =
      at::globalContext().getAcceleratorHooksInterface(device.device().type()).getNewGenerator(device.device().index());
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace

Generators::Generators(const Device& device, QueueId queue, bool shares_default)
    : device_(device), queue_(queue), shares_default_(shares_default) {
  if (!device.is_cpu()) {
    generators_[0] = at::globalContext()
                         .getAcceleratorHooksInterface(device.device().type())
                         .getDefaultGenerator(device.device().index());
  } else if (queue.raw == 0) {
    generators_[0] = at::detail::getDefaultCPUGenerator();
  } else {
    generators_[0] = at::detail::createCPUGenerator(c10::detail::getNonDeterministicRandom());
  }
}

const at::Generator* Generators::find(uint32_t number) const {
  const auto it = generators_.find(number);
  return it == generators_.end() ? nullptr : &it->second;
}

Status Generators::create(uint32_t number, uint64_t seed) {
  if (number == 0 || generators_.contains(number)) {
    return Status(StatusKind::kInvalid, fmt::format("generator {} exists already", number));
  }
  if (generators_.size() >= kGeneratorsMax) return Status(StatusKind::kOverloaded, "too many generators");
  generators_.emplace(number, new_generator(device_, seed));
  return Status();
}

Status Generators::free(uint32_t number) {
  if (number == 0 || generators_.erase(number) == 0) return unknown(number);
  return Status();
}

Status Generators::seed(uint32_t number, uint64_t seed) {
  const auto it = generators_.find(number);
  if (it == generators_.end()) return unknown(number);
  const std::scoped_lock lock(it->second.mutex());
  it->second.set_current_seed(seed);
  return Status();
}

Status Generators::copy(uint32_t to, uint32_t from) {
  const at::Generator* source = find(from);
  if (source == nullptr) return unknown(from);
  at::Generator copied = source->clone();
  if (const auto it = generators_.find(to); it != generators_.end()) {
    it->second.set_state(copied.get_state());  // the default one is known by its object, so that stays
    return Status();
  }
  if (generators_.size() >= kGeneratorsMax) return Status(StatusKind::kOverloaded, "too many generators");
  generators_.emplace(to, std::move(copied));
  return Status();
}

Result<std::vector<std::byte>> Generators::state(uint32_t number) const {
  const at::Generator* generator = find(number);
  if (generator == nullptr) return unknown(number);
  const std::scoped_lock lock(generator->unsafeGetGeneratorImpl()->mutex_);
  const at::Tensor state = generator->get_state();
  std::vector<std::byte> bytes(state.nbytes());
  std::memcpy(bytes.data(), state.const_data_ptr(), bytes.size());
  return bytes;
}

Status Generators::set_state(uint32_t number, std::span<const std::byte> bytes) {
  const auto it = generators_.find(number);
  if (it == generators_.end()) return unknown(number);
  const at::Tensor state =
      at::empty({static_cast<int64_t>(bytes.size())}, at::TensorOptions().dtype(c10::ScalarType::Byte));
  if (!bytes.empty()) std::memcpy(state.mutable_data_ptr(), bytes.data(), bytes.size());
  const std::scoped_lock lock(it->second.mutex());
  it->second.set_state(state);
  return Status();
}

Generators::DefaultSwap::DefaultSwap(const Generators& generators)
    : generators_(generators), lock_(default_cpu_mutex()) {
  if (!generators_.must_hand_over()) return;
  exchange(*at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator()),
           *at::check_generator<at::CPUGeneratorImpl>(generators_.standard()));
}

Generators::DefaultSwap::~DefaultSwap() {
  if (!generators_.must_hand_over()) return;
  exchange(*at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator()),
           *at::check_generator<at::CPUGeneratorImpl>(generators_.standard()));
}

}  // namespace waldo::torch_backend
