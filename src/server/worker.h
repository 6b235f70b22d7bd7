// `waldo worker`: the process that owns the devices and runs one session's calls. It ends with its client, at the
// latest two seconds after the link's end, also while an operator runs.
//
// Start: the backend is mapped (libtorch: most of a second) while the client is still importing torch; HELLO decides
// which backend it is and how many devices there are; WELCOME goes out; the channel takes the link.
#pragma once

#include <string>

namespace waldo::server {

struct WorkerOptions {
  int link_fd = -1;              // a link whose HELLO is still to be read; or
  int control_fd = -1;           // where the daemon hands over links with the HELLO it read (attach.h)
  std::string backend;           // "": the one of the front end that HELLO names
  std::string likely = "torch";  // what is mapped before HELLO comes: the front end it will probably name
  int gpus = 0;                  // when HELLO does not say; 0: as many as there are
  std::string package_dir;
  std::string faults;  // WALDO_WORKER_FAULT, for tests
};

// Does not return before the session ended; the exit code.
int run_worker(const WorkerOptions& options);

}  // namespace waldo::server
