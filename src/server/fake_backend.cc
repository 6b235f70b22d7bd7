#include "server/fake_backend.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/blocking.h"
#include "server/late_answers.h"
#include "wire/plan_body.h"

namespace waldo::server {

void FakeGate::shut() {
  std::lock_guard lock(mutex_);
  open_ = false;
}

void FakeGate::open() {
  std::lock_guard lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

bool FakeGate::is_open() const {
  std::lock_guard lock(mutex_);
  return open_;
}

void FakeGate::wait_open() {
  std::unique_lock lock(mutex_);
  ++waiters_;
  changed_.notify_all();
  block(lock, changed_, [&] { return open_; });
  --waiters_;
}

void FakeGate::wait_until_waiters(int count) {
  std::unique_lock lock(mutex_);
  block(lock, changed_, [&] { return waiters_ >= count; });
}

class FakeQueue final : public QueueBackend {
 public:
  FakeQueue(FakeBackend& owner, QueueId queue) : owner_(owner), queue_(queue) {}

  Status define(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> body) override {
    if (body.empty()) return Status(StatusKind::kInvalid, "an empty plan body");
    if (plan.raw >= plans_.size()) plans_.resize(plan.raw + 1);
    plans_[plan.raw] = Plan{std::string(as_text(body)), reads, creates};
    return {};
  }

  Status call(PlanId id, std::span<const Slot> slots, std::span<const std::byte> scalars, bool* conformed,
              Buffer* report) override {
    const Plan& plan = plans_[id.raw];
    if (plan.op == "slow") owner_.gate_.wait_open();
    std::lock_guard lock(owner_.mutex_);
    owner_.log_.push_back(std::to_string(queue_.raw) + ":" + plan.op);
    const auto reads = slots.first(plan.reads);
    const auto creates = slots.subspan(plan.reads);
    for (const Slot slot : reads) WALDO_TRY(check_readable(slot));
    WALDO_TRY(run(plan, reads, creates, scalars));
    *conformed = plan.op == "conform_u8";
    if (report != nullptr) {
      Writer out(*report);
      for (const Slot slot : creates) out.put(static_cast<uint64_t>(owner_.slots_[slot].bytes.size()));
    }
    return {};
  }

  Status create(Slot slot, uint64_t bytes) override {
    if (bytes > (1ull << 30)) {
      return failure(wire::ErrorClass::kOutOfMemory, "create", "the fake device has 1 GiB");
    }
    std::lock_guard lock(owner_.mutex_);
    owner_.slots_[slot] = {std::vector<std::byte>(bytes), {}};
    return {};
  }

  Status resize(Slot slot, uint64_t bytes) override {
    std::lock_guard lock(owner_.mutex_);
    WALDO_TRY(check_readable(slot));
    owner_.slots_[slot].bytes.resize(bytes);
    return {};
  }

  Status write(Slot slot, uint64_t offset, UploadedBytes upload) override {
    std::lock_guard lock(owner_.mutex_);
    auto found = owner_.slots_.find(slot);
    if (found == owner_.slots_.end() && offset == 0) {
      found = owner_.slots_.emplace(slot, FakeBackend::Entry{std::vector<std::byte>(upload.size), {}}).first;
    }
    WALDO_TRY(check_readable(slot));
    auto& bytes = found->second.bytes;
    if (offset > bytes.size() || upload.size > bytes.size() - offset) {
      return Status(StatusKind::kInvalid, "a write past the end of its storage");
    }
    if (upload.size > 0) std::memcpy(bytes.data() + offset, upload.data.get(), upload.size);
    return {};
  }

  Status read(Slot slot, uint64_t offset, uint64_t size, const ReadSink& sink) override {
    std::vector<std::byte> copy;  // the sink may block; the table must not
    {
      std::lock_guard lock(owner_.mutex_);
      WALDO_TRY(check_readable(slot));
      const auto& bytes = owner_.slots_[slot].bytes;
      if (offset > bytes.size() || size > bytes.size() - offset) {
        return Status(StatusKind::kInvalid, "a read past the end of its storage");
      }
      copy.assign(bytes.begin() + static_cast<ptrdiff_t>(offset),
                  bytes.begin() + static_cast<ptrdiff_t>(offset + size));
    }
    return sink(copy);
  }

  bool answers_later() const override { return owner_.answers_later_; }

  Status read_later(Slot slot, uint64_t offset, uint64_t size, LateRead late) override {
    constexpr uint64_t kPieceBytes = 100;
    const auto stage = [&](uint64_t begin, uint64_t part) -> Result<StagedPiece> {
      auto copy = std::make_shared<std::vector<std::byte>>();
      WALDO_TRY(read(slot, offset + begin, part, [&](std::span<const std::byte> bytes) {
        copy->assign(bytes.begin(), bytes.end());
        return Status();
      }));
      return StagedPiece{*copy, [this] { return ended(); }, copy};
    };
    return read_in_pieces(answers_, size, kPieceBytes, stage, std::move(late));
  }

  Status mark_later(LateMark told) override {
    answers_.add(
        0, [this] { return ended(); },
        [this, told = std::move(told)](Status status) {
          told(status.ok() ? Result<uint64_t>(now_ns()) : Result<uint64_t>(std::move(status)));
        });
    return {};
  }

  void free(Slot slot) override {
    std::lock_guard lock(owner_.mutex_);
    owner_.slots_.erase(slot);
  }

  void poison(Slot slot, const Status& why) override {
    std::lock_guard lock(owner_.mutex_);
    owner_.slots_[slot] = {{}, why};
  }

  Status command(std::span<const std::byte> body, Buffer* report) override {
    if (as_text(body) == "fail") return failure(wire::ErrorClass::kRuntime, "command", "made to fail");
    if (report != nullptr) *report = to_buffer(body);
    return {};
  }

  Status synchronize() override { return {}; }

  uint64_t now_ns() override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  }

 private:
  struct Plan {
    std::string op;
    uint16_t reads = 0, creates = 0;
  };

  Result<bool> ended() const {
    if (!owner_.gate_.is_open()) return false;
    if (owner_.broken_) return Status(StatusKind::kDevice, "the device broke");
    return true;
  }

  Status failure(wire::ErrorClass error_class, const std::string& op, const std::string& text) {
    StatusDetail detail;
    detail.error_class = static_cast<uint16_t>(error_class);
    detail.op = op;
    return Status(StatusKind::kDevice, text, detail);
  }

  Status check_readable(Slot slot) {  // under the lock
    const auto found = owner_.slots_.find(slot);
    if (found == owner_.slots_.end())
      return Status(StatusKind::kInvalid, "slot " + std::to_string(slot.raw) + " is empty");
    const Status& error = found->second.error;
    if (error.ok()) return {};
    return Status(StatusKind::kDevice, "a value from " + error.detail().op + ", which failed: " + error.text(),
                  error.detail());
  }

  Status run(const Plan& plan, std::span<const Slot> reads, std::span<const Slot> creates,
             std::span<const std::byte> scalars) {  // under the lock
    auto bytes_of = [&](Slot slot) -> std::vector<std::byte>& { return owner_.slots_[slot].bytes; };
    auto add = [](std::byte a, std::byte b) {
      return static_cast<std::byte>(static_cast<uint8_t>(a) + static_cast<uint8_t>(b));
    };
    auto make = [&](size_t index, std::vector<std::byte> bytes) {
      owner_.slots_[creates[index]] = {std::move(bytes), {}};
    };
    auto shaped = [&](size_t read_count, size_t create_count) {
      return reads.size() == read_count && creates.size() == create_count;
    };
    Reader values(scalars);

    if (plan.op == "nop" || plan.op == "slow") {
      for (size_t i = 0; i < creates.size(); ++i) make(i, {});
      return {};
    }
    if (plan.op == "fail") return failure(wire::ErrorClass::kRuntime, plan.op, "made to fail");
    if (plan.op == "oom") return failure(wire::ErrorClass::kOutOfMemory, plan.op, "out of memory");
    if ((plan.op == "add_u8" && shaped(2, 1)) || (plan.op == "add_into_u8" && shaped(2, 0))) {
      std::vector<std::byte> sum = bytes_of(reads[0]);
      const auto& other = bytes_of(reads[1]);
      if (sum.size() != other.size()) return Status(StatusKind::kInvalid, plan.op + ": the sizes differ");
      std::transform(sum.begin(), sum.end(), other.begin(), sum.begin(), add);
      if (creates.empty()) {
        bytes_of(reads[0]) = std::move(sum);
      } else {
        make(0, std::move(sum));
      }
      return {};
    }
    if ((plan.op == "copy_u8" || plan.op == "conform_u8") && shaped(1, 1)) {
      make(0, bytes_of(reads[0]));
      return {};
    }
    if (plan.op == "full_u8" && shaped(0, 1)) {
      const auto size = values.get<uint64_t>("size");
      const auto value = values.get<uint64_t>("value");
      if (!values.ok() || size > (1u << 30)) return Status(StatusKind::kInvalid, "full_u8: bad scalars");
      make(0, std::vector<std::byte>(size, static_cast<std::byte>(value)));
      return {};
    }
    if (plan.op == "fill_u8" && shaped(1, 0)) {
      const auto value = values.get<uint64_t>("value");
      if (!values.ok()) return Status(StatusKind::kInvalid, "fill_u8: bad scalars");
      std::ranges::fill(bytes_of(reads[0]), static_cast<std::byte>(value));
      return {};
    }
    StatusDetail detail;
    detail.op = plan.op;
    return Status(StatusKind::kUnsupported, "this worker does not know " + plan.op, detail);
  }

  FakeBackend& owner_;
  const QueueId queue_;
  std::vector<Plan> plans_;
  LateAnswers answers_{uint64_t{1} << 20};  // last: its thread uses the rest
};

FakeBackend::FakeBackend(int devices) : devices_(devices) {}
FakeBackend::~FakeBackend() = default;

std::string FakeBackend::info_json() {
  std::string devices;
  for (int i = 0; i < devices_; ++i) {
    devices += i == 0 ? "" : ", ";
    devices += R"({"name": "Fake )" + std::to_string(i) +
               R"(", "kind": "cpu", "total_memory": 1073741824, "capability": [8, 0], "multi_processor_count": 1})";
  }
  return R"({"kind": "fake", "version": "1", "devices": [)" + devices + "]}";
}

Result<std::unique_ptr<QueueBackend>> FakeBackend::open_queue(QueueId queue) {
  if (queue.raw >= devices_) return Status(StatusKind::kInvalid, "no such device");
  return std::unique_ptr<QueueBackend>(std::make_unique<FakeQueue>(*this, queue));
}

std::vector<std::string> FakeBackend::log() const {
  std::lock_guard lock(mutex_);
  return log_;
}

size_t FakeBackend::live_slots() const {
  std::lock_guard lock(mutex_);
  return slots_.size();
}

}  // namespace waldo::server
