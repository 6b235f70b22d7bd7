#include "server/attach.h"

#include "base/os/socket.h"
#include "wire/frame.h"
#include "wire/limits.h"

namespace waldo::server {

namespace {

constexpr size_t kHeadBytes = 12;
constexpr uint32_t kFrameBytesMax = wire::frame_header_bytes + limits::info_bytes_max + 1024;

}  // namespace

os::Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(5); }

Status hand_over(int control_fd, const Arrival& arrival) {
  Buffer message;
  Writer out(message);
  out.put(static_cast<uint32_t>(arrival.hello_frame.size()));
  out.put(arrival.session.raw);
  out.put_bytes(arrival.hello_frame);
  return os::send_fd(control_fd, message, arrival.link.get());
}

Result<Arrival> wait_arrival(int control_fd) {
  auto received = os::receive_fd(control_fd, kHeadBytes);
  if (!received.ok()) return received.status();
  if (received->bytes.empty()) return Status(StatusKind::kDisconnected, "the daemon is gone");
  Arrival arrival;
  arrival.link = std::move(received->fd);
  Buffer head = std::move(received->bytes);
  const size_t got = head.size();
  head.resize(kHeadBytes);
  WALDO_TRY(os::read_exactly(control_fd, std::span(head).subspan(got), soon()));
  Reader in(head);
  const auto size = in.get<uint32_t>("size");
  arrival.session = SessionId{in.get<uint64_t>("session")};
  if (!arrival.link.valid() || size > kFrameBytesMax) return Status(StatusKind::kInternal, "a malformed hand-over");
  arrival.hello_frame.resize(size);
  WALDO_TRY(os::read_exactly(control_fd, arrival.hello_frame, soon()));
  return arrival;
}

}  // namespace waldo::server
