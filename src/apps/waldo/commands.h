// One function per subcommand; each takes its options as parsed and returns the exit code.
#pragma once

#include <string>
#include <vector>

namespace waldo::apps {

// One line on stderr: `waldo: ` and the text.
void complain(const std::string& text);

struct RunOptions {
  std::string on;             // "": WALDO_ON, else local
  int gpus = 0;               // 0: WALDO_GPUS, else as many as there are
  uint64_t memory_bytes = 0;  // 0: WALDO_MEMORY, else all that a device has
  int64_t grace_seconds = 0;  // 0: WALDO_GRACE, else the worker's default
  bool stats = false;
  std::string stats_file;  // "": a table on stderr
  bool quiet = false;
  std::vector<std::string> program;  // SCRIPT ARGS…, -m MODULE ARGS…, -c CODE ARGS…, or -- COMMAND…
};
int run_program(const RunOptions& options);

struct AdminOptions {
  std::string on;  // "": this machine's daemon
  bool json = false;
  bool quiet = false;
};
int list_sessions(const AdminOptions& options);
int stop_sessions(const AdminOptions& options);

struct BrokerOptions {
  std::string target = "local";
  int fd = -1;
};
int run_broker(const BrokerOptions& options);

}  // namespace waldo::apps
