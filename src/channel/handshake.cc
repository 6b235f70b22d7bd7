#include "channel/handshake.h"

#include <fmt/format.h>

namespace waldo::channel {
namespace {

using wire::FrameKind;

constexpr int kExitVersion = 5;  // of the command line: version mismatch

std::span<const std::byte> payload_of(std::span<const std::byte> frame) {
  return frame.subspan(wire::frame_header_bytes);
}

template <typename Message>
Status write_frame(int fd, FrameKind kind, const Message& message, os::Deadline deadline) {
  return os::write_all(fd, wire::encode_frame(kind, wire::Lane::kRecords, FrameNumber{}, wire::encode(message)),
                       deadline);
}

}  // namespace

Result<Buffer> read_frame(int fd, os::Deadline deadline) {
  Buffer frame(wire::frame_header_bytes);
  WALDO_TRY(os::read_exactly(fd, frame, deadline));
  auto header = wire::decode_header(frame);
  if (!header.ok()) return header.status();
  frame.resize(wire::frame_header_bytes + header->payload_bytes);
  WALDO_TRY(os::read_exactly(fd, std::span(frame).subspan(wire::frame_header_bytes), deadline));
  const auto bytes = std::span<const std::byte>(frame);
  WALDO_TRY(wire::check_payload(bytes.first(wire::frame_header_bytes), bytes.subspan(wire::frame_header_bytes)));
  return frame;
}

Result<ReceivedHello> read_hello(int fd, os::Deadline deadline) {
  auto frame = read_frame(fd, deadline);
  if (!frame.ok()) return frame.status();
  auto hello = parse_hello(*frame);
  if (!hello.ok()) return hello.status();
  return ReceivedHello{std::move(*hello), std::move(*frame)};
}

Result<wire::Hello> parse_hello(std::span<const std::byte> frame) {
  if (frame.size() < wire::frame_header_bytes) return Status(StatusKind::kInvalid, "HELLO is cut short");
  const auto header_bytes = frame.first(wire::frame_header_bytes);
  auto header = wire::decode_header(header_bytes);
  if (!header.ok()) return header.status();
  WALDO_TRY(wire::check_payload(header_bytes, payload_of(frame)));
  if (header->kind != FrameKind::kHello) {
    return Status(StatusKind::kInvalid, fmt::format("{} instead of HELLO", wire::name_of(header->kind)));
  }
  return wire::decode_hello(payload_of(frame));
}

Status check_version(const wire::Hello& hello) {
  if (hello.version >= wire::protocol_version_oldest && hello.version <= wire::protocol_version) return Status();
  StatusDetail detail;
  detail.exit_code = kExitVersion;
  return Status(StatusKind::kUnsupported,
                fmt::format("this Waldo ({}) speaks protocol version {}, the other side speaks {}", WALDO_VERSION,
                            static_cast<uint32_t>(wire::protocol_version), hello.version),
                detail);
}

Status write_welcome(int fd, const wire::Welcome& welcome, os::Deadline deadline) {
  return write_frame(fd, FrameKind::kWelcome, welcome, deadline);
}

Status write_refuse(int fd, const wire::Refuse& refuse, os::Deadline deadline) {
  return write_frame(fd, FrameKind::kRefuse, refuse, deadline);
}

}  // namespace waldo::channel
