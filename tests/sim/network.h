// Links as a bad network makes them: bytes arrive late and in pieces, the room between the ends is small, and a link
// ends after any byte, on one side or both, with a word or in silence.
#pragma once

#include <limits>
#include <memory>
#include <utility>

#include "channel/link.h"
#include "sim/stage.h"

namespace waldo::sim {

// What happens to one direction of one link.
struct Fate {
  size_t cut_after_bytes = std::numeric_limits<size_t>::max();  // then no byte gets through
  bool writer_hears = true;                                     // … and this end is told, or it is silent
  bool reader_hears = true;
  Duration delay{};        // of every byte
  Duration delay_extra{};  // and up to so much more, by chance
  size_t room_bytes = 64 << 10;
  bool small_pieces = false;  // reads and writes take a few bytes at a time
};

using Links = std::pair<std::unique_ptr<channel::Link>, std::unique_ptr<channel::Link>>;  // the client's, the worker's
Links make_links(Stage& stage, const Fate& up, const Fate& down);

}  // namespace waldo::sim
