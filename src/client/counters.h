// What the process did so far, exactly: the figures behind `--stats` and behind the tests that assert counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/api.h"

namespace waldo::client {

struct WaitPlace {
  std::string file;
  int line = 0;
  uint64_t count = 0;
  double seconds = 0;
};

struct Counters {         // since the process began; exact
  uint64_t calls = 0;     // numbered records recorded
  uint64_t messages = 0;  // frames sent and received
  uint64_t waits = 0;
  uint64_t bytes_up = 0, bytes_down = 0;  // as written to and read from links
  uint64_t plans = 0, asks = 0, conforms = 0, frees = 0;
  std::vector<WaitPlace> waits_at;
};

// {"calls", "messages", "waits", "bytes_up", "bytes_down", …, "waits_at": [{"file", "line", "count", "seconds"}]}
WALDO_API std::string stats_json(const Counters& counters);

// The same for people: one line of totals, then the places that waited longest. Ends with a newline.
WALDO_API std::string stats_table(const Counters& counters);

// What WALDO_STATS asks for: nothing when it is unset, the table on stderr when it is "-", else the JSON in that file,
// put there in one step. A file that cannot be written costs one line on stderr. `connected` false: a process that
// never had a device leaves a file that is there alone, and prints no table.
WALDO_API void write_stats(const Counters& counters, bool connected);

}  // namespace waldo::client
