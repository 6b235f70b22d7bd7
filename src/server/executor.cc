#include "server/executor.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "wire/messages.h"

namespace waldo::server {

namespace {

constexpr uint64_t kShortReadBytes = 4096;  // goes on the records lane, so that `item()` never queues behind a download

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

}  // namespace

Executor::Executor(QueueId queue, std::unique_ptr<QueueBackend> backend, ExecutorShared& shared)
    : queue_(queue), backend_(std::move(backend)), shared_(shared), thread_([this] { run(); }) {}

Executor::~Executor() {
  stop();
  thread_.join();
  backend_.reset();  // while what its late answers call is still here
}

void Executor::push(Buffer records_payload) {
  std::lock_guard lock(mutex_);
  inbox_.push_back(std::move(records_payload));
  changed_.notify_one();
}

void Executor::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_one();
}

void Executor::run() {
  for (;;) {
    Buffer payload;
    bool failed_late = false;
    {
      std::unique_lock lock(mutex_);
      block(lock, changed_, [&] { return stopped_ || !inbox_.empty() || !late_failures_.empty(); });
      if (stopped_) return;
      failed_late = !late_failures_.empty();
      if (!failed_late) {
        payload = std::move(inbox_.front());
        inbox_.pop_front();
      }
    }
    if (Status ended = failed_late ? tell_late_failure() : run_frame(payload); !ended.ok()) {
      const bool ending = ended.kind() == StatusKind::kCancelled || ended.kind() == StatusKind::kLost;
      if (!ending) shared_.host.fault(ended);
      return;
    }
    const uint64_t bytes = payload.size();
    payload = Buffer();
    shared_.host.consumed_records(bytes);
  }
}

Status Executor::run_frame(std::span<const std::byte> payload) {
  auto reader = wire::RecordReader::open(payload);
  if (!reader.ok()) return reader.status();
  if (reader->header().first_call != next_call_) return invalid("RECORDS begin at another call number than the next");
  wire::Record record;
  while (reader->next(record)) WALDO_TRY(run_record(record));
  return reader->status();
}

// Ok while the session goes on, whatever became of the call.
Status Executor::run_record(const wire::Record& record) {
  if (!wire::takes_call_number(record.kind)) return run_unnumbered(record);
  Status result = failure_.ok() ? run_numbered(record) : drop(record);
  if (session_over_) return result;
  if (!result.ok()) WALDO_TRY(fail_call(record, std::move(result)));
  next_call_ = CallNumber{record.call.raw + 1};
  shared_.progress.reached(queue_, record.call);
  return {};
}

Status Executor::run_unnumbered(const wire::Record& record) {
  switch (record.kind) {
    case wire::RecordKind::kDefinePlan:
      if (record.plan.raw > plans_.size()) return invalid("DEFINE_PLAN leaves a gap");
      if (record.plan.raw == plans_.size()) plans_.emplace_back();
      plans_[record.plan.raw] = {record.reads, record.creates, true};
      return backend_->define(record.plan, record.reads, record.creates, record.body);
    case wire::RecordKind::kFree:
      for (const Slot slot : record.slots) backend_->free(slot);
      return {};
    case wire::RecordKind::kAfter:
      if (record.other_queue.raw >= shared_.progress.queue_count())
        return invalid("AFTER names a queue that is not there");
      return shared_.progress.wait_for(record.other_queue, record.target);
    case wire::RecordKind::kResumeAt:
      if (record.target != next_call_) return invalid("RESUME_AT names another call than the next");
      failure_ = Status();
      return {};
    default:
      return invalid("a record without a meaning");
  }
}

Status Executor::run_numbered(const wire::Record& record) {
  if (!shared_.faults.empty()) [[unlikely]] {
    if (Status made = shared_.faults.check(queue_, record.call); !made.ok()) {
      WALDO_TRY(drop_upload(record));
      StatusDetail detail = made.detail();
      if (record.kind == wire::RecordKind::kCall) detail.op = backend_->op_name(record.plan);
      return Status(made.kind(), made.text(), std::move(detail));
    }
  }
  switch (record.kind) {
    case wire::RecordKind::kCall:
      return run_call(record);
    case wire::RecordKind::kCreate:
      return backend_->create(record.slot, record.bytes);
    case wire::RecordKind::kResize:
      return backend_->resize(record.slot, record.bytes);
    case wire::RecordKind::kUpload:
      return run_upload(record);
    case wire::RecordKind::kRead:
      return run_read(record);
    case wire::RecordKind::kCommand:
      return run_command(record);
    case wire::RecordKind::kSync:
    case wire::RecordKind::kTime:
      return run_mark(record);
    default:
      return over(invalid("a record without a meaning"));
  }
}

