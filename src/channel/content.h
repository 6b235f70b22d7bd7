// How a piece of content travels, the same for uploads and for what a READ asked for: through shared memory where both
// ends have some and it is worth it, else inline, copied once, straight behind its header.
//
// Threads: as Channel::send() and SharedChunks.
#pragma once

#include <cstring>

#include "channel/channel.h"
#include "channel/shared_chunks.h"

namespace waldo::channel {

// Sends `message.bytes` as `message` says. `shared` may be null. `stop` is asked while it waits for a shared chunk
// (true: kCancelled, nothing sent), `interrupted` while it waits for the window, as in Channel::send().
template <typename Message>
Status send_content(Channel& channel, SharedChunks* shared, Lane lane, wire::FrameKind kind, Message message,
                    const std::function<bool()>& stop, const std::function<bool()>& interrupted = {}) {
  if (shared != nullptr && message.bytes.size() >= limits::shared_bytes_min) {
    const auto piece = shared->put(message.bytes, stop);
    if (!piece) return Status(StatusKind::kCancelled, "interrupted");
    message.payload_kind = wire::PayloadKind::kSharedMemory;
    message.bytes = {};
    message.shared = *piece;
    Status sent = channel.send(lane, kind, wire::encode(message), interrupted);
    if (!sent.ok()) shared->take_back(*piece);
    return sent;
  }
  Buffer payload = channel.take_buffer(wire::bulk_header_bytes + message.bytes.size());
  wire::put_header(message, std::span(payload).template first<wire::bulk_header_bytes>());
  if (!message.bytes.empty())
    std::memcpy(payload.data() + wire::bulk_header_bytes, message.bytes.data(), message.bytes.size());
  return channel.send(lane, kind, std::move(payload), interrupted);
}

// Where the content of a received message lies. What lies in `shared` (then its payload kind says so) is the caller's
// until it gives message.shared back. kInvalid: the peer broke a rule.
template <typename Message>
Result<std::span<const std::byte>> find_content(const Message& message, SharedChunks* shared) {
  if (message.payload_kind != wire::PayloadKind::kSharedMemory) return message.bytes;
  if (shared == nullptr) return Status(StatusKind::kInvalid, "shared memory that was not agreed on");
  return shared->find(message.shared);
}

}  // namespace waldo::channel
