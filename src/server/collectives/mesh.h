// What connects the workers of a group of ranks: one Mesh per worker and group. Torch-free; an engine (Gloo) lies
// behind it in a library of its own, so that its symbols never meet those of the copy inside libtorch.
//
// Threads: collectives and connect() come from one thread, in the same order on every rank; post_…() from any, and a
//          Transfer is waited for by one. close() from any: what waits fails at once.
// Memory:  the caller's, until the function (for a Transfer: its wait) returns.
// Errors:  kDisconnected: a rank is gone, did not come in time, or sent something else. The mesh is closed then, so
//          that the others hear of it too. Nothing throws. The process ignores SIGPIPE: engines write to sockets.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace waldo::server {

struct MeshOptions {
  int rank = 0, size = 1;
  std::string net = "127.0.0.1";  // where to listen, and whom to reach (net.h)
  std::chrono::milliseconds timeout{0};
};

using Milliseconds = std::chrono::milliseconds;

// out[i] = a[i] op b[i]; `out` may be `a`.
using ReduceFunction = void (*)(void* out, const void* a, const void* b, size_t elements);
struct Reduction {
  size_t elements = 0;
  size_t element_bytes = 0;  // 1, 2, 4 or 8
  ReduceFunction function = nullptr;
};

// A message of one rank to another, under way.
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual Status wait(Milliseconds timeout) = 0;
};

// What a rank tells all others before a collective; opaque here.
using Note = std::array<std::byte, 32>;

class Mesh {
 public:
  virtual ~Mesh() = default;

  // For each rank, by number, where it finds this one; before connect().
  virtual std::vector<std::string> addresses() = 0;
  // Of each rank, where this one finds it. Refuses an address that the options do not allow.
  virtual Status connect(const std::vector<std::string>& addresses) = 0;

  // `data` becomes the reduction over all ranks, in the same bits on each.
  virtual Status allreduce(void* data, const Reduction& reduction, Milliseconds timeout) = 0;
  virtual Status reduce(void* data, const Reduction& reduction, int root, Milliseconds timeout) = 0;  // elsewhere: lost
  virtual Status broadcast(void* data, size_t bytes, int root, Milliseconds timeout) = 0;
  virtual Status allgather(const void* in, void* out, const std::vector<size_t>& bytes_of_rank,
                           Milliseconds timeout) = 0;
  virtual Status gather(const void* in, size_t bytes, void* out, int root, Milliseconds timeout) = 0;
  virtual Status scatter(const std::vector<const void*>& in, void* out, size_t bytes, int root,
                         Milliseconds timeout) = 0;
  virtual Status alltoall(const void* in, const std::vector<int64_t>& in_bytes, void* out,
                          const std::vector<int64_t>& out_bytes, Milliseconds timeout) = 0;
  virtual Status barrier(Milliseconds timeout) = 0;

  // Tells every other rank `mine`. After the transfer's wait() `all` holds what each said, by rank. Every rank takes
  // part in the same order, after connect(); never waits. The others' notes arrive while collectives run.
  virtual std::unique_ptr<Transfer> post_notes(const Note& mine, std::vector<Note>& all) = 0;
  // Messages between two ranks with the same tag arrive in the order they were posted.
  virtual std::unique_ptr<Transfer> post_send(const void* data, size_t bytes, int peer, uint32_t tag) = 0;
  virtual std::unique_ptr<Transfer> post_receive(void* data, size_t bytes, int peer, uint32_t tag) = 0;

  // Returns when a rank has gone without a goodbye (kDisconnected), or all others have said theirs. Once, after
  // connect(), on a thread of its own; for groups whose bytes take another way (nccl_group.h), so that nothing else
  // hears of it.
  virtual Status watch() = 0;
  // To the others' watch(), before close(): whatever comes, it is no failure.
  virtual void say_goodbye(Milliseconds timeout) = 0;

  virtual void close() = 0;
};

// Exported by libwaldo_gloo.so. Null and `*error` set when it cannot listen.
using MakeMesh = Mesh* (*)(const MeshOptions& options, std::string* error);
inline constexpr const char* kMakeMeshSymbol = "waldo_make_mesh";

}  // namespace waldo::server
