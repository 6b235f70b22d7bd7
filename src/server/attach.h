// How a daemon hands a link to a worker: over a socket pair, one message per link. The descriptor goes with the first
// byte; the bytes are u32 size, u64 session id, then the HELLO frame the daemon read.
#pragma once

#include "base/bytes.h"
#include "base/ids.h"
#include "base/os/socket.h"
#include "base/os/unique_fd.h"
#include "base/status.h"

namespace waldo::server {

// For what another process of this machine does at once: 5 s from now.
os::Deadline soon();

struct Arrival {
  os::UniqueFd link;
  SessionId session;
  Buffer hello_frame;
};

Status hand_over(int control_fd, const Arrival& arrival);
Result<Arrival> wait_arrival(int control_fd);  // blocks; kDisconnected: the daemon is gone

}  // namespace waldo::server
