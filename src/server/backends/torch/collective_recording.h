// What every operator of wire/collectives.h does before its bytes travel: finds its group, says which storages it uses
// and what it is about to do (Intent), and becomes a job. Every rank tells every other one its intent as soon as it is
// recorded; the job begins with comparing them: ranks that disagree all learn it, and nothing hangs.
//
// Errors:  CollectiveFailure, thrown before anything is recorded. Thread: the queue's executor; a job runs on its
// group's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "server/backends/torch/collectives.h"

namespace waldo::torch_backend {

[[noreturn]] void fail(Status why);
void require(bool holds, const char* what);

enum class What : uint32_t {
  kAllreduce,
  kBroadcast,
  kReduce,
  kAllgather,
  kReduceScatter,
  kGather,
  kScatter,
  kAlltoall,
  kBarrier
};

// What a rank is about to do. Plain bytes: they are compared.
struct Intent {
  What what = What::kBarrier;
  uint32_t op = 0;
  int32_t root = -1;
  uint32_t dtype = 0;
  uint64_t elements = 0;
  uint64_t shapes = 0;  // of all the tensors' dtypes and sizes
};
static_assert(sizeof(Intent) == sizeof(server::Note));

void add_shape(Intent& intent, const at::Tensor& tensor);

// The memory of a tensor where the engine can reach it: its own on a CPU, else a copy.
class Memory {
 public:
  explicit Memory(at::Tensor tensor);
  void* data() const { return host_.mutable_data_ptr(); }
  size_t bytes() const { return host_.nbytes(); }
  void written() const;  // to the tensor

 private:
  at::Tensor tensor_, host_;
};

// A collective about to be recorded.
struct Recording {
  Recording(int64_t number, int64_t timeout_ms, What what);
  void uses(const at::Tensor& tensor, bool writes);
  void root_is(int64_t root);
  void reduces(int64_t op);
  size_t size() const { return static_cast<size_t>(group->size); }
  // The last step: `body` runs once all ranks agree.
  void record(std::function<Status(server::Mesh&)> body);

  const Group* group;
  server::Milliseconds timeout;
  Intent intent;
  Collectives::Job job;
};

}  // namespace waldo::torch_backend
