// What a client wishes for in HELLO's info (docs/protocol.md), read once. Pure; nothing in it is trusted further than
// its limits.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "channel/shared_chunks.h"

namespace waldo::server {

struct Wishes {
  int gpus = 0;                   // 0: none said
  std::string backend = "torch";  // for the front end that asks: they have the same names
  std::chrono::seconds grace;     // how long a session outlives its link: 1 s to limits::grace_seconds_max
  std::optional<channel::SharedChunks::Offer> shared_memory;  // of a client that says it is on this machine
};

// Whatever does not parse is as if it had not been said.
Wishes parse_wishes(const std::string& hello_info);

}  // namespace waldo::server
