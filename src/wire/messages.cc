#include "wire/messages.h"

#include <fmt/format.h>

#include <algorithm>

#include "wire/limits.h"

namespace waldo::wire {
namespace {

std::string_view cut(std::string_view text, size_t bytes_max) { return text.substr(0, bytes_max); }

Status malformed(const char* message, const Reader& reader) {
  return Status(StatusKind::kInvalid,
                fmt::format("malformed {}: {}", message, reader.ok() ? "too long" : reader.why()));
}

// True when everything was read and nothing was wrong.
bool complete(const Reader& reader) { return reader.ok() && reader.at_end(); }

StatusKind get_status_kind(Reader& reader) {
  const auto raw = reader.get<uint8_t>("status kind");
  if (raw > static_cast<uint8_t>(StatusKind::kInternal)) reader.fail("status kind");
  return static_cast<StatusKind>(raw);
}

QueueId get_queue(Reader& reader) {
  const auto raw = reader.get<uint16_t>("queue");
  if (raw >= limits::queue_count_max) reader.fail("queue");
  return QueueId{raw};
}

CallNumber get_call(Reader& reader) {
  const auto raw = reader.get<uint64_t>("call");
  if (raw == 0) reader.fail("call");
  return CallNumber{raw};
}

void get_zeros(Reader& reader, size_t count) {
  for (const std::byte byte : reader.get_bytes(count, "reserved bytes")) {
    if (byte != std::byte{0}) reader.fail("reserved bytes");
  }
}

void put_zeros(Writer& writer, size_t count) {
  for (size_t i = 0; i < count; ++i) writer.put<uint8_t>(0);
}

}  // namespace

Buffer encode(const Hello& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.version);
  writer.put<uint32_t>(0);
  writer.put(message.link_number);
  writer.put(message.session.raw);
  writer.put_bytes(message.secret);
  writer.put(message.received.raw);
  writer.put_sized(cut(message.info_json, limits::info_bytes_max));
  return payload;
}

Result<Hello> decode_hello(std::span<const std::byte> payload) {
  Reader reader(payload);
  Hello message;
  message.version = reader.get<uint32_t>("version");
  get_zeros(reader, 4);
  message.link_number = reader.get<uint64_t>("link number");
  if (message.link_number == 0) reader.fail("link number");
  message.session = SessionId{reader.get<uint64_t>("session")};
  const auto secret = reader.get_bytes(message.secret.size(), "secret");
  std::copy(secret.begin(), secret.end(), message.secret.begin());
  message.received = FrameNumber{reader.get<uint64_t>("received")};
  message.info_json = reader.get_text(limits::info_bytes_max, "info");
  if (!complete(reader)) return malformed("HELLO", reader);
  return message;
}

Buffer encode(const Welcome& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.version);
  writer.put<uint32_t>(0);
  writer.put(message.link_number);
  writer.put(message.session.raw);
  writer.put(message.received.raw);
  writer.put_sized(cut(message.info_json, limits::info_bytes_max));
  return payload;
}

Result<Welcome> decode_welcome(std::span<const std::byte> payload) {
  Reader reader(payload);
  Welcome message;
  message.version = reader.get<uint32_t>("version");
  get_zeros(reader, 4);
  message.link_number = reader.get<uint64_t>("link number");
  if (message.link_number == 0) reader.fail("link number");
  message.session = SessionId{reader.get<uint64_t>("session")};
  message.received = FrameNumber{reader.get<uint64_t>("received")};
  message.info_json = reader.get_text(limits::info_bytes_max, "info");
  if (!complete(reader)) return malformed("WELCOME", reader);
  return message;
}

Buffer encode(const Refuse& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.version);
  writer.put(static_cast<uint8_t>(message.kind));
  writer.put(message.exit_code);
  put_zeros(writer, 2);
  writer.put_sized(cut(message.text, limits::text_bytes_max));
  return payload;
}

Result<Refuse> decode_refuse(std::span<const std::byte> payload) {
  Reader reader(payload);
  Refuse message;
  message.version = reader.get<uint32_t>("version");
  message.kind = get_status_kind(reader);
  if (message.kind == StatusKind::kOk) reader.fail("status kind");
  message.exit_code = reader.get<uint8_t>("exit code");
  get_zeros(reader, 2);
  message.text = reader.get_text(limits::text_bytes_max, "text");
  if (!complete(reader)) return malformed("REFUSE", reader);
  return message;
}

Buffer encode(const Ack& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.received.raw);
  writer.put(message.consumed_records);
  writer.put(message.consumed_bulk);
  return payload;
}

