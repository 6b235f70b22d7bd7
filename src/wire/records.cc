#include "wire/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace waldo::wire {

std::string_view name_of(RecordKind kind) {
  switch (kind) {
    case RecordKind::kCall:
      return "CALL";
    case RecordKind::kDefinePlan:
      return "DEFINE_PLAN";
    case RecordKind::kFree:
      return "FREE";
    case RecordKind::kCreate:
      return "CREATE";
    case RecordKind::kResize:
      return "RESIZE";
    case RecordKind::kUpload:
      return "UPLOAD";
    case RecordKind::kRead:
      return "READ";
    case RecordKind::kAfter:
      return "AFTER";
    case RecordKind::kResumeAt:
      return "RESUME_AT";
    case RecordKind::kSync:
      return "SYNC";
    case RecordKind::kTime:
      return "TIME";
    case RecordKind::kCommand:
      return "COMMAND";
  }
  return "unknown";
}

// --- RecordsBuilder --------------------------------------------------------------------------------------------------

Buffer RecordsBuilder::take() {
  WALDO_CHECK(!empty());
  std::byte* at = buffer_.data();
  at = put(at, queue_.raw);
  at = put(at, uint16_t{0});
  at = put(at, count_);
  at = put(at, first_.raw);
  put(at, uint64_t{0});
  // A small frame is copied out and the buffer stays: growing a new one would cost the next calls more than the copy
  // costs now, and a frame lives until the peer acknowledges it, so it had better be no larger than it must.
  constexpr size_t kCopiedBytesMax = 16 << 10;
  Buffer payload;
  if (at_ <= kCopiedBytesMax) {
    payload = to_buffer({buffer_.data(), at_});
  } else {
    buffer_.resize(at_);
    payload = std::exchange(buffer_, Buffer());
    if (payload.size() < payload.capacity() / 2) payload.shrink_to_fit();
  }
  at_ = records_header_bytes;
  count_ = 0;
  first_ = next_;
  return payload;
}

void RecordsBuilder::grow(size_t bytes) {
  constexpr size_t kFirstBytes = 8 << 10;  // a burst of 300 small calls; grows with bigger ones
  WALDO_CHECK(at_ + bytes <= limits::frame_payload_bytes_max);
  buffer_.resize(std::max({kFirstBytes, 2 * buffer_.size(), at_ + bytes}));
}

// --- RecordReader ----------------------------------------------------------------------------------------------------

namespace {

struct Head {
  uint8_t kind, flags;
  uint16_t number;
};

uint8_t flags_allowed(RecordKind kind) {
  if (kind == RecordKind::kCall) return kReportWanted | kHasScalars;
  return kind == RecordKind::kCommand ? kReportWanted : 0;
}

// The u16 of the head means something: a count, a queue or `reads`.
bool uses_number(RecordKind kind) {
  return kind == RecordKind::kCall || kind == RecordKind::kFree || kind == RecordKind::kAfter ||
         kind == RecordKind::kDefinePlan;
}

// The indices above are the worker's own; among them is the none slot's.
bool is_clients(Slot slot) { return slot.index() < limits::slot_count_max; }

std::span<const Slot> get_slots(Reader& reader, size_t count, uint32_t count_max) {
  if (count > count_max) reader.fail("too many slots");
  const auto bytes = reader.get_bytes(count * sizeof(Slot), "slots");
  const std::span<const Slot> slots(reinterpret_cast<const Slot*>(bytes.data()), bytes.size() / sizeof(Slot));
  if (!std::all_of(slots.begin(), slots.end(), is_clients)) reader.fail("slot");
  return slots;
}

std::span<const std::byte> get_padded(Reader& reader, size_t size, uint32_t size_max, const char* what) {
  if (size > size_max) reader.fail(what);
  const auto bytes = reader.get_bytes(size, what);
  for (const std::byte byte : reader.get_bytes((4 - size % 4) % 4, "padding")) {
    if (byte != std::byte{0}) reader.fail("padding");
  }
  return bytes;
}

void get_slot(Reader& reader, QueueId queue, Record& record) {
  record.slot = Slot{reader.get<uint32_t>("slot")};
  if (!is_clients(record.slot) || record.slot.queue() != queue) reader.fail("slot");
}

void get_range(Reader& reader, Record& record) {
  record.offset = reader.get<uint64_t>("offset");
  record.bytes = reader.get<uint64_t>("bytes");
  if (record.offset > limits::storage_bytes_max || record.bytes > limits::storage_bytes_max - record.offset) {
    reader.fail("range");
  }
}

// The fields after the head. What is wrong stands in `reader`.
void get_fields(Reader& reader, const Head& head, QueueId queue, Record& record) {
  switch (record.kind) {
    case RecordKind::kCall: {
      record.plan = PlanId{reader.get<uint32_t>("plan")};
      if (record.plan.raw >= limits::plan_count_max) reader.fail("plan");
      const uint32_t scalar_bytes = (head.flags & kHasScalars) != 0 ? reader.get<uint32_t>("scalar bytes") : 0;
      if ((head.flags & kHasScalars) != 0 && scalar_bytes == 0) reader.fail("scalar bytes");
      record.slots = get_slots(reader, head.number, limits::call_slot_count_max);
      record.body = get_padded(reader, scalar_bytes, limits::call_scalar_bytes_max, "scalars");
      return;
    }
    case RecordKind::kDefinePlan: {
      record.reads = head.number;
      record.plan = PlanId{reader.get<uint32_t>("plan")};
      if (record.plan.raw >= limits::plan_count_max) reader.fail("plan");
      record.creates = reader.get<uint16_t>("creates");
      if (reader.get<uint16_t>("reserved bytes") != 0) reader.fail("reserved bytes");
      if (record.reads + record.creates > static_cast<int>(limits::call_slot_count_max)) reader.fail("too many slots");
      const auto size = reader.get<uint32_t>("body");
      record.body = get_padded(reader, size, limits::plan_body_bytes_max, "body");
      return;
    }
    case RecordKind::kFree: {
      if (head.number == 0) reader.fail("count");
      record.slots = get_slots(reader, head.number, limits::free_count_max);
      const auto foreign = [&](Slot slot) { return slot.queue() != queue; };
      if (std::any_of(record.slots.begin(), record.slots.end(), foreign)) reader.fail("slot");
      return;
    }
    case RecordKind::kCreate:
    case RecordKind::kResize:
      get_slot(reader, queue, record);
      record.bytes = reader.get<uint64_t>("bytes");
      if (record.bytes > limits::storage_bytes_max) reader.fail("bytes");
      return;
    case RecordKind::kUpload:
      get_slot(reader, queue, record);
      get_range(reader, record);
      record.upload = UploadId{reader.get<uint64_t>("upload")};
      if (record.upload.raw == 0) reader.fail("upload");
      return;
    case RecordKind::kRead:
      get_slot(reader, queue, record);
      get_range(reader, record);
      return;
    case RecordKind::kAfter:
      record.other_queue = QueueId{head.number};
      if (head.number >= limits::queue_count_max || record.other_queue == queue) reader.fail("queue");
      record.target = CallNumber{reader.get<uint64_t>("call")};
      return;
    case RecordKind::kResumeAt:
      record.target = CallNumber{reader.get<uint64_t>("call")};
      if (record.target.raw == 0) reader.fail("call");
      return;
    case RecordKind::kSync:
    case RecordKind::kTime:
      return;
    case RecordKind::kCommand: {
      const auto size = reader.get<uint32_t>("body");
      record.body = get_padded(reader, size, limits::command_bytes_max, "body");
      return;
    }
  }
  reader.fail("kind");
}

}  // namespace

