#include "wire/frame.h"

#include "wire/limits.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <fmt/format.h>

namespace waldo::wire {
namespace {

constexpr uint32_t kMagic = 0x01444c57;  // "WLD\x01"
constexpr size_t kChecksumAt = 20;

struct KindRow {
  FrameKind kind;
  std::string_view name;
  bool records, bulk;  // the lanes it may use
};
constexpr KindRow kKinds[] = {
    {FrameKind::kHello, "HELLO", true, false},
    {FrameKind::kWelcome, "WELCOME", true, false},
    {FrameKind::kRefuse, "REFUSE", true, false},
    {FrameKind::kAck, "ACK", true, false},
    {FrameKind::kPing, "PING", true, false},
    {FrameKind::kRecords, "RECORDS", true, false},
    {FrameKind::kUploadData, "UPLOAD_DATA", false, true},
    {FrameKind::kReport, "REPORT", true, false},
    {FrameKind::kFailed, "FAILED", true, false},
    {FrameKind::kDone, "DONE", true, false},
    {FrameKind::kConformed, "CONFORMED", true, false},
    {FrameKind::kReadData, "READ_DATA", true, true},
    {FrameKind::kGoodbye, "GOODBYE", true, false},
};

const KindRow* find(FrameKind kind) {
  for (const auto& row : kKinds) {
    if (row.kind == kind) return &row;
  }
  return nullptr;
}

uint32_t checksum_of(std::span<const std::byte> header, std::span<const std::byte> payload) {
  const uint64_t seed = XXH3_64bits(header.data(), kChecksumAt);
  return static_cast<uint32_t>(XXH3_64bits_withSeed(payload.data(), payload.size(), seed));
}

template <typename T>
T load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

}  // namespace

std::string_view name_of(FrameKind kind) {
  const KindRow* row = find(kind);
  return row == nullptr ? "unknown" : row->name;
}

bool is_known(FrameKind kind) { return find(kind) != nullptr; }

bool may_use(FrameKind kind, Lane lane) {
  const KindRow* row = find(kind);
  if (row == nullptr) return false;
  return lane == Lane::kRecords ? row->records : lane == Lane::kBulk && row->bulk;
}

FrameHeaderBytes encode_header(FrameKind kind, Lane lane, FrameNumber number, std::span<const std::byte> payload) {
  WALDO_CHECK(may_use(kind, lane) && is_numbered(kind) == (number.raw != 0));
  WALDO_CHECK(payload.size() <= limits::frame_payload_bytes_max);
  FrameHeaderBytes bytes{};
  const auto payload_bytes = static_cast<uint32_t>(payload.size());
  std::memcpy(bytes.data(), &kMagic, 4);
  std::memcpy(bytes.data() + 4, &payload_bytes, 4);
  std::memcpy(bytes.data() + 8, &number.raw, 8);
  bytes[16] = static_cast<std::byte>(kind);
  bytes[17] = static_cast<std::byte>(lane);
  const uint32_t checksum = checksum_of(bytes, payload);
  std::memcpy(bytes.data() + kChecksumAt, &checksum, 4);
  return bytes;
}

Result<FrameHeader> decode_header(std::span<const std::byte> bytes) {
  WALDO_CHECK(bytes.size() == frame_header_bytes);
  if (load<uint32_t>(bytes, 0) != kMagic) return invalid("not a Waldo frame (wrong magic)");
  FrameHeader header;
  header.payload_bytes = load<uint32_t>(bytes, 4);
  header.number = FrameNumber{load<uint64_t>(bytes, 8)};
  header.kind = static_cast<FrameKind>(bytes[16]);
  header.lane = static_cast<Lane>(bytes[17]);
  header.checksum = load<uint32_t>(bytes, kChecksumAt);
  if (!is_known(header.kind)) return invalid(fmt::format("unknown frame kind {:#04x}", static_cast<int>(header.kind)));
  if (!may_use(header.kind, header.lane)) {
    return invalid(fmt::format("{} on lane {}", name_of(header.kind), static_cast<int>(header.lane)));
  }
  if (is_numbered(header.kind) != (header.number.raw != 0)) {
    return invalid(fmt::format("{} with number {}", name_of(header.kind), header.number.raw));
  }
  if (load<uint16_t>(bytes, 18) != 0) return invalid("reserved header bytes are not zero");
  if (header.payload_bytes > limits::frame_payload_bytes_max) {
    return invalid(fmt::format("{} of {} bytes is over the limit", name_of(header.kind), header.payload_bytes));
  }
  return header;
}

Status check_payload(std::span<const std::byte> header, std::span<const std::byte> payload) {
  WALDO_CHECK(header.size() == frame_header_bytes);
  if (payload.size() == load<uint32_t>(header, 4) &&
      checksum_of(header, payload) == load<uint32_t>(header, kChecksumAt)) {
    return Status();
  }
  return invalid(fmt::format("checksum of frame {} ({}) does not match", load<uint64_t>(header, 8),
                             name_of(static_cast<FrameKind>(header[16]))));
}

Buffer encode_frame(FrameKind kind, Lane lane, FrameNumber number, std::span<const std::byte> payload) {
  const auto header = encode_header(kind, lane, number, payload);
  Buffer frame;
  frame.reserve(header.size() + payload.size());
  frame.append(header);
  frame.append(payload);
  return frame;
}

}  // namespace waldo::wire
