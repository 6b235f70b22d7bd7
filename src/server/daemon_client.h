// Talking to the daemon of this user and host: questions, and starting it. The protocol is one line of JSON each way
// (daemon.h); a connection whose first byte is not '{' is a link.
#pragma once

#include <string>

#include "base/os/unique_fd.h"
#include "base/status.h"
#include "server/banner.h"

namespace waldo::server {

// The answer's JSON, without the end of its line. kDisconnected: nobody listens there.
Result<std::string> ask_daemon(const std::string& socket_path, const std::string& request_json);
Result<Banner> ask_info(const std::string& socket_path);

// Asks it to end, with its sessions, and waits until it has. True: there was one. How many sessions it had goes to
// `sessions`.
Result<bool> stop_daemon(const std::string& socket_path, size_t* sessions);

// The socket of a daemon that answers, started when there is none. One that another version left running is replaced
// when it has no sessions.
Result<std::string> ensure_daemon();

}  // namespace waldo::server
