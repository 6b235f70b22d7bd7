// Starting programs. posix_spawn, so that a large parent with threads costs and risks nothing.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace waldo::os {

enum class ProcessGroup : uint8_t {
  kSame,        // Ctrl-C in the terminal reaches it too
  kNew,         // a group of its own
  kNewSession,  // setsid: no terminal either
};

struct SpawnOptions {
  std::vector<std::string> command;                         // command[0] is looked up on PATH unless it has a slash
  std::vector<std::pair<std::string, std::string>> setenv;  // added to, or replacing, our environment
  std::vector<std::string> unsetenv;
  // Descriptors the child gets: {number there, descriptor here}. Everything else of ours is close-on-exec.
  std::vector<std::pair<int, int>> fds;
  ProcessGroup group = ProcessGroup::kSame;
};

// The child starts with default signal actions and nothing blocked. kInvalid: no such program.
Result<pid_t> spawn(const SpawnOptions& options);

// Exit code of a child of ours; 128 + signal when one ended it. Blocks.
Result<int> wait_process(pid_t pid);

std::string executable_path();  // of this process; "" where the system does not say

}  // namespace waldo::os
