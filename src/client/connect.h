// The first frames on a link: HELLO from us, WELCOME or REFUSE from the worker. Blocks; any thread; no state.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/status.h"
#include "channel/shared_chunks.h"
#include "client/session.h"
#include "wire/messages.h"

namespace waldo::client {

struct Greeting {
  wire::Welcome welcome;
  uint64_t bytes_sent = 0, bytes_received = 0;
};

// Speaks on `fd` and leaves it at the first byte after WELCOME. Errors: what REFUSE says, with its exit code;
// kUnsupported (exit code 5) for a version we do not speak; kDisconnected when the link ends, or is silent, instead of
// answering; kCancelled when `interrupted`, asked about every 50 ms, says so.
Result<Greeting> greet(int fd, const wire::Hello& hello, const std::string& target,
                       const std::function<bool()>& interrupted);

// What HELLO says of this process. `shared`: with a descriptor, memory that a worker on this machine may take up.
std::string hello_info(const Options& options, const channel::SharedChunks::Offer& shared = {});

// What WELCOME says.
struct WelcomeInfo {
  WorkerInfo worker;              // and its devices
  std::chrono::seconds grace{0};  // how long the worker keeps the session of a client that lost its link; 0: not at all
  bool shares_memory = false;     // it took up what HELLO offered
};

// kInvalid when that is not what a worker says.
Result<WelcomeInfo> parse_welcome_info(const std::string& info_json, const std::string& target);

}  // namespace waldo::client
