// The client's end of a session: what a front end calls. No framework header is known here.
//
// Runtime: a front end's table of devices (`cuda:i` -> session, queue) and its loop thread. Nothing connects before the
// first use of, or question about, devices.
// Session: one worker on one host. Queue: one device of it, with its own slots, plans, call numbers, outbox and lock.
//
// Recording never waits for the network (but for flow control when megabytes are on their way). Reads, asks and
// synchronize() wait, and each time a user thread really blocks in the channel that is counted as one wait, with the
// place the front end's `Hooks::where` names.
//
// Failure: when a call fails on the worker, the next recording function or read returns that failure once (kDevice,
// with detail) and records RESUME_AT; everything recorded between the failed call and this point was dropped by the
// worker. A lost session returns kLost from everything, for good.
//
// Threads: everything from any thread; each queue has one lock, never held while waiting or calling hooks.
// Fork: in a child every function returns kInvalid "…in forked subprocess…" and destructors do nothing.
#pragma once

#include <algorithm>
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
#include "client/counters.h"
#include "client/recorder.h"
#include "client/wait.h"

namespace waldo::client {

struct DeviceInfo {
  std::string name;  // "NVIDIA H200", or the CPU's model name
  std::string kind;  // "cuda", "cpu": what it really is
  uint64_t total_memory = 0;
  int capability_major = 0, capability_minor = 0;
  int multi_processor_count = 0;
};

struct WorkerInfo {
  std::string target;   // "local", "lab", "unix:…"
  std::string backend;  // "torch"
  std::string version;  // the backend's, e.g. "2.13.0"
  std::vector<DeviceInfo> devices;
  std::string json;  // all of it, as the worker said it
};

class Session;
class SessionCore;
struct Pending;

inline constexpr PlanId kNoPlan{0xffffffffu};  // of define_plan(), when there can be none

struct ReadTicket {  // names one outstanding read
  CallNumber call;
};

class WALDO_API Queue {
 public:
  ~Queue();
  QueueId id() const { return id_; }
  Session& session() { return session_; }

  // --- names -------------------------------------------------------------------------------------------------------
  // Hot. The none slot when limits::slot_count_max live at once.
  Slot new_slot() {
    std::lock_guard guard(recorder_.lock);
    return recorder_.slots.take();
  }
  // Runs `body(SlotTable&)` under the queue's lock, with FREE recorded for everything dropped before: for what the
  // front end must change together with slots and their owners. `body` calls nothing of the queue.
  template <typename Body>
  auto locked(Body&& body) {
    std::lock_guard guard(recorder_.lock);
    if (recorder_.slots.any_dropped()) recorder_.put_dropped_slow();
    return body(recorder_.slots);
  }
  // First before any slot gets an owner.
  void on_released(Recorder::Released released) {
    std::lock_guard guard(recorder_.lock);
    recorder_.released = released;
  }
  // From deleters, under whatever lock: pushes to a list that is drained into one FREE at the next record or flush.
  // Takes no lock, allocates nothing. `slot` may be another queue's. A no-op in a forked child and after shutdown().
  void free_slot(Slot slot) noexcept {
    if (slot.queue() != id_) [[unlikely]]
      return free_slot_of_other(slot);
    recorder_.slots.drop(slot);
    if (!recorder_.kicked.load(std::memory_order_seq_cst)) [[unlikely]]
      kick_for_free();
  }
  // A body over limits::plan_body_bytes_max, or one plan too many, gives kNoPlan, whose calls fail with kUnsupported.
  PlanId define_plan(uint16_t reads, uint16_t creates, std::span<const std::byte> body);

  // The worker had to copy or cast an output of such a plan's call into what was predicted: the prediction is wrong for
  // this worker, and the plan is to be asked for from then on. Each plan is said once.
  bool any_conformed() const { return conformed_count_.load(std::memory_order_relaxed) != 0; }  // free
  bool take_conformed(PlanId* plan);                                                            // false: none left
  bool conformed(PlanId plan) const;  // ever; takes the queue's lock

