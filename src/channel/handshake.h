// The daemon's and worker's side of the first words on a link, before a channel takes it: HELLO, then WELCOME or
// REFUSE. docs/protocol.md §3. (The client's side is client/connect.h: it can be interrupted.)
//
// Synchronous, on bare descriptors, any thread; nothing is read beyond the frame, so the descriptor can become a Link
// afterwards. Failures: kDisconnected (closed, or deadline passed), kInvalid (not a
// Waldo there, or a malformed frame); kUnsupported: no version in common.
#pragma once

#include "base/os/socket.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace waldo::channel {

// One whole frame, header first, its checksum checked.
Result<Buffer> read_frame(int fd, os::Deadline deadline);

// Daemon and worker: the HELLO, and the frame as it came, for passing on to the worker.
struct ReceivedHello {
  wire::Hello hello;
  Buffer frame;
};
Result<ReceivedHello> read_hello(int fd, os::Deadline deadline);
Result<wire::Hello> parse_hello(
    std::span<const std::byte> frame);  // of bytes that read_hello() gave to another process

// kUnsupported, with the text and exit code for REFUSE, when we do not speak the client's version.
Status check_version(const wire::Hello& hello);
Status write_welcome(int fd, const wire::Welcome& welcome, os::Deadline deadline);
Status write_refuse(int fd, const wire::Refuse& refuse, os::Deadline deadline);

}  // namespace waldo::channel
