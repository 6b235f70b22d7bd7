#include "wire/dump.h"

#include <fmt/format.h>

#include <algorithm>

#include "wire/messages.h"
#include "wire/records.h"

namespace waldo::wire {
namespace {

constexpr size_t kTextBytesMax = 120;
constexpr size_t kListMax = 8;

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text.substr(0, kTextBytesMax)) {
    if (c >= ' ' && c < 127) {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    } else {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return result + (text.size() > kTextBytesMax ? "…\"" : "\"");
}

std::string slot_text(Slot slot) { return fmt::format("{}:{}", slot.queue().raw, slot.index()); }

std::string slots_text(std::span<const Slot> slots) {
  std::string result;
  for (const Slot slot : slots.first(std::min(slots.size(), kListMax))) {
    result += (result.empty() ? "" : " ") + slot_text(slot);
  }
  return "[" + result + (slots.size() > kListMax ? fmt::format(" … {} in all]", slots.size()) : "]");
}

std::string fields(const Hello& m) {
  return fmt::format("version {} link {} session {} received {} info {}", m.version, m.link_number, m.session.raw,
                     m.received.raw, quoted(m.info_json));  // not the secret
}
std::string fields(const Welcome& m) {
  return fmt::format("version {} link {} session {} received {} info {}", m.version, m.link_number, m.session.raw,
                     m.received.raw, quoted(m.info_json));
}
std::string fields(const Refuse& m) {
  return fmt::format("version {} {} exit code {} {}", m.version, name_of(m.kind), m.exit_code, quoted(m.text));
}
std::string fields(const Ack& m) {
  return fmt::format("received {} consumed records {} bulk {}", m.received.raw, m.consumed_records, m.consumed_bulk);
}
std::string fields(const Ping&) { return ""; }
std::string fields(const Goodbye& m) { return fmt::format("{} {}", name_of(m.kind), quoted(m.text)); }
std::string fields(const CallReport& m) {
  return fmt::format("queue {} call {} body {} bytes", m.queue.raw, m.call.raw, m.body.size());
}
std::string fields(const CallFailed& m) {
  return fmt::format("queue {} call {} {} class {} op {} {}", m.queue.raw, m.call.raw, name_of(m.kind), m.error_class,
                     quoted(m.op), quoted(m.text));
}
std::string fields(const CallDone& m) {
  return fmt::format("queue {} call {} time {} ns", m.queue.raw, m.call.raw, m.time_ns);
}
std::string fields(const CallConformed& m) {
  return fmt::format("queue {} call {} plan {}", m.queue.raw, m.call.raw, m.plan.raw);
}
std::string piece(const auto& m) {
  if (m.payload_kind != PayloadKind::kSharedMemory)
    return fmt::format("bytes {}+{} of {}", m.offset, m.bytes.size(), m.total);
  return fmt::format("bytes {}+{} of {} in shared chunk {}", m.offset, m.shared.bytes, m.total, m.shared.chunk);
}
std::string fields(const ReadData& m) {
  return fmt::format("queue {} call {} output {} {}", m.queue.raw, m.call.raw, m.output, piece(m));
}
std::string fields(const UploadData& m) { return fmt::format("upload {} {}", m.upload.raw, piece(m)); }

template <typename Message>
std::string fields_or_why(const Result<Message>& message) {
  return message.ok() ? fields(*message) : "(" + message.status().text() + ")";
}

std::string record_text(const Record& r) {
  switch (r.kind) {
    case RecordKind::kCall:
      return fmt::format("plan {} slots {} scalars {} bytes{}", r.plan.raw, slots_text(r.slots), r.body.size(),
                         r.report_wanted ? " report wanted" : "");
    case RecordKind::kDefinePlan:
      return fmt::format("plan {} reads {} creates {} body {} bytes", r.plan.raw, r.reads, r.creates, r.body.size());
    case RecordKind::kFree:
      return "slots " + slots_text(r.slots);
    case RecordKind::kCreate:
    case RecordKind::kResize:
      return fmt::format("slot {} bytes {}", slot_text(r.slot), r.bytes);
    case RecordKind::kUpload:
      return fmt::format("slot {} offset {} bytes {} upload {}", slot_text(r.slot), r.offset, r.bytes, r.upload.raw);
    case RecordKind::kRead:
      return fmt::format("slot {} offset {} bytes {}", slot_text(r.slot), r.offset, r.bytes);
    case RecordKind::kAfter:
      return fmt::format("queue {} call {}", r.other_queue.raw, r.target.raw);
    case RecordKind::kResumeAt:
      return fmt::format("call {}", r.target.raw);
    case RecordKind::kSync:
    case RecordKind::kTime:
      return "";
    case RecordKind::kCommand:
      return fmt::format("body {} bytes{}", r.body.size(), r.report_wanted ? " report wanted" : "");
  }
  return "";
}

std::string records_text(std::span<const std::byte> payload) {
  auto reader = RecordReader::open(payload);
  if (!reader.ok()) return "(" + reader.status().text() + ")";
  std::string text = fmt::format("queue {} records {} from call {}", reader->header().queue.raw, reader->header().count,
                                 reader->header().first_call.raw);
  Record record;
  while (reader->next(record)) {
    const std::string number = record.call.raw == 0 ? "-" : std::to_string(record.call.raw);
    const std::string rest = record_text(record);
    text += fmt::format("\n  {:>4} {}{}{}", number, name_of(record.kind), rest.empty() ? "" : " ", rest);
  }
  if (!reader->status().ok()) text += "\n  (" + reader->status().text() + ")";
  return text;
}

std::string payload_text(FrameKind kind, std::span<const std::byte> payload) {
  switch (kind) {
    case FrameKind::kHello:
      return fields_or_why(decode_hello(payload));
    case FrameKind::kWelcome:
      return fields_or_why(decode_welcome(payload));
    case FrameKind::kRefuse:
      return fields_or_why(decode_refuse(payload));
    case FrameKind::kAck:
      return fields_or_why(decode_ack(payload));
    case FrameKind::kPing:
      return fields_or_why(decode_ping(payload));
    case FrameKind::kRecords:
      return records_text(payload);
    case FrameKind::kUploadData:
      return fields_or_why(decode_upload_data(payload));
    case FrameKind::kReport:
      return fields_or_why(decode_call_report(payload));
    case FrameKind::kFailed:
      return fields_or_why(decode_call_failed(payload));
    case FrameKind::kDone:
      return fields_or_why(decode_call_done(payload));
    case FrameKind::kConformed:
      return fields_or_why(decode_call_conformed(payload));
    case FrameKind::kReadData:
      return fields_or_why(decode_read_data(payload));
    case FrameKind::kGoodbye:
      return fields_or_why(decode_goodbye(payload));
  }
  return fmt::format("({:#04x}, {} bytes)", static_cast<int>(kind), payload.size());
}

}  // namespace

std::string dump(FrameKind kind, FrameNumber number, Lane lane, std::span<const std::byte> payload) {
  std::string text(name_of(kind));
  if (number.raw != 0) text += fmt::format(" #{}", number.raw);
  if (lane == Lane::kBulk) text += " bulk";
  const std::string rest = payload_text(kind, payload);
  return rest.empty() ? text : text + " " + rest;
}

std::string dump_frame(std::span<const std::byte> frame) {
  if (frame.size() < frame_header_bytes) return fmt::format("(cut short: {} bytes)", frame.size());
  const auto header_bytes = frame.first(frame_header_bytes);
  const auto header = decode_header(header_bytes);
  if (!header.ok()) return "(" + header.status().text() + ")";
  const auto payload = frame.subspan(frame_header_bytes);
  if (const Status status = check_payload(header_bytes, payload); !status.ok()) return "(" + status.text() + ")";
  return dump(header->kind, header->number, header->lane, payload);
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", static_cast<int>(byte));
  return text;
}

}  // namespace waldo::wire
