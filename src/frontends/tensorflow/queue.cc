#include "base/check.h"
#include "frontends/tensorflow/device.h"
#include "frontends/tensorflow/errors.h"

namespace waldo::tensorflow_frontend {

using wire::tf::CallBody;
using wire::tf::Input;
using wire::tf::InputKind;
using wire::tf::PlanBody;
using wire::tf::PlanKind;

namespace {

PlanBody plain_plan(PlanKind kind, InputKind input, uint16_t outputs) {
  PlanBody body;
  body.kind = kind;
  body.inputs = {input};
  body.outputs = outputs;
  return body;
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data()), tensor.TotalBytes()};
}

}  // namespace

wire::tf::TensorMeta meta_of(const Tensor& tensor) {
  wire::tf::TensorMeta meta;
  meta.dtype = static_cast<uint32_t>(tensor.dtype());
  for (int i = 0; i < tensor.dims(); ++i) meta.dims.push_back(tensor.dim_size(i));
  return meta;
}

absl::StatusOr<FarQueue*> FarQueue::open(int physical) {
  auto queue = runtime().queue(physical);
  if (!queue.ok()) return to_tensorflow(queue.status());
  return &of(**queue);
}

FarQueue& FarQueue::of(client::Queue& queue) {
  static std::mutex mutex;
  static auto* const opened = new std::unordered_map<client::Queue*, FarQueue*>();
  std::lock_guard lock(mutex);
  FarQueue*& far = (*opened)[&queue];
  if (far == nullptr) far = new FarQueue(queue);
  return *far;
}

FarQueue::FarQueue(client::Queue& queue) : queue_(queue) {
  make_ = plan(plain_plan(PlanKind::kMake, InputKind::kInline, 1));
  shape_ = plan(plain_plan(PlanKind::kShape, InputKind::kSlot, 0));
  alias_ = plan(plain_plan(PlanKind::kAlias, InputKind::kSlot, 1));
  reader_ = std::thread([this] { run_reader(); });
  reader_.detach();  // it waits for reads until the process ends
}

PlanId FarQueue::plan(const PlanBody& body) {
  const Buffer bytes = wire::tf::encode(body);
  std::string key(as_text(bytes));
  std::lock_guard lock(mutex_);
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  size_t reads = 0;
  for (const InputKind kind : body.inputs) reads += kind == InputKind::kSlot ? 1 : 0;
  const PlanId made = queue_.define_plan(static_cast<uint16_t>(reads), body.outputs, bytes);
  plans_.emplace(std::move(key), made);
  return made;
}

bool FarQueue::once(const std::string& name) {
  std::lock_guard lock(mutex_);
  return names_.emplace(name, true).second;
}

absl::Status FarQueue::upload(const Tensor& from, Tensor* to) {
  if (from.NumElements() == 0) return absl::OkStatus();
  Block* block = find_block(to->data());
  if (block == nullptr) return absl::InternalError("an upload to a tensor that is not on the device");
  const auto content = bytes_of(from);
  CallBody call;
  Input& input = call.inputs.emplace_back();
  input.meta = meta_of(from);
  Status status;
  if (content.size() <= kInlineBytesMax) {
    input.form = Input::Form::kInline;
    input.content = content;
    Buffer scalars;
    wire::tf::encode(call, scalars);
    status = queue_.call(make_, {&block->slot, 1}, scalars);
  } else {
    status = queue_.upload(block->slot, 0, content.data(), content.size());
    if (status.ok()) {
      input.form = Input::Form::kView;  // of what arrives there
      Buffer scalars;
      wire::tf::encode(call, scalars);
      status = queue_.call(shape_, {&block->slot, 1}, scalars);
    }
  }
  if (!status.ok()) return to_tensorflow(status);
  block->fingerprint = wire::tf::fingerprint(input.meta);
  if (content.size() <= kShadowBytesMax) {
    block->shadow = std::make_unique<char[]>(content.size());
    std::memcpy(block->shadow.get(), content.data(), content.size());
  }
  return absl::OkStatus();
}

absl::Status FarQueue::copy(const Block& from, const Tensor& like, Tensor* to) {
  Block* block = find_block(to->data());
  if (block == nullptr) return absl::InternalError("a copy to a tensor that is not on the device");
  const auto meta = meta_of(like);
  const auto offset = static_cast<const char*>(like.data()) - static_cast<const char*>(from.address);
  Buffer scalars;
  if (offset != 0 || wire::tf::fingerprint(meta) != from.fingerprint) {
    CallBody call;
    Input& input = call.inputs.emplace_back();
    input.form = Input::Form::kView;
    input.meta = meta;
    input.offset_bytes = offset;
    wire::tf::encode(call, scalars);
  }
  const Slot slots[2] = {from.slot, block->slot};
  const Status status = queue_.call(alias_, slots, scalars);
  if (!status.ok()) return to_tensorflow(status);
  block->fingerprint = wire::tf::fingerprint(meta);
  return absl::OkStatus();
}

void FarQueue::read(const Tensor& from, const Block& block, Tensor* to, std::function<void(const absl::Status&)> done) {
  const auto offset = static_cast<uint64_t>(static_cast<const char*>(from.data()) - static_cast<char*>(block.address));
  if (block.shadow != nullptr) {
    std::memcpy(to->data(), block.shadow.get() + offset, from.TotalBytes());
    return done(absl::OkStatus());
  }
  auto ticket = queue_.start_read(block.slot, offset, to->data(), from.TotalBytes());
  if (!ticket.ok()) return done(to_tensorflow(ticket.status()));
  std::lock_guard lock(reading_mutex_);
  readings_.push_back({*ticket, std::move(done)});
  reading_changed_.notify_one();
}

void FarQueue::run_reader() {
  for (;;) {
    Reading reading;
    {
      std::unique_lock lock(reading_mutex_);
      reading_changed_.wait(lock, [&] { return !readings_.empty(); });
      reading = std::move(readings_.front());
      readings_.pop_front();
    }
    reading.done(to_tensorflow(queue_.finish_read(reading.ticket)));
  }
}

}  // namespace waldo::tensorflow_frontend
