// How a client comes by a link: a broker lends one. `waldo run` listens on the socket that WALDO_BROKER names; without
// it we start `<package>/bin/waldo broker`, which leaves our process group and session at once, over a socket pair.
// Both speak one line of JSON each way; the answer carries the link's descriptor. docs/protocol.md, "Links are lent".
//
// Owns:    the connection to the broker. It stays open: a broker ends what carries a link that hangs, and tells the far
//          side of a session whose program died without a word.
// Threads: one at a time; lend() blocks.
// Fork:    the connection is closed in children.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/os/fork.h"
#include "base/os/unique_fd.h"
#include "base/status.h"
#include "wire/messages.h"

namespace waldo::client {

struct LendRequest {
  std::string target = "local";
  int gpus = 0;             // 0: the target's own number
  std::string frontend;     // who asks: a worker that is ready for another is of no use
  std::string broker;       // a socket's path; "": start one
  std::string package_dir;  // where bin/waldo is
};

class Broker {
 public:
  explicit Broker(LendRequest request) : request_(std::move(request)) {}

  // kAgain: for a session that lost its link. kAgainHung: … and what carried the last one hangs: it is to be killed.
  enum class For : uint8_t { kNew, kAgain, kAgainHung };
  // The error is the broker's own, with its exit code in detail(); kDisconnected (exit code 3) when the broker itself
  // cannot be had. `interrupted` is asked about every 50 ms; true ends it with kCancelled.
  Result<os::UniqueFd> lend(For wanted, const std::function<bool()>& interrupted);

  // Should our process end without forget(), the broker says goodbye for this session.
  void remember(SessionId session, const wire::Secret& secret);
  void forget(SessionId session);

 private:
  Status connect();
  Status say(const std::string& line);
  void close();
  Result<os::UniqueFd> read_answer(const std::function<bool()>& interrupted);

  const LendRequest request_;
  os::UniqueFd connection_;
  std::optional<os::CloseInChild> in_child_;
  int64_t link_ = 0;        // the broker's number of the last one lent
  std::string remembered_;  // the line, said again to a new broker
};

}  // namespace waldo::client
