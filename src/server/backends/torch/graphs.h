// A graph, prepared: the calls that one call of it stands for, and when each of its own values is let go of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/status.h"
#include "wire/graph_body.h"

namespace waldo::torch_backend {

struct Graph {
  struct Step {
    wire::GraphStep::Kind kind = wire::GraphStep::Kind::kCall;
    PlanId plan;
    uint64_t bytes = 0;              // kCreate, kResize
    std::vector<uint32_t> values;    // named by the step; kCreate, kResize: one
    std::vector<std::byte> scalars;  // kCall
    std::vector<uint32_t> last;      // own values that no later step names
  };
  std::vector<Step> steps;
  uint32_t named = 0;  // values that are slots of the call; the others are the graph's own
  uint32_t value_count = 0;
};

struct GraphArity {
  uint16_t reads = 0, creates = 0;
};

// kInvalid: a step of a plan that `arity` does not know (not defined, or a graph itself) or with another number of
// values than its plan has.
Result<Graph> prepare(const wire::GraphBody& body, size_t named,
                      const std::function<std::optional<GraphArity>(PlanId)>& arity);

}  // namespace waldo::torch_backend
