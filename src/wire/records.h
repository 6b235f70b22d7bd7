// The payload of a RECORDS frame: one queue's stream of calls. Header-only where it is hot. docs/protocol.md §6.
//
//   queue u16, zero u16, count u32, first_call u64, trace_cursor u64 (0), then `count` records, each a multiple of 4
//   bytes
//
// RecordsBuilder writes (client), RecordReader reads (server) without copying. Both pure; one thread each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "wire/limits.h"

namespace waldo::wire {

enum class RecordKind : uint8_t {
  kCall = 1,  // numbered
  kDefinePlan = 2,
  kFree = 3,
  kCreate = 4,  // numbered
  kResize = 5,  // numbered
  kUpload = 6,  // numbered
  kRead = 7,    // numbered
  kAfter = 8,
  kResumeAt = 9,
  kSync = 10,     // numbered
  kTime = 11,     // numbered
  kCommand = 12,  // numbered
};
std::string_view name_of(RecordKind kind);  // "CALL"; "unknown" for another
constexpr bool takes_call_number(RecordKind kind) {
  return kind != RecordKind::kDefinePlan && kind != RecordKind::kFree && kind != RecordKind::kAfter &&
         kind != RecordKind::kResumeAt;
}

enum RecordFlags : uint8_t {
  kReportWanted = 1,  // CALL, COMMAND
  kHasScalars = 2,    // CALL
};

enum class Answer : uint8_t { kNone = 0, kReport = kReportWanted };  // what the worker shall say of a call

inline constexpr size_t records_header_bytes = 24;

// Appends records and counts calls. A frame is cut when full() says so, or whenever the channel collects.
// Limits are the caller's to keep (WALDO_CHECK in the slow path only): slots and scalars of a call, bodies, counts.
class RecordsBuilder {
 public:
  explicit RecordsBuilder(QueueId queue, CallNumber first_call = CallNumber{1}) : queue_(queue), next_(first_call) {
    first_ = next_;
  }

  QueueId queue() const { return queue_; }
  CallNumber next_call() const { return next_; }  // the number the next numbered record gets
  bool empty() const { return count_ == 0; }
  bool full() const { return at_ >= limits::records_bytes_soft; }
  size_t bytes() const { return at_; }

  // Hot: once per operation; allocates only when the buffer grows. `slots`: the plan's reads, then its creates.
  [[gnu::always_inline]] CallNumber call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars,
                                         Answer answer = Answer::kNone) {
    const size_t slot_bytes = slots.size() * sizeof(Slot);
    std::byte* at = extend(8 + (scalars.empty() ? 0 : 4 + padded(scalars.size())) + slot_bytes);
    const auto flags = static_cast<uint8_t>(static_cast<uint8_t>(answer) | (scalars.empty() ? 0 : kHasScalars));
    at = put_head(at, RecordKind::kCall, flags, static_cast<uint16_t>(slots.size()));
    at = put(at, plan.raw);
    if (!scalars.empty()) at = put(at, static_cast<uint32_t>(scalars.size()));
    for (const Slot slot : slots) at = put(at, slot.raw);  // a handful: cheaper than calling memcpy
    if (!scalars.empty()) put_padded(at, scalars);
    return take_number();
  }
  // Of `count` slots, at most free_count_max; they are to be written at once.
  Slot* free(size_t count) {
    std::byte* at = extend(4 + count * sizeof(Slot));
    return reinterpret_cast<Slot*>(put_head(at, RecordKind::kFree, 0, static_cast<uint16_t>(count)));
  }
  void free(std::span<const Slot> slots) { std::copy(slots.begin(), slots.end(), free(slots.size())); }
  CallNumber create(Slot slot, uint64_t bytes) { return sized(RecordKind::kCreate, slot, bytes); }
  CallNumber resize(Slot slot, uint64_t bytes) { return sized(RecordKind::kResize, slot, bytes); }
  CallNumber upload(Slot slot, uint64_t offset, uint64_t bytes, UploadId upload) {
    std::byte* at = put_head(extend(32), RecordKind::kUpload, 0, 0);
    at = put(put(put(at, slot.raw), offset), bytes);
    put(at, upload.raw);
    return take_number();
  }
  CallNumber read(Slot slot, uint64_t offset, uint64_t bytes) {
    std::byte* at = put_head(extend(24), RecordKind::kRead, 0, 0);
    put(put(put(at, slot.raw), offset), bytes);
    return take_number();
  }
  void define_plan(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> body) {
    std::byte* at = put_head(extend(16 + padded(body.size())), RecordKind::kDefinePlan, 0, reads);
    at = put(put(put(at, plan.raw), creates), uint16_t{0});
    put_padded(put(at, static_cast<uint32_t>(body.size())), body);
  }
  void after(QueueId queue, CallNumber call) { put(put_head(extend(12), RecordKind::kAfter, 0, queue.raw), call.raw); }
  void resume_at(CallNumber call) { put(put_head(extend(12), RecordKind::kResumeAt, 0, 0), call.raw); }
  CallNumber sync() {
    put_head(extend(4), RecordKind::kSync, 0, 0);
    return take_number();
  }
  CallNumber time() {
    put_head(extend(4), RecordKind::kTime, 0, 0);
    return take_number();
  }
  CallNumber command(std::span<const std::byte> body, Answer answer) {
    std::byte* at = extend(8 + padded(body.size()));
    at = put_head(at, RecordKind::kCommand, static_cast<uint8_t>(answer), 0);
    put_padded(put(at, static_cast<uint32_t>(body.size())), body);
    return take_number();
  }

