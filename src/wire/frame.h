// A frame: 24 bytes of header, then the payload. docs/protocol.md §4.
//
//   offset size
//        0    4  magic "WLD\x01"
//        4    4  payload_bytes
//        8    8  number (0: not numbered)
//       16    1  kind
//       17    1  lane
//       18    2  zero
//       20    4  checksum: low 32 bits of XXH3-64(payload, seed = XXH3-64(the 20 bytes before))
//
// Pure functions on bytes; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"

namespace waldo::wire {

// Calls and their answers travel on the records lane, which goes first; long contents on the bulk lane.
enum class Lane : uint8_t { kRecords = 0, kBulk = 1 };
inline constexpr size_t lane_count = 2;

enum class FrameKind : uint8_t {
  // Not numbered: about the link itself, valid for this link only.
  kHello = 0x01,    // client to worker, first on every link
  kWelcome = 0x02,  // worker to client, the answer
  kRefuse = 0x03,   // worker to client, the other answer
  kAck = 0x04,
  kPing = 0x05,
  // Numbered: delivered once and in order whatever links do.
  kRecords = 0x10,     // client to worker
  kUploadData = 0x11,  // client to worker, bulk
  kReport = 0x20,      // worker to client, as all of 0x2x
  kFailed = 0x21,
  kDone = 0x22,
  kConformed = 0x23,
  kReadData = 0x24,  // bulk, or records for a short one
  kGoodbye = 0x30,   // both
};

std::string_view name_of(FrameKind kind);  // "RECORDS"; "unknown" for another
bool is_known(FrameKind kind);
inline bool is_numbered(FrameKind kind) { return static_cast<uint8_t>(kind) >= 0x10; }
bool may_use(FrameKind kind, Lane lane);

inline constexpr size_t frame_header_bytes = 24;
using FrameHeaderBytes = std::array<std::byte, frame_header_bytes>;

struct FrameHeader {
  uint32_t payload_bytes = 0;
  FrameNumber number;
  FrameKind kind = FrameKind::kPing;
  Lane lane = Lane::kRecords;
  uint32_t checksum = 0;
};

// The header that goes before `payload`, checksum included.
FrameHeaderBytes encode_header(FrameKind kind, Lane lane, FrameNumber number, std::span<const std::byte> payload);

// Everything about a header that can be judged without its payload: magic, known kind, its lane, size within limits,
// numbered exactly when the kind is, zero where zero must be. `bytes` must have frame_header_bytes.
Result<FrameHeader> decode_header(std::span<const std::byte> bytes);

// kInvalid: the payload is not the one the header was made for. `header` are the same bytes decode_header() took.
Status check_payload(std::span<const std::byte> header, std::span<const std::byte> payload);

// Header and payload in one buffer: for handshakes and tests; the channel writes the two without joining them.
Buffer encode_frame(FrameKind kind, Lane lane, FrameNumber number, std::span<const std::byte> payload);

}  // namespace waldo::wire