Result<RecordReader> RecordReader::open(std::span<const std::byte> payload) {
  if (reinterpret_cast<uintptr_t>(payload.data()) % alignof(Slot) != 0) {
    return Status(StatusKind::kInternal, "RECORDS payload is not aligned");
  }
  Reader reader(payload);
  RecordsHeader header;
  header.queue = QueueId{reader.get<uint16_t>("queue")};
  if (header.queue.raw >= limits::queue_count_max) reader.fail("queue");
  if (reader.get<uint16_t>("reserved bytes") != 0) reader.fail("reserved bytes");
  header.count = reader.get<uint32_t>("count");
  header.first_call = CallNumber{reader.get<uint64_t>("first call")};
  if (header.first_call.raw == 0 || header.first_call.raw > UINT64_MAX / 2) reader.fail("first call");
  if (reader.get<uint64_t>("trace cursor") != 0) reader.fail("trace cursor");
  if (header.count == 0 || header.count > reader.left() / 4) reader.fail("count");
  if (!reader.ok()) return Status(StatusKind::kInvalid, fmt::format("malformed RECORDS: {}", reader.why()));
  return RecordReader(header, reader.rest());
}

bool RecordReader::fail(const Record& record, std::string_view why) {
  status_ = Status(StatusKind::kInvalid, fmt::format("malformed record {} of {} ({}): {}", seen_ + 1, header_.count,
                                                     name_of(record.kind), why));
  return false;
}

bool RecordReader::next(Record& record) {
  if (!status_.ok()) return false;
  record = Record();
  if (seen_ == header_.count) return rest_.empty() ? false : fail(record, "bytes after the last record");
  if (rest_.size() < sizeof(Head)) return fail(record, "cut short");
  Head head;
  std::memcpy(&head, rest_.data(), sizeof(head));
  record.kind = static_cast<RecordKind>(head.kind);
  record.report_wanted = (head.flags & kReportWanted) != 0;
  if ((head.flags & ~flags_allowed(record.kind)) != 0) return fail(record, "flags");
  if (head.number != 0 && !uses_number(record.kind)) return fail(record, "reserved bytes");

  Reader reader(rest_.subspan(sizeof(Head)));
  get_fields(reader, head, header_.queue, record);
  if (!reader.ok()) return fail(record, reader.why());
  if (takes_call_number(record.kind)) record.call = CallNumber{next_call_.raw++};
  rest_ = rest_.subspan(sizeof(Head) + reader.position());
  ++seen_;
  return true;
}

}  // namespace waldo::wire
