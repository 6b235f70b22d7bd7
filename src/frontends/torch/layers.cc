#include "frontends/torch/layers.h"

#include <mutex>

namespace waldo::torch_frontend {
namespace {

struct Counts {
  std::mutex mutex;
  LayerCounts by_op;
};

Counts& counts() {
  static auto* all = new Counts();
  return *all;
}

}  // namespace

void count_layer(const std::string& op, Layer layer) {
  const std::scoped_lock lock(counts().mutex);
  ++counts().by_op[op][static_cast<size_t>(layer)];
}

LayerCounts layer_counts() {
  const std::scoped_lock lock(counts().mutex);
  return counts().by_op;
}

}  // namespace waldo::torch_frontend
