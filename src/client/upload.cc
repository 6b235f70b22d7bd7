// Uploads: one UPLOAD record, then the bytes as chunks on the bulk lane, each copied once: straight behind its header,
// or into memory that the worker has mapped too.
#include <fmt/format.h>

#include <algorithm>

#include "channel/content.h"
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

Result<uint64_t> SessionCore::send_piece(wire::UploadData message, std::span<const std::byte> rest,
                                         const std::function<bool()>& interrupted) {
  message.bytes = rest.first(std::min<size_t>(limits::chunk_bytes, rest.size()));
  const auto over = [this] { return lost() || ended_.load(); };
  const Status sent = channel::send_content(
      channel_, shared_chunks_.get(), channel::Lane::kBulk, wire::FrameKind::kUploadData, message,
      [&] { return over() || interrupted(); }, interrupted);
  if (sent.ok()) return message.bytes.size();
  return sent.kind() == StatusKind::kCancelled && over() ? Status(StatusKind::kLost, "the session is over") : sent;
}

// However often it blocks meanwhile, the user stood still once: one wait.
Status SessionCore::send_upload(UploadId id, std::span<const std::byte> content) {
  wire::UploadData message;
  message.upload = id;
  message.total = content.size();
  const Status status = waits_.block([&](const std::function<bool()>& interrupted) -> Status {
    while (message.offset < content.size()) {
      auto sent = send_piece(message, content.subspan(message.offset), interrupted);
      if (!sent.ok()) return sent.status();
      message.offset += *sent;
    }
    return {};
  });
  if (status.ok()) return status;
  if (status.kind() == StatusKind::kCancelled) {
    send_in_background(message, content.subspan(message.offset));
    return status;
  }
  return ended_.load() ? Status() : gone(status.text());
}

// The worker was promised all of an upload and would wait for it for ever. The rest follows by itself, from a copy,
// because the caller's memory is the caller's again when upload() returns.
void SessionCore::send_in_background(wire::UploadData message, std::span<const std::byte> rest) {
  auto send = [this, message, content = to_buffer(rest)]() mutable {
    const uint64_t begin = message.offset;
    while (message.offset < message.total) {
      const auto left = std::span<const std::byte>(content).subspan(message.offset - begin);
      const auto sent = send_piece(message, left, [] { return false; });
      if (!sent.ok()) return;
      message.offset += *sent;
    }
  };
  std::lock_guard lock(mutex_);
  background_.emplace_back(std::move(send));
}

}  // namespace waldo::client
