// Starting the user's program, and an ssh that may ask for a password. fork and exec instead of os::spawn, because both
// need what posix_spawn cannot: ending with us, and signals that stay ignored. For processes with one thread only.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace waldo::apps {

struct ChildOptions {
  std::vector<std::string> command;  // looked up on PATH
  std::vector<std::pair<std::string, std::string>> setenv;
  std::vector<std::pair<int, int>> fds;  // {number there, descriptor here}
  std::vector<int> ignored_signals;      // the others get their default action
  bool ends_with_us = false;             // killed when this process dies, however it dies (Linux)
  bool own_group = false;                // a process group of its own
};

// kInvalid: no such program, or not one that can be run (the text says which).
Result<pid_t> fork_child(const ChildOptions& options);

// 128 + signal for one that a signal ended.
int exit_code_of(int wait_status);

}  // namespace waldo::apps
