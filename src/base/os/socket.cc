#include "base/os/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>

namespace waldo::os {
namespace {

Status system_failure(const std::string& what, int error) {
  const bool gone = error == ECONNREFUSED || error == ENOENT || error == EPIPE || error == ECONNRESET ||
                    error == ENOTCONN || error == ECONNABORTED;
  return Status(gone ? StatusKind::kDisconnected : StatusKind::kInternal, what + ": " + error_text(error));
}

void set_cloexec(int fd) { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

Result<UniqueFd> make_unix_socket() {
#ifdef SOCK_CLOEXEC
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
#else
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  if (fd.valid()) set_cloexec(fd.get());
#endif
  if (!fd.valid()) return system_failure("socket", errno);
  return fd;
}

bool has_no_file(const std::string& path) { return names_without_file && path.starts_with("@"); }

struct Address {
  sockaddr_un address{};
  socklen_t size = sizeof(sockaddr_un);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<Address> address_of(const std::string& path) {
  Address result;
  result.address.sun_family = AF_UNIX;
  if (path.empty() || path.size() > 100) return Status(StatusKind::kInvalid, "socket path too long: " + path);
  std::memcpy(result.address.sun_path, path.c_str(), path.size() + 1);
  if (has_no_file(path)) {
    result.address.sun_path[0] = 0;
    result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  }
  return result;
}

// Waits until `fd` is ready for `events`, for `deadline` at most.
Status wait_ready(int fd, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return Status(StatusKind::kDisconnected, "no answer in time");
    pollfd item{fd, events, 0};
    const int ready = ::poll(&item, 1, static_cast<int>(std::min<long long>(left, 1'000'000)));
    if (ready > 0) return Status();
    if (ready < 0 && errno != EINTR) return system_failure("poll", errno);
  }
}

}  // namespace

std::string error_text(int error) { return std::generic_category().message(error); }

Status set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return system_failure("fcntl", errno);
  return Status();
}

Result<FdPair> make_socketpair() {
  int fds[2];
#ifdef SOCK_CLOEXEC
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return system_failure("socketpair", errno);
#else
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return system_failure("socketpair", errno);
  for (int fd : fds) set_cloexec(fd);
#endif
  return FdPair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

Result<FdPair> make_pipe() {
  int fds[2];
#ifdef __linux__
  if (::pipe2(fds, O_CLOEXEC) != 0) return system_failure("pipe", errno);
#else
  if (::pipe(fds) != 0) return system_failure("pipe", errno);
  for (int fd : fds) set_cloexec(fd);
#endif
  return FdPair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

Result<UniqueFd> listen_unix(const std::string& path) {
  auto address = address_of(path);
  if (!address.ok()) return address.status();
  auto fd = make_unix_socket();
  if (!fd.ok()) return fd.status();
  if (::bind(fd->get(), address->get(), address->size) != 0) {
    if (errno == EADDRINUSE) return Status(StatusKind::kInvalid, "socket path is taken: " + path);
    return system_failure("bind " + path, errno);
  }
  if (::listen(fd->get(), 64) != 0) return system_failure("listen " + path, errno);
  return fd;
}

Result<UniqueFd> connect_unix(const std::string& path) {
  auto address = address_of(path);
  if (!address.ok()) return address.status();
  auto fd = make_unix_socket();
  if (!fd.ok()) return fd.status();
  if (::connect(fd->get(), address->get(), address->size) != 0) {
    return system_failure("connect " + path, errno);
  }
  if (has_no_file(path)) {
    const auto peer = peer_credentials(fd->get());
    if (!peer.ok()) return peer.status();
    if (peer->uid != ::geteuid()) return Status(StatusKind::kDisconnected, "connect " + path + ": another user's");
  }
  return fd;
}

Result<UniqueFd> accept_unix(int listener) {
  while (true) {
#ifdef __linux__
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
#else
    UniqueFd fd(::accept(listener, nullptr, nullptr));
    if (fd.valid()) set_cloexec(fd.get());
#endif
    if (fd.valid()) return fd;
    if (errno != EINTR && errno != ECONNABORTED) return system_failure("accept", errno);
  }
}

Result<PeerCredentials> peer_credentials(int socket) {
  PeerCredentials peer;
#ifdef __linux__
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return system_failure("peer", errno);
  peer.uid = credentials.uid;
  peer.pid = credentials.pid;
#else
  gid_t group;
  if (::getpeereid(socket, &peer.uid, &group) != 0) return system_failure("peer", errno);
#endif
  return peer;
}

Status send_fd(int socket, std::span<const std::byte> bytes, int fd) {
  WALDO_CHECK(!bytes.empty() && fd >= 0);
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
#ifdef MSG_NOSIGNAL
  constexpr int kFlags = MSG_NOSIGNAL;
#else
  constexpr int kFlags = 0;
#endif
  ssize_t sent;
  do sent = ::sendmsg(socket, &message, kFlags);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return system_failure("send descriptor", errno);
  const auto rest = bytes.subspan(static_cast<size_t>(sent));  // the descriptor went with the first byte
  return rest.empty() ? Status() : write_all(socket, rest, std::chrono::steady_clock::now() + std::chrono::seconds(5));
}

Result<ReceivedFd> receive_fd(int socket, size_t size_max) {
  ReceivedFd received;
  received.bytes.resize(size_max);
  iovec part{received.bytes.data(), received.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
#ifdef MSG_CMSG_CLOEXEC
  constexpr int kFlags = MSG_CMSG_CLOEXEC;
#else
  constexpr int kFlags = 0;
#endif
  ssize_t got;
  do got = ::recvmsg(socket, &message, kFlags);
  while (got < 0 && errno == EINTR);
  if (got < 0) return system_failure("receive descriptor", errno);
  received.bytes.resize(static_cast<size_t>(got));
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(int));
    received.fd.reset(fd);
    set_cloexec(fd);
  }
  return received;
}

Status read_exactly(int fd, std::span<std::byte> into, Deadline deadline) {
  while (!into.empty()) {
    WALDO_TRY(wait_ready(fd, POLLIN, deadline));
    const ssize_t got = ::read(fd, into.data(), into.size());
    if (got == 0) return Status(StatusKind::kDisconnected, "the other side closed the connection");
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK) continue;
      return system_failure("read", errno);
    }
    into = into.subspan(static_cast<size_t>(got));
  }
  return Status();
}

Status write_all(int fd, std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    WALDO_TRY(wait_ready(fd, POLLOUT, deadline));
#ifdef MSG_NOSIGNAL
    ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == ENOTSOCK) put = ::write(fd, bytes.data(), bytes.size());
#else
    ssize_t put = ::write(fd, bytes.data(), bytes.size());
#endif
    if (put < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK) continue;
      return system_failure("write", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return Status();
}

}  // namespace waldo::os