  // The payload of one RECORDS frame; the builder is empty afterwards and goes on counting. Not when empty().
  Buffer take();

 private:
  static constexpr size_t padded(size_t bytes) { return (bytes + 3) & ~size_t{3}; }

  template <typename T>
  static std::byte* put(std::byte* at, T value) {
    std::memcpy(at, &value, sizeof(T));
    return at + sizeof(T);
  }
  static std::byte* put_head(std::byte* at, RecordKind kind, uint8_t flags, uint16_t number) {
    const uint32_t word =
        static_cast<uint32_t>(kind) | (static_cast<uint32_t>(flags) << 8) | (static_cast<uint32_t>(number) << 16);
    return put(at, word);
  }
  static void put_padded(std::byte* at, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    const size_t whole = bytes.size() & ~size_t{3};
    if (whole <= 32 && whole % 8 == 0) [[likely]] {  // a few scalars
      for (size_t i = 0; i < whole; i += 8) std::memcpy(at + i, bytes.data() + i, 8);
    } else {
      std::memcpy(at, bytes.data(), whole);
    }
    if (whole == bytes.size()) [[likely]]
      return;
    std::memset(at + whole, 0, 4);
    std::memcpy(at + whole, bytes.data() + whole, bytes.size() - whole);
  }
  CallNumber sized(RecordKind kind, Slot slot, uint64_t bytes) {
    put(put(put_head(extend(16), kind, 0, 0), slot.raw), bytes);
    return take_number();
  }
  CallNumber take_number() { return CallNumber{next_.raw++}; }

  std::byte* extend(size_t bytes) {
    if (at_ + bytes > buffer_.size()) [[unlikely]]
      grow(bytes);
    std::byte* at = buffer_.data() + at_;
    at_ += bytes;
    ++count_;
    return at;
  }
  void grow(size_t bytes);

  const QueueId queue_;
  CallNumber next_, first_;
  Buffer buffer_;  // its size is the room we have
  size_t at_ = records_header_bytes;
  uint32_t count_ = 0;
};

struct RecordsHeader {
  QueueId queue;
  uint32_t count = 0;
  CallNumber first_call;  // of the first numbered record here, or the next one to come
};

// One record, as a view. Only the fields of its kind are set.
struct Record {
  RecordKind kind = RecordKind::kCall;
  bool report_wanted = false;       // CALL, COMMAND
  CallNumber call;                  // its own number; 0 when its kind takes none
  PlanId plan;                      // CALL, DEFINE_PLAN
  uint16_t reads = 0, creates = 0;  // DEFINE_PLAN
  std::span<const Slot> slots;      // CALL, FREE
  std::span<const std::byte> body;  // CALL: scalars; DEFINE_PLAN, COMMAND
  Slot slot;                        // CREATE, RESIZE, UPLOAD, READ
  uint64_t offset = 0, bytes = 0;   // CREATE and RESIZE: bytes; UPLOAD, READ: both
  UploadId upload;                  // UPLOAD
  QueueId other_queue;              // AFTER
  CallNumber target;                // AFTER: a call of other_queue; RESUME_AT: the call to go on with
};

// Walks over a payload that must stay alive, and 4-byte aligned as any Buffer's data is. Every record is checked
// before it is shown: known kind, sizes within limits and within the payload, slots of this queue where they must be.
class RecordReader {
 public:
  static Result<RecordReader> open(std::span<const std::byte> payload);

  const RecordsHeader& header() const { return header_; }
  // False at the end, or at the first malformed record: then status() says why, and records before it stand.
  bool next(Record& record);
  const Status& status() const { return status_; }

 private:
  RecordReader(RecordsHeader header, std::span<const std::byte> records)
      : header_(header), next_call_(header.first_call), rest_(records) {}
  bool fail(const Record& record, std::string_view why);

  RecordsHeader header_;
  CallNumber next_call_;
  uint32_t seen_ = 0;
  std::span<const std::byte> rest_;
  Status status_;
};

}  // namespace waldo::wire
