// What runs calls: one Backend per worker process, one QueueBackend per queue (device).
//
// The executor (server/executor.h) owns order, failure and replies; a backend owns values. Plans' bodies are opaque to
// the executor. Slots live in the backend, which keeps a value or an error in each.
//
// Threads: all calls of one QueueBackend come from its queue's executor thread; different queues run at the same time
// (the torch backend keeps slot tables readable across queues: a call may name slots of another queue, and the executor
// has then waited for AFTER). Exceptions never leave a backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"

namespace waldo::server {

// Storage content that arrived, contiguous, 64-byte aligned; a backend may keep it as the storage itself (no copy).
struct UploadedBytes {
  std::unique_ptr<std::byte[], void (*)(std::byte*)> data{nullptr, [](std::byte*) {}};
  uint64_t size = 0;
};

// Where a read's bytes go. The executor's sink cuts them into chunks and sends them; `chunk` is only valid during the
// call. Blocks for flow control.
using ReadSink = std::function<Status(std::span<const std::byte> chunk)>;

// The same for a read that ends after the function that began it: `done` comes once, behind the last chunk or instead
// of what is missing. From a thread of the backend's, never after the QueueBackend is destroyed.
struct LateRead {
  ReadSink sink;
  std::function<void(Status)> done;
};
using LateMark = std::function<void(Result<uint64_t> now_ns)>;

class QueueBackend {
 public:
  virtual ~QueueBackend() = default;

  // Decodes and keeps a plan. An operator unknown here is not an error yet: call() of it fails with kUnsupported.
  // kInvalid: the body is malformed (the peer's fault, ends the session). `reads` slots are named first in a call, then
  // `creates` new ones.
  virtual Status define(PlanId plan, uint16_t reads, uint16_t creates, std::span<const std::byte> body) = 0;

  // Runs one operator. `slots`: reads then creates. `scalars`: the changed values, in the order the body states.
  // Verifies real outputs against the prediction; `*conformed` becomes true when it had to copy or cast one into the
  // predicted layout. When `report` is not null (the client asked), the outputs need no prediction: they are put into
  // the created slots in order and described in `*report` (format: wire/plan_body.h).
  // On failure no created slot has a value and in-place targets keep theirs (as far as the operator does).
  virtual Status call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars, bool* conformed,
                      Buffer* report) = 0;

  // What error messages call the plan's operator ("aten::add.Tensor"); "" when there is no such plan or name.
  virtual std::string op_name(PlanId) const { return {}; }

  virtual Status create(Slot slot, uint64_t bytes) = 0;  // uninitialised storage
  virtual Status resize(Slot slot, uint64_t bytes) = 0;  // keeps the content that fits
  virtual Status write(Slot slot, uint64_t offset,
                       UploadedBytes bytes) = 0;  // creates the slot when offset is 0 and it has no value
  virtual Status read(Slot slot, uint64_t offset, uint64_t bytes, const ReadSink& sink) = 0;
  virtual void free(Slot slot) = 0;                       // unknown or empty: nothing
  virtual void poison(Slot slot, const Status& why) = 0;  // the value that would be here was never made
  virtual Status command(std::span<const std::byte> body, Buffer* report) = 0;  // generators, flags, memory figures
  virtual Status synchronize() = 0;                                             // every earlier call has really ended
  virtual uint64_t now_ns() = 0;                                                // for TIME records

  // A device that works while its executor goes on: these take the places of read(), synchronize() and now_ns(), and
  // wait for no device. Fixed for the life of a queue.
  virtual bool answers_later() const { return false; }
  // The bytes as they are at this point in the order of calls; `bytes` is not 0. Blocks for staging memory at most.
  virtual Status read_later(Slot, uint64_t /*offset*/, uint64_t /*bytes*/, LateRead) { return answers_at_once(); }
  // Told when every earlier call has ended, with the device's time then.
  virtual Status mark_later(LateMark) { return answers_at_once(); }

 private:
  static Status answers_at_once() { return Status(StatusKind::kInternal, "this device answers at once"); }
};

class Backend {
 public:
  virtual ~Backend() = default;
  // JSON: {"kind": "torch", "version": "2.13.0", "devices": [{"name","kind","total_memory","capability":[8,0],
  // "multi_processor_count"}], …}; goes into WELCOME.
  virtual std::string info_json() = 0;
  virtual Result<std::unique_ptr<QueueBackend>> open_queue(QueueId queue) = 0;
};

// Exported by each backend's shared object under this name; `options_json`: {"gpus": 2, "memory_bytes": …}.
// Returns null and sets *error when the backend cannot start.
using MakeBackend = Backend* (*)(const char* options_json, std::string* error);
inline constexpr const char* kMakeBackendSymbol = "waldo_make_backend";

}  // namespace waldo::server
