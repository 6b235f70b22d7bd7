// How many threads of the program stand still for the far side now, in all sessions. While there is one, a silent peer
// is asked after sooner (channel.h, watch_peer()). Apart from wait.h, which every front end includes.
#pragma once

#include <atomic>

namespace waldo::client {

inline std::atomic<int> standing_threads{0};

}  // namespace waldo::client
