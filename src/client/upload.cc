// Uploads: one UPLOAD record, then the bytes as chunks on the bulk lane, each copied once, straight behind its header.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "client/queue_record.h"
#include "wire/messages.h"

namespace waldo::client {

Status Queue::upload(Slot slot, uint64_t offset, const void* data, uint64_t bytes) {
  if (slot.queue() != id_) return Status(StatusKind::kInvalid, "upload names a slot of another queue");
  const UploadId id = core_.next_upload();
  if (Status status = record(32, {}, [&](wire::RecordsBuilder& to) { to.upload(slot, offset, bytes, id); });
      !status.ok()) {
    return unless_ended(std::move(status));
  }
  // The record goes first: the worker takes only so many bytes that no call has asked for.
  if (bytes > limits::chunk_bytes) kick(Recorder::Urge::kNow);
  return core_.send_upload(id, {static_cast<const std::byte*>(data), bytes});
}

// The chunk at `offset` of an upload of `total` bytes, of which `content` begins at `content_offset`.
Buffer SessionCore::make_chunk(UploadId id, uint64_t total, std::span<const std::byte> content, uint64_t content_offset,
                               uint64_t offset) {
  const auto piece = content.subspan(offset - content_offset);
  const size_t bytes = std::min<size_t>(limits::chunk_bytes, piece.size());
  wire::UploadData message;
  message.upload = id;
  message.total = total;
  message.offset = offset;
  Buffer payload = channel_.take_buffer(wire::bulk_header_bytes + bytes);
  wire::put_header(message, std::span<std::byte>(payload).first<wire::bulk_header_bytes>());
  std::memcpy(payload.data() + wire::bulk_header_bytes, piece.data(), bytes);
  return payload;
}

// However often the window is full meanwhile, the user stood still once: one wait.
Status SessionCore::send_upload(UploadId id, std::span<const std::byte> content) {
  uint64_t sent = 0;
  const Status status = waits_.block([&](const std::function<bool()>& interrupted) -> Status {
    while (sent < content.size()) {
      Buffer chunk = make_chunk(id, content.size(), content, 0, sent);
      const uint64_t bytes = chunk.size() - wire::bulk_header_bytes;
      WALDO_TRY(channel_.send(channel::Lane::kBulk, wire::FrameKind::kUploadData, std::move(chunk), interrupted));
      sent += bytes;
    }
    return {};
  });
  if (status.ok()) return status;
  if (status.kind() == StatusKind::kCancelled) {
    send_in_background(id, content.size(), content.subspan(sent));
    return status;
  }
  return ended_.load() ? Status() : gone(status.text());
}

// The worker was promised all of an upload and would wait for it for ever. The rest follows by itself, from a copy,
// because the caller's memory is the caller's again when upload() returns.
void SessionCore::send_in_background(UploadId id, uint64_t total, std::span<const std::byte> rest) {
  auto send = [this, id, total, content = to_buffer(rest)] {
    const uint64_t begin = total - content.size();
    for (uint64_t sent = begin; sent < total;) {
      Buffer chunk = make_chunk(id, total, content, begin, sent);
      sent += chunk.size() - wire::bulk_header_bytes;
      if (!channel_.send(channel::Lane::kBulk, wire::FrameKind::kUploadData, std::move(chunk)).ok()) return;
    }
  };
  std::lock_guard lock(mutex_);
  background_.emplace_back(std::move(send));
}

}  // namespace waldo::client
