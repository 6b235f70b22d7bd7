// Unix sockets and descriptors that travel over them. All results are close-on-exec; none blocks for ever.
// Errors: kDisconnected when the other side is gone or nobody listens, kInternal when the system refuses.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/os/unique_fd.h"
#include "base/status.h"

namespace waldo::os {

using FdPair = std::pair<UniqueFd, UniqueFd>;

Result<FdPair> make_socketpair();  // two ends of a stream
Result<FdPair> make_pipe();        // first: read end, second: write end
// On Linux a path that begins with '@' is a name without a file: it ends with its listener, however that ends. Anybody
// may take or call such a name, so both sides must ask peer_credentials(); connect_unix() does.
#ifdef __linux__
inline constexpr bool names_without_file = true;
#else
inline constexpr bool names_without_file = false;
#endif
Result<UniqueFd> listen_unix(const std::string& path);   // kInvalid: path over 100 bytes, or taken
Result<UniqueFd> connect_unix(const std::string& path);  // kDisconnected: nobody there, or another user's name
Result<UniqueFd> accept_unix(int listener);              // blocks until somebody comes

// Who is on the other end of a unix socket, as the kernel says.
struct PeerCredentials {
  uid_t uid = 0;
  pid_t pid = 0;  // 0 where the system does not say
};
Result<PeerCredentials> peer_credentials(int socket);

// One message with one descriptor attached; the bytes are never empty. receive_fd() gives what one call brought, up to
// `size_max` bytes; `fd` stays invalid when none was attached.
Status send_fd(int socket, std::span<const std::byte> bytes, int fd);
struct ReceivedFd {
  Buffer bytes;  // empty: the peer closed
  UniqueFd fd;
};
Result<ReceivedFd> receive_fd(int socket, size_t size_max);

// Blocking helpers for handshakes, on blocking and non-blocking descriptors alike. kDisconnected: end of stream or
// deadline passed (the text says which).
using Deadline = std::chrono::steady_clock::time_point;
Status read_exactly(int fd, std::span<std::byte> into, Deadline deadline);
Status write_all(int fd, std::span<const std::byte> bytes, Deadline deadline);  // never raises SIGPIPE on sockets

Status set_nonblocking(int fd);
std::string error_text(int error);  // "Connection refused"; thread-safe

}  // namespace waldo::os
