#include "frontends/torch/graph.h"

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <string>

#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/forward.h"
#include "frontends/torch/forward_flags.h"
#include "frontends/torch/graph_recording.h"
#include "frontends/torch/outputs.h"
#include "frontends/torch/storage.h"
#include "wire/limits.h"

namespace waldo::torch_frontend {
namespace {

constexpr size_t kVariantsMax = 64;
// The first runs of a graph learn what its operators make (plan.h), which takes questions; after so many something else
// is in its way.
constexpr int kAttemptsMax = 4;

// How the arguments look, as words, and the storages they lie in, by first appearance.
class Looks {
 public:
  explicit Looks(const Graph::Values& arguments) {
    words_.push_back(context_flags());
    words_.push_back(arguments.size());
    size_t buckets = 16;
    while (buckets < 2 * arguments.size()) buckets *= 2;
    buckets_.assign(buckets, 0);
    for (size_t i = 0; i < arguments.size() && fit_; ++i) add(arguments[i], i);
    if (device_ < 0) fit_ = false;
  }

  bool fit() const { return fit_; }
  c10::DeviceIndex device() const { return device_; }
  const std::vector<uint64_t>& words() const { return words_; }
  const std::vector<const StorageRef*>& storages() const { return storages_; }
  size_t lender(size_t storage) const { return lenders_[storage]; }  // an argument that lies in it
  std::optional<size_t> find(const StorageRef* ref) const {
    const size_t number = buckets_[bucket_of(ref)];
    if (number == 0) return std::nullopt;
    return number - 1;
  }
  uint64_t hash() const {
    uint64_t hash = 0x9E3779B97F4A7C15ull;
    for (const uint64_t word : words_) hash = (std::rotl(hash, 29) ^ word) * 0xD6E8FEB86659FD93ull;
    return hash;
  }

 private:
  enum Tag : uint64_t { kNone, kBool, kInt, kDouble, kTensor };

  void add(const c10::IValue& value, size_t argument) {
    if (value.isTensor()) return add_tensor(value.toTensor(), argument);
    if (value.isNone()) {
      words_.push_back(kNone);
    } else if (value.isBool()) {
      words_.insert(words_.end(), {kBool, value.toBool() ? 1u : 0u});
    } else if (value.isInt()) {
      words_.insert(words_.end(), {kInt, static_cast<uint64_t>(value.toInt())});
    } else if (value.isDouble()) {
      words_.insert(words_.end(), {kDouble, std::bit_cast<uint64_t>(value.toDouble())});
    } else {
      fit_ = false;
    }
  }

  void add_tensor(const at::Tensor& tensor, size_t argument) {
    using c10::DispatchKey;
    static const c10::DispatchKeySet plain =
        c10::DispatchKeySet(DispatchKey::CUDA) |
        c10::getAutogradRelatedKeySetFromBackend(c10::BackendComponent::CUDABit) |
        c10::getAutocastRelatedKeySetFromBackend(c10::BackendComponent::CUDABit) |
        c10::DispatchKeySet({DispatchKey::ADInplaceOrView, DispatchKey::Conjugate, DispatchKey::Negative});
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (!tensor.defined() || ((impl->key_set() - plain).raw_repr() & ~c10::full_backend_mask) != 0 ||
        !impl->has_storage())
      return unfit();
    const StorageRef* ref = storage_ref(*impl);
    if (ref == nullptr || (device_ >= 0 && device_ != ref->device.index())) return unfit();
    device_ = ref->device.index();
    const bool learns = c10::GradMode::is_enabled() && tensor.requires_grad();
    const uint64_t bits = (tensor.is_conj() ? 1u : 0u) | (tensor.is_neg() ? 2u : 0u) | (learns ? 4u : 0u) |
                          (impl->is_wrapped_number() ? 8u : 0u);
    words_.insert(words_.end(), {kTensor | bits << 8 | static_cast<uint64_t>(tensor.scalar_type()) << 16 |
                                     static_cast<uint64_t>(tensor.dim()) << 32,
                                 group_of(ref, argument), static_cast<uint64_t>(tensor.storage_offset())});
    for (const int64_t size : tensor.sizes()) words_.push_back(static_cast<uint64_t>(size));
    for (const int64_t stride : tensor.strides()) words_.push_back(static_cast<uint64_t>(stride));
  }