Result<Ack> decode_ack(std::span<const std::byte> payload) {
  Reader reader(payload);
  Ack message;
  message.received = FrameNumber{reader.get<uint64_t>("received")};
  message.consumed_records = reader.get<uint64_t>("consumed records");
  message.consumed_bulk = reader.get<uint64_t>("consumed bulk");
  if (!complete(reader)) return malformed("ACK", reader);
  return message;
}

Buffer encode(const Ping&) { return {}; }

Result<Ping> decode_ping(std::span<const std::byte> payload) {
  if (!payload.empty()) return Status(StatusKind::kInvalid, "malformed PING: too long");
  return Ping{};
}

Buffer encode(const Goodbye& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(static_cast<uint8_t>(message.kind));
  put_zeros(writer, 3);
  writer.put_sized(cut(message.text, limits::text_bytes_max));
  return payload;
}

Result<Goodbye> decode_goodbye(std::span<const std::byte> payload) {
  Reader reader(payload);
  Goodbye message;
  message.kind = get_status_kind(reader);
  get_zeros(reader, 3);
  message.text = reader.get_text(limits::text_bytes_max, "text");
  if (!complete(reader)) return malformed("GOODBYE", reader);
  return message;
}

Buffer encode(const CallReport& message) {
  WALDO_CHECK(message.body.size() <= limits::report_bytes_max);
  Buffer payload;
  payload.reserve(16 + message.body.size());
  Writer writer(payload);
  writer.put(message.call.raw);
  writer.put(message.queue.raw);
  put_zeros(writer, 2);
  writer.put_sized(message.body);
  return payload;
}

Result<CallReport> decode_call_report(std::span<const std::byte> payload) {
  Reader reader(payload);
  CallReport message;
  message.call = get_call(reader);
  message.queue = get_queue(reader);
  get_zeros(reader, 2);
  message.body = reader.get_sized(limits::report_bytes_max, "body");
  if (!complete(reader)) return malformed("REPORT", reader);
  return message;
}

Buffer encode(const CallFailed& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.call.raw);
  writer.put(message.queue.raw);
  writer.put(message.error_class);
  writer.put(static_cast<uint8_t>(message.kind));
  put_zeros(writer, 3);
  writer.put_sized(cut(message.op, limits::name_bytes_max));
  writer.put_sized(cut(message.text, limits::text_bytes_max));
  return payload;
}

Result<CallFailed> decode_call_failed(std::span<const std::byte> payload) {
  Reader reader(payload);
  CallFailed message;
  message.call = get_call(reader);
  message.queue = get_queue(reader);
  message.error_class = reader.get<uint16_t>("error class");
  message.kind = get_status_kind(reader);
  if (message.kind == StatusKind::kOk) reader.fail("status kind");
  get_zeros(reader, 3);
  message.op = reader.get_text(limits::name_bytes_max, "op");
  message.text = reader.get_text(limits::text_bytes_max, "text");
  if (!complete(reader)) return malformed("FAILED", reader);
  return message;
}

CallFailed to_call_failed(QueueId queue, CallNumber call, const Status& why) {
  WALDO_CHECK(!why.ok());
  return {queue, call, why.kind(), why.detail().error_class, why.detail().op, why.text()};
}

Status to_status(const CallFailed& message) {
  return Status(message.kind, message.text, {message.error_class, message.queue.raw, message.call.raw, message.op});
}

Buffer encode(const CallDone& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.call.raw);
  writer.put(message.queue.raw);
  put_zeros(writer, 6);
  writer.put(message.time_ns);
  return payload;
}

Result<CallDone> decode_call_done(std::span<const std::byte> payload) {
  Reader reader(payload);
  CallDone message;
  message.call = get_call(reader);
  message.queue = get_queue(reader);
  get_zeros(reader, 6);
  message.time_ns = reader.get<uint64_t>("time");
  if (!complete(reader)) return malformed("DONE", reader);
  return message;
}

Buffer encode(const CallConformed& message) {
  Buffer payload;
  Writer writer(payload);
  writer.put(message.call.raw);
  writer.put(message.queue.raw);
  put_zeros(writer, 2);
  writer.put(message.plan.raw);
  return payload;
}

Result<CallConformed> decode_call_conformed(std::span<const std::byte> payload) {
  Reader reader(payload);
  CallConformed message;
  message.call = get_call(reader);
  message.queue = get_queue(reader);
  get_zeros(reader, 2);
  message.plan = PlanId{reader.get<uint32_t>("plan")};
  if (message.plan.raw >= limits::plan_count_max) reader.fail("plan");
  if (!complete(reader)) return malformed("CONFORMED", reader);
  return message;
}