Status Executor::run_call(const wire::Record& record) {
  if (Status checked = check_call(record); !checked.ok()) return over(std::move(checked));
  bool conformed = false;
  Buffer report;
  Status result =
      backend_->call(record.plan, record.slots, record.body, &conformed, record.report_wanted ? &report : nullptr);
  // Also before a failure: sizes that differ from the prediction fail the call, and its plan is asked for from then on.
  if (conformed) WALDO_TRY(send(wire::FrameKind::kConformed, wire::CallConformed{queue_, record.call, record.plan}));
  WALDO_TRY(result);
  if (!record.report_wanted) return {};
  if (report.size() > limits::report_bytes_max)
    return Status(StatusKind::kUnsupported, "a report past report_bytes_max");
  return send(wire::FrameKind::kReport, wire::CallReport{queue_, record.call, report});
}

Status Executor::run_upload(const wire::Record& record) {
  auto content = shared_.uploads.take(record.upload, record.bytes);
  if (content.ok()) return backend_->write(record.slot, record.offset, std::move(*content));
  const Status why = content.status();
  if (why.kind() == StatusKind::kInvalid) return over(why);
  std::unique_lock lock(mutex_);
  const bool stopped = stopped_;
  lock.unlock();
  return stopped ? over(why) : why;
}

Status Executor::run_read(const wire::Record& record) {
  return answer({.call = record.call, .queue = queue_, .total = record.bytes, .bytes = {}}, record.slot, record.offset);
}

// Sends `piece.total` bytes of the slot, in pieces like `piece`.
Status Executor::answer(wire::ReadData piece, Slot slot, uint64_t offset) {
  if (piece.total > 0 && backend_->answers_later()) return answer_later(piece, slot, offset);
  const auto ended = [this](Status sent) {
    return sent.ok() || sent.kind() == StatusKind::kInternal ? sent : over(std::move(sent));
  };
  WALDO_TRY(backend_->read(slot, offset, piece.total,
                           [&](std::span<const std::byte> chunk) { return ended(send_chunk(piece, chunk)); }));
  if (piece.total == 0) return ended(send_piece(piece, {}));
  if (piece.offset != piece.total) return Status(StatusKind::kInternal, "the backend read too little");
  return {};
}

// The device has not come to this yet: the backend's thread sends it.
Status Executor::answer_later(const wire::ReadData& first, Slot slot, uint64_t offset) {
  const auto piece = std::make_shared<wire::ReadData>(first);
  return backend_->read_later(
      slot, offset, piece->total,
      {.sink = [this, piece](std::span<const std::byte> chunk) { return send_chunk(*piece, chunk); },
       .done =
           [this, piece](Status status) {
             if (status.ok() && piece->offset != piece->total)
               status = Status(StatusKind::kInternal, "the backend read too little");
             if (!status.ok()) failed_later(piece->call, std::move(status));
           }});
}

Status Executor::send_chunk(wire::ReadData& piece, std::span<const std::byte> chunk) {
  if (chunk.size() > piece.total - piece.offset) return Status(StatusKind::kInternal, "the backend read too much");
  for (size_t at = 0; at < chunk.size(); at += limits::chunk_bytes) {
    WALDO_TRY(send_piece(piece, chunk.subspan(at, std::min<size_t>(limits::chunk_bytes, chunk.size() - at))));
  }
  return {};
}

Status Executor::send_piece(wire::ReadData& piece, std::span<const std::byte> bytes) {
  const wire::Lane lane = piece.total <= kShortReadBytes ? wire::Lane::kRecords : wire::Lane::kBulk;
  piece.bytes = bytes;
  Status sent = shared_.host.send_content(lane, piece);
  piece.offset += bytes.size();
  return sent;
}

// SYNC and TIME: all earlier calls have ended, and when.
Status Executor::run_mark(const wire::Record& record) {
  const bool timed = record.kind == wire::RecordKind::kTime;
  if (!backend_->answers_later()) {
    if (!timed) WALDO_TRY(backend_->synchronize());
    return send(wire::FrameKind::kDone, wire::CallDone{queue_, record.call, timed ? backend_->now_ns() : 0});
  }
  return backend_->mark_later([this, timed, call = record.call](Result<uint64_t> now) {
    if (!now.ok()) return failed_later(call, now.status());
    Status sent = shared_.host.send(wire::Lane::kRecords, wire::FrameKind::kDone,
                                    wire::encode(wire::CallDone{queue_, call, timed ? *now : 0}));
    if (!sent.ok()) failed_later(call, std::move(sent));
  });
}