  // --- recording (fire and forget) ---------------------------------------------------------------------------------
  // Hot: once per operation; bench/client_bench "call, plan hit". `slots`: the plan's reads then its creates. Slots of
  // other queues are allowed: the recorder adds AFTER in both directions. `scalars`: a multiple of 4 bytes.
  Status call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars) {
    Recorder::Urge urge;
    if (!recorder_.try_call(plan, slots, scalars, &urge)) [[unlikely]]
      return call_slow(plan, slots, scalars);
    if (urge != Recorder::Urge::kNone) [[unlikely]]
      kick(urge);
    return {};
  }
  // The same, and takes the created slots under the same lock: `slots` has the plan's reads in front, the rest is
  // filled in with new slots. They are yours whatever the Status says, but for none slots. `made` as for
  // Recorder::try_call_making(); when it admits nothing, nothing was recorded, the slots are none, and *admitted is
  // false.
  template <typename Made>
  Status call_making(PlanId plan, std::span<Slot> slots, std::span<const std::byte> scalars, Made& made,
                     bool* admitted) {
    Recorder::Urge urge;
    *admitted = true;
    if (!recorder_.try_call_making(plan, slots, scalars, &urge, made)) [[unlikely]]
      return call_making_slow(plan, slots, scalars, made, admitted);
    if (urge != Recorder::Urge::kNone) [[unlikely]] {
      if (urge == Recorder::Urge::kNoRoom) {
        *admitted = false;
      } else {
        kick(urge);
      }
    }
    return {};
  }
  // Where nobody owns slots and there is always room.
  Status call_making(PlanId plan, std::span<Slot> slots, std::span<const std::byte> scalars) {
    NoOwners made;
    bool admitted;
    return call_making(plan, slots, scalars, made, &admitted);
  }
  Status create(Slot slot, uint64_t bytes);
  Status resize(Slot slot, uint64_t bytes);
  // Copies `bytes` before it returns. Blocks only for the bulk window. Interrupted there (kCancelled) the rest goes on
  // in the background from a copy: the session stays whole.
  Status upload(Slot slot, uint64_t offset, const void* data, uint64_t bytes);
  Status command(std::span<const std::byte> body);

  // --- waiting -------------------------------------------------------------------------------------------------------
  // As call(), but the outputs are what the worker says: `report` gets its description. Unused created slots stay
  // yours.
  Status ask(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars, Buffer* report);
  Status ask_command(std::span<const std::byte> body, Buffer* report);
  Status read(Slot slot, uint64_t offset, void* destination, uint64_t bytes);
  // `destination` must stay valid until finish_read() of this ticket returned, or abandon_read(). Several reads started
  // together and then finished cost one wait. finish_read() of a ticket ends it, whatever it returns.
  Result<ReadTicket> start_read(Slot slot, uint64_t offset, void* destination, uint64_t bytes);
  Status finish_read(ReadTicket ticket);
  bool read_done(ReadTicket ticket);  // free: would finish_read() return at once?
  void abandon_read(ReadTicket ticket) noexcept;
  Status synchronize();  // every call recorded before has ended

  // --- events --------------------------------------------------------------------------------------------------------
  Result<CallNumber> record_time();    // the worker notes its clock when it gets there
  bool reached(CallNumber time_call);  // free: has the answer to record_time() arrived? Also true when it never will
  Result<uint64_t> time_ns(CallNumber time_call);  // waits until it has; as often as you like until forget_time()
  void forget_time(CallNumber time_call) noexcept;
  CallNumber last_call() const;                 // the last one recorded
  Status after(Queue& other, CallNumber call);  // later records of this queue run after that call of `other`

 private:
  friend class SessionCore;
  friend class QueueLocks;
  Queue(SessionCore& core, Session& session, QueueId id);

  void kick(Recorder::Urge urge);
  void kick_for_free() noexcept;
  void free_slot_of_other(Slot slot) noexcept;
  Status call_slow(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars);
  template <typename Made>
  [[gnu::noinline]] Status call_making_slow(PlanId plan, std::span<Slot> slots, std::span<const std::byte> scalars,
                                            Made& made, bool* admitted) {
    const auto take = [&](size_t reads) {
      const auto fresh = slots.subspan(reads);
      std::fill(fresh.begin(), fresh.end(), Slot{});
      *admitted = made.admit();
      if (*admitted) recorder_.take_slots(fresh, made);
      return *admitted;
    };
    return call_making_slow(plan, slots, scalars, take);
  }
  // `take(reads)`, under the lock, fills in the new slots; false: there is no room.
  Status call_making_slow(PlanId plan, std::span<Slot> slots, std::span<const std::byte> scalars,
                          const std::function<bool(size_t)>& take);
  Status check_call(PlanId plan, std::span<const Slot> slots, std::span<const std::byte> scalars) const;

