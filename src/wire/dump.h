// A frame as a person reads it: kind, number, lane, fields, records. For logs at level debug, tests and the protocol
// document. Never fails: what is malformed is said in its place.
#pragma once

#include <span>
#include <string>

#include "wire/frame.h"

namespace waldo::wire {

// One line; for RECORDS one more per record, indented. Texts and lists are shortened.
std::string dump(FrameKind kind, FrameNumber number, Lane lane, std::span<const std::byte> payload);
std::string dump_frame(std::span<const std::byte> frame);  // header and payload
std::string to_hex(std::span<const std::byte> bytes);      // "57 4c 44 01"

}  // namespace waldo::wire
