// The protocol's versions, each named by what it brought. Code asks for the name, never for the number.
#pragma once

#include <cstdint>

namespace waldo::wire {

enum ProtocolVersion : uint32_t {
  kFirst = 1,  // calls, plans, reads, uploads inline, acknowledgements, replay, two lanes
};
inline constexpr uint32_t protocol_version = kFirst;         // what we speak
inline constexpr uint32_t protocol_version_oldest = kFirst;  // the oldest we still understand

}  // namespace waldo::wire
