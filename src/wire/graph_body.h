// The body of a plan that is a run of calls of other plans, as a compiled graph makes it: the torch front end and the
// torch backend agree on it. One CALL of such a plan stands for all of them, in order.
//
// Its values are numbered: first what a call reads, then what it creates (its slots, in the call's order), then those
// that live on the worker alone, from the step that makes them to the last one that uses them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"

namespace waldo::wire {

struct GraphStep {
  enum class Kind : uint8_t {
    kCall = 0,    // of `plan`, defined before; never a graph itself
    kCreate = 1,  // as the record CREATE: `values` has the one that gets uninitialised storage of `bytes`
    kResize = 2,  // as the record RESIZE
  };
  Kind kind = Kind::kCall;
  PlanId plan;
  uint64_t bytes = 0;
  std::vector<uint32_t> values;    // what the plan reads, then what it creates
  std::vector<std::byte> scalars;  // of every run alike
};

struct GraphBody {
  uint32_t value_count = 0;
  std::vector<GraphStep> steps;
};

// Which of the two bodies a plan has; for anything that is neither, false.
bool is_graph_body(std::span<const std::byte> bytes);

Buffer encode(const GraphBody& body);
// kInvalid: malformed, or a value that is past `value_count`. What steps read and create is checked where the plans are
// known.
Result<GraphBody> decode_graph_body(std::span<const std::byte> bytes);

}  // namespace waldo::wire
