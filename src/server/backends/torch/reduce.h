// The element functions of reductions, on plain memory: what Gloo calls while values arrive. Results are those of
// PyTorch's own Gloo on the CPU, bit for bit, for two ranks.
//
// Threads: any; nothing here has state.
#pragma once

#include <c10/core/ScalarType.h>

#include <string>

#include "base/status.h"
#include "server/collectives/mesh.h"
#include "wire/collectives.h"

namespace waldo::torch_backend {

struct TypedReduction {
  server::Reduction reduction;
  // What each rank does to its own values first, and to the result; null: nothing.
  void (*scale)(void* data, size_t elements, double factor) = nullptr;
  double before = 1, after = 1;
};

// `elements` of a tensor of `dtype`. Complex numbers are pairs of real ones; bools are 0 or 1 as in NCCL. Not ok: the
// reason that c10d gives.
Result<TypedReduction> reduction_for(wire::ReduceKind kind, c10::ScalarType dtype, size_t elements, double factor,
                                     int ranks);

std::string name_of(wire::ReduceKind kind);

}  // namespace waldo::torch_backend
