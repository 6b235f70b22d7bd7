// What frames carry, one struct per kind but RECORDS (records.h). docs/protocol.md §5 has every byte.
//
// encode() makes a payload; texts over their limit are cut. decode_…() checks everything that can be checked without a
// session's state and says what is wrong (kInvalid). Views in a decoded message point into the payload.
// Pure functions on bytes; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "wire/version.h"

namespace waldo::wire {

using Secret = std::array<std::byte, 16>;

// --- about the link (not numbered) -----------------------------------------------------------------------------------

struct Hello {
  uint32_t version = protocol_version;
  uint64_t link_number = 1;  // 1, 2, 3 …: the newest wins
  SessionId session;         // 0: a new one, please
  Secret secret{};           // chosen by the client with a new session; must be the same for ever after
  FrameNumber received;      // last frame the client has; the worker sends what comes after it
  std::string info_json;     // frontend, version, gpus, pid, program …
};
Buffer encode(const Hello& message);
Result<Hello> decode_hello(std::span<const std::byte> payload);

struct Welcome {
  uint32_t version = protocol_version;  // the one both speak from now on
  uint64_t link_number = 1;
  SessionId session;
  FrameNumber received;   // last frame the worker has
  std::string info_json;  // Backend::info_json(), waldo's version, host
};
Buffer encode(const Welcome& message);
Result<Welcome> decode_welcome(std::span<const std::byte> payload);

struct Refuse {
  uint32_t version = protocol_version;  // the newest the refuser speaks
  StatusKind kind = StatusKind::kInternal;
  uint8_t exit_code = 1;  // what `waldo run` ends with
  std::string text;
};
Buffer encode(const Refuse& message);
Result<Refuse> decode_refuse(std::span<const std::byte> payload);

// Cumulative, so it may be repeated, lost with a link, or overtaken by a later one.
struct Ack {
  FrameNumber received;           // every frame up to this one has been delivered
  uint64_t consumed_records = 0;  // payload bytes of the session's whole life given back, per lane
  uint64_t consumed_bulk = 0;
};
Buffer encode(const Ack& message);
Result<Ack> decode_ack(std::span<const std::byte> payload);

struct Ping {};  // answered by an ACK at once
Buffer encode(const Ping& message);
Result<Ping> decode_ping(std::span<const std::byte> payload);

// --- numbered, both ways ---------------------------------------------------------------------------------------------

// The last frame of its direction. kOk: all is well; else why the sender gives up.
struct Goodbye {
  StatusKind kind = StatusKind::kOk;
  std::string text;
};
Buffer encode(const Goodbye& message);
Result<Goodbye> decode_goodbye(std::span<const std::byte> payload);

// --- worker to client ------------------------------------------------------------------------------------------------

struct CallReport {  // of a CALL or COMMAND that wanted one
  QueueId queue;
  CallNumber call;
  std::span<const std::byte> body;
};
Buffer encode(const CallReport& message);
Result<CallReport> decode_call_report(std::span<const std::byte> payload);

struct CallFailed {
  QueueId queue;
  CallNumber call;
  StatusKind kind = StatusKind::kDevice;
  uint16_t error_class = 0;
  std::string op, text;
};
Buffer encode(const CallFailed& message);
Result<CallFailed> decode_call_failed(std::span<const std::byte> payload);
CallFailed to_call_failed(QueueId queue, CallNumber call, const Status& why);  // `why` is not ok
Status to_status(const CallFailed& message);                                   // with detail

struct CallDone {  // of SYNC (time_ns 0) and TIME
  QueueId queue;
  CallNumber call;
  uint64_t time_ns = 0;
};
Buffer encode(const CallDone& message);
Result<CallDone> decode_call_done(std::span<const std::byte> payload);

struct CallConformed {  // outputs of this call had to be copied or cast into what `plan` predicts
  QueueId queue;
  CallNumber call;
  PlanId plan;
};
Buffer encode(const CallConformed& message);
Result<CallConformed> decode_call_conformed(std::span<const std::byte> payload);

// --- contents --------------------------------------------------------------------------------------------------------

enum class PayloadKind : uint8_t {
  kInline = 0,        // the bytes follow
  kSharedMemory = 1,  // a SharedPiece follows; only where HELLO offered the memory and WELCOME took it
  kByHash = 2,        // reserved
  kEncoded = 3,       // reserved
};

// A piece that lies in shared memory: the first bytes of a chunk.
struct SharedPiece {
  uint32_t chunk = 0;  // below shared_chunk_count
  uint32_t bytes = 0;  // from 1 to chunk_bytes
};

// A piece of what a READ asked for. Pieces come in order; the last one ends at `total`. A read of nothing is answered
// by one empty piece.
struct ReadData {
  CallNumber call;
  QueueId queue;
  uint16_t output = 0;
  PayloadKind payload_kind = PayloadKind::kInline;
  uint64_t total = 0, offset = 0;
  std::span<const std::byte> bytes;  // inline
  SharedPiece shared = {};           // shared memory; `bytes` is empty then
};
// A piece of what an UPLOAD names. Pieces come in order. An upload of nothing has none. One without bytes before the
// end says that the client gave up: the UPLOAD fails with kCancelled.
struct UploadData {
  UploadId upload;
  PayloadKind payload_kind = PayloadKind::kInline;
  uint64_t total = 0, offset = 0;
  std::span<const std::byte> bytes;
  SharedPiece shared = {};
};
// Both have a header of this size before the bytes, so a payload can be filled in place: take a buffer of
// bulk_header_bytes + n, put the header, copy n bytes behind it, once. `message.bytes` is not looked at.
inline constexpr size_t bulk_header_bytes = 32;
void put_header(const ReadData& message, std::span<std::byte, bulk_header_bytes> into);
void put_header(const UploadData& message, std::span<std::byte, bulk_header_bytes> into);
Buffer encode(const ReadData& message);
Buffer encode(const UploadData& message);
Result<ReadData> decode_read_data(std::span<const std::byte> payload);      // kUnsupported: a payload kind that is
Result<UploadData> decode_upload_data(std::span<const std::byte> payload);  // only reserved yet

}  // namespace waldo::wire
