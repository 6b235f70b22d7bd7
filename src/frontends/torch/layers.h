// Which layer told what an operator makes, counted per operator: the report of tests/torch/conformance, by which an
// operator is put into the layer that tells it right.
//
// Threads: any; counted when a plan is made or found wrong, never on a hit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

enum class Layer : uint8_t {
  kRule,       // a rule of ours
  kMeta,       // PyTorch's C++ Meta kernel
  kArguments,  // an in-place operator gives back what it got
  kLearned,    // asked once per plan
  kAsked,      // asked every time
  kConformed,  // not a layer: a plan whose outputs the worker had to change
};
inline constexpr size_t kLayerCount = 6;

void count_layer(const std::string& op, Layer layer);

using LayerCounts = std::map<std::string, std::array<uint64_t, kLayerCount>>;
WALDO_TORCH_API LayerCounts layer_counts();

}  // namespace waldo::torch_frontend