  uint64_t group_of(const StorageRef* ref, size_t argument) {
    uint32_t& number = buckets_[bucket_of(ref)];
    if (number == 0) {
      storages_.push_back(ref);
      lenders_.push_back(argument);
      number = static_cast<uint32_t>(storages_.size());
    }
    return number;
  }

  // Where `ref` is, or where it would be put. There are twice as many places as tensors.
  size_t bucket_of(const StorageRef* ref) const {
    size_t at = (reinterpret_cast<uintptr_t>(ref) >> 4) * 0x9E3779B97F4A7C15ull >> 32;
    while (true) {
      at &= buckets_.size() - 1;
      if (buckets_[at] == 0 || storages_[buckets_[at] - 1] == ref) return at;
      ++at;
    }
  }

  void unfit() { fit_ = false; }

  std::vector<uint64_t> words_;
  std::vector<const StorageRef*> storages_;
  std::vector<size_t> lenders_;
  std::vector<uint32_t> buckets_;  // into storages_, from 1; 0: nothing
  c10::DeviceIndex device_ = -1;
  bool fit_ = true;
};

struct GraphOutput {
  enum class Kind : uint8_t {
    kConstant,  // `constant`
    kArgument,  // the `index`-th argument itself
    kOver,      // a tensor over the `index`-th storage of the arguments
    kNew,       // over the `index`-th that the graph makes
  };
  Kind kind = Kind::kConstant;
  size_t index = 0;
  c10::IValue constant;
  OutputPlan tensor;
};

// As Making, but that it also finds room for what the graph needs only while it runs.
class GraphMaking {
 public:
  GraphMaking(client::Queue& queue, c10::DeviceIndex device, const std::vector<StorageNeed>& needs,
              const StorageNeed& passing)
      : making_(queue, device, needs), pool_(MemoryPool::of(device)), passing_(passing) {}

  bool admit() {
    refused_ = passing_.bytes;
    StorageRef* passing = passing_.bytes != 0 ? pool_.take(passing_) : nullptr;
    if (passing_.bytes != 0 && passing == nullptr) return false;
    refused_ = 0;
    const bool admitted = making_.admit();
    if (passing != nullptr) pool_.give_back_watched(passing);
    return admitted;
  }
  void* name(size_t i, Slot slot) { return making_.name(i, slot); }
  uint64_t refused() const { return refused_ != 0 ? refused_ : making_.refused(); }
  c10::Storage take(size_t i) { return making_.take(i); }

