// The daemon: one per user and host. Starts a worker per session and hands links to the right one; holds no session
// state of its own and carries no session bytes.
//
// Its socket takes two kinds of connection, told apart by the first byte. A link begins with a HELLO frame. Anything
// that begins with '{' is one line of JSON, answered by one:
//
//   {"want": "info"}      the BANNER object (banner.h)
//   {"want": "ls"}        {"ok": true, "waldo", "host", "pid", "sessions": [{"id", "pid", "program", "frontend",
//                          "client_pid", "gpus", "since", "rss_bytes"}]}
//   {"want": "prestart"}  {"ok": true}; a spare worker loads its libraries while the client's program still starts;
//                          "likely": the front end it will be for, "torch" or "tensorflow"
//   {"want": "down"}      {"ok": true, "sessions": n}; ends the workers, then itself
//   {"want": "adopt", "session", "client"}   no answer: a worker whose daemon is gone; from here on this connection is
//                          what links are handed over on
//   anything else         {"ok": false, "text"}
//
// Only processes of the same user are answered (the kernel says who they are). It ends by itself when it had no session
// and no connection for `idle`. SIGTERM and SIGINT end it alone: sessions go on and the next daemon adopts them.
#pragma once

#include <chrono>
#include <string>

namespace waldo::server {

struct DaemonOptions {
  std::chrono::seconds idle{600};
  int ready_fd = -1;    // gets one byte when the socket listens
  std::string backend;  // of every worker; "": the one of the front end that asks
  std::string package_dir;
};

// The exit code. 0 also when another daemon of this user is at work already.
int run_daemon(const DaemonOptions& options);

}  // namespace waldo::server
