#include "server/backends/torch/graphs.h"

#include <fmt/format.h>

#include "server/backends/torch/queue.h"
#include "wire/limits.h"

namespace waldo::torch_backend {
namespace {

using Kind = wire::GraphStep::Kind;

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

}  // namespace

Result<Graph> prepare(const wire::GraphBody& body, size_t named,
                      const std::function<std::optional<GraphArity>(PlanId)>& arity) {
  if (body.value_count < named) return invalid("a graph with fewer values than its call has slots");
  Graph graph;
  graph.named = static_cast<uint32_t>(named);
  graph.value_count = body.value_count;
  std::vector<size_t> last_step(body.value_count, 0);
  for (size_t i = 0; i < body.steps.size(); ++i) {
    const wire::GraphStep& step = body.steps[i];
    if (step.kind == Kind::kCall) {
      const std::optional<GraphArity> plan = arity(step.plan);
      if (!plan.has_value()) return invalid(fmt::format("step {} of a graph calls plan {}", i, step.plan.raw));
      if (step.values.size() != size_t{plan->reads} + plan->creates) {
        return invalid(fmt::format("step {} of a graph names {} values, its plan has {}", i, step.values.size(),
                                   plan->reads + plan->creates));
      }
    }
    for (const uint32_t value : step.values) last_step[value] = i;
    graph.steps.push_back({step.kind, step.plan, step.bytes, step.values, step.scalars, {}});
  }
  for (uint32_t value = graph.named; value < graph.value_count; ++value) {
    if (!graph.steps.empty()) graph.steps[last_step[value]].last.push_back(value);
  }
  return graph;
}

// The graph's own values lie in slots that no client can name. Each step is a call like any other: it checks what it
// reads, counts its memory, and conforms or fails by itself.
Status TorchQueue::run_graph(const Graph& graph, std::span<const Slot> slots, bool* conformed) {
  const auto slot_of = [&](uint32_t value) {
    return value < graph.named ? slots[value] : Slot::make(queue_, limits::slot_count_max + (value - graph.named));
  };
  Status status;
  std::vector<Slot> named;
  for (const Graph::Step& step : graph.steps) {
    named.clear();
    for (const uint32_t value : step.values) named.push_back(slot_of(value));
    bool changed = false;
    switch (step.kind) {
      case Kind::kCall:
        status = call_plan(step.plan, named, step.scalars, &changed, nullptr);
        break;
      case Kind::kCreate:
        status = create(named[0], step.bytes);
        break;
      case Kind::kResize:
        status = resize(named[0], step.bytes);
        break;
    }
    *conformed = *conformed || changed;
    if (!status.ok()) break;
    for (const uint32_t value : step.last) free(slot_of(value));
  }
  if (!status.ok()) {
    for (uint32_t value = graph.named; value < graph.value_count; ++value) free(slot_of(value));
  }
  return status;
}

}  // namespace waldo::torch_backend