 private:
  Making making_;
  MemoryPool& pool_;
  const StorageNeed& passing_;
  uint64_t refused_ = 0;
};

// An argument that the graph changes, and by how much its version rises.
struct Written {
  size_t argument = 0;
  uint32_t rise = 0;
};

uint32_t version_of(const c10::IValue& value) {
  if (!value.isTensor() || value.toTensor().is_inference()) return 0;
  return static_cast<uint32_t>(value.toTensor()._version());
}

// A tensor and its views have one version between them.
void raise_versions(const Graph::Values& arguments, const std::vector<Written>& written) {
  c10::SmallVector<uint32_t, 8> wanted;
  for (const Written& one : written) wanted.push_back(version_of(arguments[one.argument]) + one.rise);
  for (size_t i = 0; i < written.size(); ++i) {
    const c10::IValue& argument = arguments[written[i].argument];
    while (version_of(argument) != wanted[i]) argument.toTensor().unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace

struct Graph::Known {
  std::vector<uint64_t> words;
  PlanId plan;
  c10::DeviceIndex device = 0;
  std::vector<StorageNeed> needs;  // of each storage that it makes
  StorageNeed passing;             // of what lives on the worker alone, at its height
  std::vector<GraphOutput> outputs;
  std::vector<Written> written;
};

struct Graph::Variant {
  std::shared_ptr<const Known> known;
  int attempts = 0;
};

struct Graph::Begun {
  Begun(const Values& all, Looks&& looks_now, std::span<const Slot> slots)
      : arguments(all), looks(std::move(looks_now)), recording(looks.device(), slots) {}

  const Values arguments;  // keeps the storages
  const Looks looks;
  std::vector<uint32_t> versions;
  GraphRecording recording;
};

namespace {

OutputPlan layout_of(const at::Tensor& tensor) {
  OutputPlan plan;
  plan.kind = wire::OutputKind::kNew;
  plan.contiguous = tensor.is_contiguous();
  plan.conj = tensor.is_conj();
  plan.neg = tensor.is_neg();
  plan.dtype = tensor.scalar_type();
  plan.offset = tensor.storage_offset();
  plan.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  plan.strides.assign(tensor.strides().begin(), tensor.strides().end());
  return plan;
}

}  // namespace

Graph::Graph() = default;
Graph::~Graph() = default;

size_t Graph::size() const {
  const std::scoped_lock lock(mutex_);
  size_t count = 0;
  for (const auto& [hash, variant] : variants_) count += variant.known != nullptr;
  return count;
}

bool Graph::run(const Values& arguments, Values* outputs) {
  if (any_graph_recording() && GraphRecording::of_this_thread() != nullptr) return false;
  const Looks looks(arguments);
  if (!looks.fit()) return false;
  client::Queue& queue = queue_for(c10::Device(c10::DeviceType::CUDA, looks.device()));
  std::shared_ptr<const Known> known;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = variants_.find(looks.hash());
    if (found == variants_.end() || found->second.known == nullptr) return false;
    if (queue.conformed(found->second.known->plan)) {  // an operator's outputs were not what had been foretold
      found->second.known = nullptr;
      return false;
    }
    known = found->second.known;
  }
  if (known->words != looks.words() || known->device != looks.device()) return false;
  send_flags_if_changed(FlagCheck::kAll, queue, known->device);

  GraphMaking fresh(queue, known->device, known->needs, known->passing);
  std::vector<Slot> slots(looks.storages().size() + known->needs.size());
  for (size_t i = 0; i < looks.storages().size(); ++i) slots[i] = looks.storages()[i]->slot;
  bool admitted = true;
  check(queue.call_making(known->plan, slots, {}, fresh, &admitted));
  if (!admitted) call_again(queue, known->plan, known->device, slots, {}, fresh);

  raise_versions(arguments, known->written);
  std::vector<c10::Storage> made;
  for (size_t i = 0; i < known->needs.size(); ++i) made.push_back(fresh.take(i));
  outputs->clear();
  for (const GraphOutput& output : known->outputs) {
    switch (output.kind) {
      case GraphOutput::Kind::kConstant:
        outputs->push_back(output.constant);
        break;
      case GraphOutput::Kind::kArgument:
        outputs->push_back(arguments[output.index]);
        break;
      case GraphOutput::Kind::kOver: {
        c10::Storage storage = arguments[looks.lender(output.index)].toTensor().storage();
        outputs->emplace_back(make_tensor(std::move(storage), output.tensor));
        break;
      }
      case GraphOutput::Kind::kNew: {
        c10::Storage storage = made[output.index];
        outputs->emplace_back(make_tensor(std::move(storage), output.tensor));
        break;
      }
    }
  }
  if (launch_blocking()) synchronize_device(-1);
  return true;
}

bool Graph::begin(const Values& arguments) {
  if (begun_ != nullptr || GraphRecording::of_this_thread() != nullptr) return false;
  Looks looks(arguments);
  if (!looks.fit() || looks.storages().size() > limits::call_slot_count_max / 2) return false;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = variants_.find(looks.hash());
    if (found == variants_.end() ? variants_.size() >= kVariantsMax : found->second.attempts >= kAttemptsMax)
      return false;
    ++variants_[looks.hash()].attempts;
  }
  send_flags_if_changed(FlagCheck::kAll, queue_for(c10::Device(c10::DeviceType::CUDA, looks.device())), looks.device());
  std::vector<Slot> slots;
  for (const StorageRef* ref : looks.storages()) slots.push_back(ref->slot);
  begun_ = std::make_unique<Begun>(arguments, std::move(looks), slots);
  for (const c10::IValue& value : arguments) begun_->versions.push_back(version_of(value));
  return true;
}

void Graph::abandon() { begun_.reset(); }

const char* Graph::end(const Values& outputs) {
  if (begun_ == nullptr) return nullptr;
  const std::unique_ptr<Begun> begun = std::move(begun_);
  const GraphRecording& recording = begun->recording;
  if (recording.unfit() != nullptr) return recording.unfit();

  auto known = std::make_shared<Known>();
  known->words = begun->looks.words();
  known->device = begun->looks.device();
  std::vector<uint32_t> made;  // the values that outputs lie in
  std::vector<OutputPlan> layouts;
  for (const c10::IValue& value : outputs) {
    GraphOutput& output = known->outputs.emplace_back();
    if (!value.isTensor()) {
      output.constant = value;
      continue;
    }
    const at::Tensor& tensor = value.toTensor();
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    for (size_t i = 0; i < begun->arguments.size(); ++i) {
      if (!begun->arguments[i].isTensor() || begun->arguments[i].toTensor().unsafeGetTensorImpl() != impl) continue;
      output.kind = GraphOutput::Kind::kArgument;
      output.index = i;
    }
    if (output.kind == GraphOutput::Kind::kArgument) continue;
    if (!impl->has_storage() || tensor.layout() != at::kStrided || tensor.requires_grad())
      return "gives back another kind of tensor";
    const StorageRef* ref = storage_ref(*impl);
    if (ref == nullptr) return "gives back a tensor of another device";
    output.tensor = layout_of(tensor);
    if (const auto over = begun->looks.find(ref)) {
      output.kind = GraphOutput::Kind::kOver;
      output.index = *over;
      continue;
    }
    const std::optional<uint32_t> number = recording.value_in(ref->slot);
    if (!number.has_value()) return "gives back a tensor that it neither gets nor makes";
    const auto place = std::find(made.begin(), made.end(), *number);
    output.kind = GraphOutput::Kind::kNew;
    output.index = static_cast<size_t>(place - made.begin());
    if (place == made.end()) made.push_back(*number);
  }
  for (size_t i = 0; i < begun->arguments.size(); ++i) {
    const uint32_t rise = version_of(begun->arguments[i]) - begun->versions[i];
    if (rise != 0) known->written.push_back({i, rise});
  }

  uint64_t made_bytes = 0;
  for (const uint32_t value : made) {
    known->needs.emplace_back(recording.bytes_of(value));
    made_bytes += known->needs.back().taken;
  }
  const GraphRecording::Graph graph = recording.finish(made);
  known->passing = StorageNeed(graph.peak_bytes > made_bytes ? graph.peak_bytes - made_bytes : 0);
  if (graph.body.value_count > limits::graph_value_count_max || made.size() > limits::call_slot_count_max / 2)
    return "makes too many tensors";
  for (GraphOutput& output : known->outputs) {
    if (output.kind != GraphOutput::Kind::kOver && output.kind != GraphOutput::Kind::kNew) continue;
    std::vector<OutputPlan> one{std::move(output.tensor)};
    make_prototypes(one, known->device);
    output.tensor = std::move(one[0]);
  }
  known->plan = queue_for(c10::Device(c10::DeviceType::CUDA, known->device))
                    .define_plan(static_cast<uint16_t>(begun->looks.storages().size()),
                                 static_cast<uint16_t>(made.size()), wire::encode(graph.body));
  if (known->plan == client::kNoPlan) return "has too many operators";
  const std::scoped_lock lock(mutex_);
  variants_[begun->looks.hash()].known = std::move(known);
  return nullptr;
}

}  // namespace waldo::torch_frontend