Status Executor::run_command(const wire::Record& record) {
  Buffer report;
  WALDO_TRY(backend_->command(record.body, &report));
  if (!record.report_wanted) return {};
  if (report.size() > limits::report_bytes_max)
    return Status(StatusKind::kUnsupported, "a report past report_bytes_max");
  return send(wire::FrameKind::kReport, wire::CallReport{queue_, record.call, report});
}

// Not run, because an earlier call failed: what it would have made is poisoned, what it would have used is given up.
Status Executor::drop(const wire::Record& record) {
  switch (record.kind) {
    case wire::RecordKind::kCall:
      if (Status checked = check_call(record); !checked.ok()) return over(std::move(checked));
      for (const Slot slot : record.slots.subspan(plans_[record.plan.raw].reads)) backend_->poison(slot, failure_);
      return {};
    case wire::RecordKind::kCreate:
      backend_->poison(record.slot, failure_);
      return {};
    case wire::RecordKind::kUpload:
      poison_if_empty(record.slot);
      return drop_upload(record);
    default:
      return {};
  }
}

Status Executor::drop_upload(const wire::Record& record) {
  if (record.kind != wire::RecordKind::kUpload) return {};
  Status skipped = shared_.uploads.skip(record.upload, record.bytes);
  return skipped.ok() ? skipped : over(std::move(skipped));
}

// An upload may make its storage or write into one that is there; what is there keeps its value.
void Executor::poison_if_empty(Slot slot) {
  const Status there = backend_->read(slot, 0, 0, [](std::span<const std::byte>) { return Status(); });
  if (!there.ok()) backend_->poison(slot, failure_);
}

Status Executor::check_call(const wire::Record& record) const {
  if (record.plan.raw >= plans_.size() || !plans_[record.plan.raw].defined)
    return invalid("CALL of a plan that was not defined");
  const PlanShape& plan = plans_[record.plan.raw];
  if (record.slots.size() != static_cast<size_t>(plan.reads) + plan.creates) {
    return invalid("CALL with another number of slots than its plan has");
  }
  for (const Slot slot : record.slots) {
    if (slot.queue().raw >= shared_.progress.queue_count())
      return invalid("CALL names a slot of a queue that is not there");
  }
  return {};
}

// The first failure since the last RESUME_AT: says so, and drops from here on.
Status Executor::fail_call(const wire::Record& record, Status why) {
  StatusDetail detail = why.detail();
  detail.queue = queue_.raw;
  detail.call = record.call.raw;
  failure_ = Status(why.kind(), why.text(), std::move(detail));
  log_debug("queue {} call {}: {}", queue_.raw, record.call.raw, failure_.to_string());
  if (record.kind == wire::RecordKind::kUpload) {
    poison_if_empty(record.slot);  // its bytes are gone already
  } else {
    WALDO_TRY(drop(record));
  }
  return send(wire::FrameKind::kFailed, wire::to_call_failed(queue_, record.call, failure_));
}

// What a device that answers later says of a call that has long been run.
void Executor::failed_later(CallNumber call, Status why) {
  std::lock_guard lock(mutex_);
  late_failures_.emplace_back(call, std::move(why));
  changed_.notify_one();
}

// The client waits for that call's answer, so it is told even when the queue stands already for another failure.
Status Executor::tell_late_failure() {
  std::unique_lock lock(mutex_);
  const auto [call, why] = std::move(late_failures_.front());
  late_failures_.pop_front();
  lock.unlock();
  StatusDetail detail = why.detail();
  detail.queue = queue_.raw;
  detail.call = call.raw;
  const Status named(why.kind(), why.text(), std::move(detail));
  if (failure_.ok()) failure_ = named;
  return send(wire::FrameKind::kFailed, wire::to_call_failed(queue_, call, named));
}

template <typename Message>
Status Executor::send(wire::FrameKind kind, const Message& message) {
  Status sent = shared_.host.send(wire::Lane::kRecords, kind, wire::encode(message));
  return sent.ok() ? sent : over(std::move(sent));
}

Status Executor::over(Status why) {
  session_over_ = true;
  return why;
}

}  // namespace waldo::server
