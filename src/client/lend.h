// How a client comes by a link: a broker lends one. `waldo run` listens on the socket that WALDO_BROKER names; without
// it we start `<package>/bin/waldo broker`, which leaves our process group and session at once, over a socket pair.
// Both speak one line of JSON each way; the answer carries the link's descriptor. docs/protocol.md, "Links are lent".
//
// Threads: any; blocks. No state of its own.
#pragma once

#include <functional>
#include <string>

#include "base/os/unique_fd.h"
#include "base/status.h"

namespace waldo::client {

struct LendRequest {
  std::string target = "local";
  int gpus = 0;             // 0: the target's own number
  std::string broker;       // a socket's path; "": start one
  std::string package_dir;  // where bin/waldo is
};

// The error is the broker's own, with its exit code in detail(); kDisconnected (exit code 3) when the broker itself
// cannot be had. `interrupted` is asked about every 50 ms; true ends it with kCancelled.
Result<os::UniqueFd> lend_link(const LendRequest& request, const std::function<bool()>& interrupted);

}  // namespace waldo::client