// --- contents --------------------------------------------------------------------------------------------------------

namespace {

void store(std::span<std::byte> into, size_t at, auto value) { std::memcpy(into.data() + at, &value, sizeof(value)); }

template <typename Message>
Buffer encode_bulk(const Message& message) {
  std::array<std::byte, bulk_header_bytes> header;
  put_header(message, header);
  Buffer payload;
  payload.reserve(header.size() + std::max(message.bytes.size(), sizeof(SharedPiece)));
  Writer writer(payload);
  writer.put_bytes(header);
  if (message.payload_kind == PayloadKind::kSharedMemory) {
    writer.put(message.shared.chunk);
    writer.put(message.shared.bytes);
  } else {
    writer.put_bytes(message.bytes);
  }
  return payload;
}

PayloadKind get_payload_kind(Reader& reader) {
  const auto raw = reader.get<uint8_t>("payload kind");
  if (raw > static_cast<uint8_t>(PayloadKind::kEncoded)) reader.fail("payload kind");
  return static_cast<PayloadKind>(raw);
}

// The part the two have in common: total, offset, bytes.
template <typename Message>
Status get_piece(Reader& reader, const char* name, Message& message) {
  message.total = reader.get<uint64_t>("total");
  if (message.total > limits::storage_bytes_max) reader.fail("total");
  message.offset = reader.get<uint64_t>("offset");
  if (message.offset > message.total) reader.fail("offset");
  if (!reader.ok()) return malformed(name, reader);
  uint64_t bytes = 0;
  switch (message.payload_kind) {
    case PayloadKind::kInline:
      message.bytes = reader.rest();
      bytes = message.bytes.size();
      break;
    case PayloadKind::kSharedMemory:
      message.shared.chunk = reader.get<uint32_t>("chunk");
      if (message.shared.chunk >= limits::shared_chunk_count) reader.fail("chunk");
      bytes = message.shared.bytes = reader.get<uint32_t>("bytes");
      if (bytes == 0 || bytes > limits::chunk_bytes) reader.fail("bytes");
      break;
    default:
      return Status(StatusKind::kUnsupported, fmt::format("{} with payload kind {}; only inline (0) and shared memory "
                                                          "(1) are spoken here",
                                                          name, static_cast<int>(message.payload_kind)));
  }
  if (bytes > message.total - message.offset) reader.fail("more bytes than the total");
  if (!complete(reader)) return malformed(name, reader);
  return Status();
}

}  // namespace

void put_header(const ReadData& message, std::span<std::byte, bulk_header_bytes> into) {
  std::memset(into.data(), 0, bulk_header_bytes);
  store(into, 0, message.call.raw);
  store(into, 8, message.queue.raw);
  store(into, 10, message.output);
  store(into, 12, static_cast<uint8_t>(message.payload_kind));
  store(into, 16, message.total);
  store(into, 24, message.offset);
}

void put_header(const UploadData& message, std::span<std::byte, bulk_header_bytes> into) {
  std::memset(into.data(), 0, bulk_header_bytes);
  store(into, 0, message.upload.raw);
  store(into, 12, static_cast<uint8_t>(message.payload_kind));
  store(into, 16, message.total);
  store(into, 24, message.offset);
}

Buffer encode(const ReadData& message) { return encode_bulk(message); }
Buffer encode(const UploadData& message) { return encode_bulk(message); }

Result<ReadData> decode_read_data(std::span<const std::byte> payload) {
  Reader reader(payload);
  ReadData message;
  message.call = get_call(reader);
  message.queue = get_queue(reader);
  message.output = reader.get<uint16_t>("output");
  message.payload_kind = get_payload_kind(reader);
  get_zeros(reader, 3);
  WALDO_TRY(get_piece(reader, "READ_DATA", message));
  if (message.bytes.empty() && message.shared.bytes == 0 && message.total != 0)
    return Status(StatusKind::kInvalid, "malformed READ_DATA: no bytes");
  return message;
}

Result<UploadData> decode_upload_data(std::span<const std::byte> payload) {
  Reader reader(payload);
  UploadData message;
  message.upload = UploadId{reader.get<uint64_t>("upload")};
  if (message.upload.raw == 0) reader.fail("upload");
  get_zeros(reader, 4);
  message.payload_kind = get_payload_kind(reader);
  get_zeros(reader, 3);
  WALDO_TRY(get_piece(reader, "UPLOAD_DATA", message));
  return message;
}

}  // namespace waldo::wire
