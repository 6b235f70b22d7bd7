// A function of far tensors whose calls are the same whenever its arguments look the same, as the graphs of
// torch.compile are: run once as it is, sent once, and from then on one call.
//
// "Look the same": the same dtypes, sizes, strides, offsets, storages in common, numbers, and flags of at::Context. For
// each way they look there is a graph of its own, up to a bound; the function runs operator by operator where there is
// none (yet), and its values are the same to the bit either way.
//
// Owns:    what it knows of each graph. On the worker a graph's description lives as long as the session.
// Threads: any; begin() and end() by the same one.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

class WALDO_TORCH_API Graph {
 public:
  Graph();
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  using Values = std::vector<c10::IValue>;  // tensors, ints, floats, bools and Nones

  // One call, if there is a graph for such arguments: then its results are in `outputs`. False: nothing was done.
  // Throws what an operator throws.
  bool run(const Values& arguments, Values* outputs);

  // The function is about to be run on these arguments, by this thread: write its calls down, if that can be of use.
  // False: not begun. While one is under way on a thread another is not begun.
  bool begin(const Values& arguments);
  // It has run and gave these. Null: there is a graph from now on; otherwise why there is none. Nothing begun: null.
  const char* end(const Values& outputs);
  void abandon();  // it failed

  size_t size() const;  // graphs there are

 private:
  struct Known;
  struct Variant;
  struct Begun;

  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Variant> variants_;  // by hash of the key
  std::unique_ptr<Begun> begun_;
};

}  // namespace waldo::torch_frontend