  template <typename Append>
  Status record(size_t bytes, std::span<const Slot> named, Append&& append);  // queue_record.h
  template <typename Append>
  Status record_pending(const std::shared_ptr<Pending>& pending, CallNumber* call, size_t bytes,
                        std::span<const Slot> named, Append&& append);
  void come_after(size_t other);
  CallNumber last_call_locked() const;
  Status raise_locked(const std::function<void()>& unlock);
  Status raise_seen(const Status& failure);
  Status unless_ended(Status status) const;
  Status wait_for_room();
  void wake_room_waiters();

  enum class Counted : uint8_t { kAlways, kIfItBlocks };
  Status wait_for(const std::shared_ptr<Pending>& pending, Counted counted);
  Status finish_pending(const std::shared_ptr<Pending>& pending, CallNumber call, Counted counted);
  std::shared_ptr<Pending> find_pending(CallNumber call) const;
  std::shared_ptr<Pending> take_pending(CallNumber call) noexcept;

  // From the loop thread, by SessionCore.
  uint64_t collect(std::vector<Buffer>& frames, uint64_t bytes_max);
  void on_failed(CallNumber call, Status failure);
  void on_conformed(PlanId plan);
  void end_with(Recorder::Trouble trouble, Status why);
  void in_forked_child();
  struct Counts {
    uint64_t calls = 0, plans = 0, frees = 0;
  };
  Counts counts() const;

  SessionCore& core_;
  Session& session_;
  const QueueId id_;
  Recorder recorder_;
  std::atomic<uint32_t> conformed_count_{0};  // how many take_conformed() would give
  struct Rest;
  const std::unique_ptr<Rest> rest_;  // what is not hot
};

class WALDO_API Session {
 public:
  const WorkerInfo& worker() const;
  size_t queue_count() const;
  Queue& queue(size_t index);
  bool lost() const;

 private:
  friend class SessionCore;
  explicit Session(SessionCore& core) : core_(core) {}
  SessionCore& core_;
};

// How `cuda:i` is made. From the environment when nothing was said: WALDO_ON (target, default "local"), WALDO_GPUS,
// WALDO_BROKER (a socket of `waldo run` that lends links). docs/protocol.md says how links are asked for.
struct Options {
  std::string target;            // "": WALDO_ON, else "local"
  int gpus = 0;                  // 0: WALDO_GPUS, else as many as the target has (local: 1)
  std::string frontend;          // "torch"
  std::string frontend_version;  // "2.13.0"
  std::string package_dir;  // where libwaldo.so, the worker's libraries and bin/waldo are; "": next to this library
};

class WALDO_API Runtime {
 public:
  static Runtime& instance();  // never destroyed
  // For a second front end in this process: a worker has one backend, so each front end has sessions of its own.
  static Runtime& second();  // never destroyed
  void set_hooks(Hooks hooks);
  void configure(Options options);  // before the first connect; later: ignored
  bool strict() const;              // WALDO_STRICT=1: no device is an error at first use, not a warning
  // Connects only when the number cannot be known otherwise; 0 when nothing is reachable (one line on stderr says so,
  // once, unless strict()) or CUDA_VISIBLE_DEVICES hides all. May block: release the interpreter's lock first.
  int device_count();
  Status connect_error();  // why device_count() is 0, or ok
  // Hot once connected: one load. Connects at first use (blocks, may be interrupted); the pointer lives for ever.
  Result<Queue*> queue(int device);
  bool connected() const;
  bool in_forked_child() const;  // true in a child of the process that connected
  Counters counters();
  // Flush and GOODBYE, 1 s at most; afterwards every call and deleter is a no-op, and what would have to wait gives
  // kLost. The last of the connected runtimes to end does what WALDO_STATS asks for, for all. From `atexit`.
  void shutdown();

 private:
  explicit Runtime(size_t number);
  struct State;
  State* const state_;  // never freed
};

}  // namespace waldo::client
