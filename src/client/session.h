// The client's end of a session: what a front end calls. No framework header is known here.
//
// Runtime: the process-wide table of devices (`cuda:i` -> session, queue) and the one loop thread. Nothing connects
// before the first use of, or question about, devices.
// Session: one worker on one host. Queue: one device of it, with its own slots, plans, call numbers, outbox and lock.
//
// Recording never waits for the network (but for flow control when megabytes are on their way). Reads, asks and
// synchronize() wait, and each time a user thread really blocks in the channel that is counted as one wait, with the
// place the front end's `Hooks::where` names.
//
// Failure: when a call fails on the worker, the next recording function or read returns that failure once (kDevice, with
// detail) and records RESUME_AT; everything recorded between the failed call and this point was dropped by the worker.
// A lost session returns kLost from everything, for good.
//
// Threads: everything from any thread; each queue has one lock, never held while waiting or calling hooks.
// Fork: in a child every function returns kInvalid "…in forked subprocess…" and destructors do nothing.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "client/api.h"  // WALDO_API: visible in libwaldo.so

namespace waldo::client {

struct DeviceInfo {
  std::string name;  // "NVIDIA H200", or the CPU's model name
  std::string kind;  // "cuda", "cpu": what it really is
  uint64_t total_memory = 0;
  int capability_major = 0, capability_minor = 0;
  int multi_processor_count = 0;
};

struct WorkerInfo {
  std::string target;         // "local", "lab", "unix:…"
  std::string backend;        // "torch"
  std::string version;        // the backend's, e.g. "2.13.0"
  std::string waldo_version;
  std::vector<DeviceInfo> devices;
  std::string json;           // all of it, as the worker said it
};

// What a front end lends to the client. Called without any lock of ours held. May be empty.
struct Hooks {
  std::function<bool()> interrupted;                             // asked about every 50 ms of a wait (user threads)
  std::function<std::pair<std::string, int>()> where;            // the user's file and line, when a wait starts
};

struct WaitPlace {
  std::string file;
  int line = 0;
  uint64_t count = 0;
  double seconds = 0;
};

struct Counters {  // since the process began; exact
  uint64_t calls = 0;      // numbered records recorded
  uint64_t messages = 0;   // frames sent and received
  uint64_t waits = 0;
  uint64_t bytes_up = 0, bytes_down = 0;  // as written to and read from links
  uint64_t plans = 0, asks = 0, conforms = 0, frees = 0;
  std::vector<WaitPlace> waits_at;
};

class Session;

struct ReadTicket {  // names one outstanding read
  CallNumber call;
};

class WALDO_API Queue {
 public:
  QueueId id() const;
  Session& session();

  // --- names -------------------------------------------------------------------------------------------------------
  Slot new_slot();                       // hot
  void free_slot(Slot slot) noexcept;    // from deleters: pushes to a list, drained into FREE at the next record
  PlanId define_plan(uint16_t reads, uint16_t creates, std::span<const std::byte> body);

  // --- recording (fire and forget) ---------------------------------------------------------------------------------
  // Hot: once per operation. `slots`: the plan's reads then its creates. Slots of other queues are allowed: the
  // recorder adds AFTER in both directions.
  Status call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars);
  Status create(Slot slot, uint64_t bytes);
  Status resize(Slot slot, uint64_t bytes);
  // Copies `bytes` before it returns. Blocks only for the bulk window.
  Status upload(Slot slot, uint64_t offset, const void* data, uint64_t bytes);
  Status command(std::span<const std::byte> body);

  // --- waiting -------------------------------------------------------------------------------------------------------
  // As call(), but the outputs are what the worker says: `report` gets its description. Unused created slots stay yours.
  Status ask(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars, Buffer* report);
  Status ask_command(std::span<const std::byte> body, Buffer* report);
  Status read(Slot slot, uint64_t offset, void* destination, uint64_t bytes);
  // `destination` must stay valid until finish_read() of this ticket returned, or abandon_read().
  Result<ReadTicket> start_read(Slot slot, uint64_t offset, void* destination, uint64_t bytes);
  Status finish_read(ReadTicket ticket);
  void abandon_read(ReadTicket ticket) noexcept;
  Status synchronize();  // every call recorded before has ended

  // --- events --------------------------------------------------------------------------------------------------------
  Result<CallNumber> record_time();           // the worker notes its clock when it gets there
  bool reached(CallNumber time_call);         // free: has the answer to record_time() arrived?
  Result<uint64_t> time_ns(CallNumber time_call);  // waits until it has
  void forget_time(CallNumber time_call) noexcept;
  CallNumber last_call() const;               // the last one recorded
  Status after(Queue& other, CallNumber call);  // later records of this queue run after that call of `other`
};

class WALDO_API Session {
 public:
  const WorkerInfo& worker() const;
  size_t queue_count() const;
  Queue& queue(size_t index);
  bool lost() const;
};

// How `cuda:i` is made. From the environment when nothing was said: WALDO_ON (target, default "local"), WALDO_GPUS,
// WALDO_BROKER (a socket of `waldo run` that lends links). docs/protocol.md says how links are asked for.
struct Options {
  std::string target = "local";
  int gpus = 0;  // 0: as many as the target has (local: 1)
  std::string frontend;          // "torch"
  std::string frontend_version;  // "2.13.0"
  std::string package_dir;       // where libwaldo.so, the worker's libraries and bin/waldo are
};

class WALDO_API Runtime {
 public:
  static Runtime& instance();  // never destroyed
  void set_hooks(Hooks hooks);
  void configure(Options options);         // before the first connect; later: ignored
  int device_count();                      // connects only when the number cannot be known otherwise; 0 when nothing is reachable
  Status connect_error();                  // why device_count() is 0, or ok
  Result<Queue*> queue(int device);        // connects at first use; the pointer lives for ever
  bool in_forked_child() const;            // true in a child of the process that connected
  Counters counters();
  // Flush and GOODBYE, 1 s at most; afterwards every call and deleter is a no-op. From `atexit`.
  void shutdown();
};

}  // namespace waldo::client
