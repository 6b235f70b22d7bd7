// Runs one queue's records on its backend, in the order they were recorded, on a thread of its own.
//
// Failure: stops at the first call that fails, says FAILED once, and drops numbered records until RESUME_AT: a dropped
// record's new slots are poisoned, its upload is thrown away, its number is counted. FREE, DEFINE_PLAN and AFTER act
// even then. A record that breaks the protocol ends the session through `fault()` and stops the executor.
// A device that answers later (backend.h) may fail when later calls have run already: the queue stops then.
//
// Threads: push() from the loop; everything else on the executor's own thread. stop() from any.
// Memory:  the frames in the inbox; the channel's records window bounds them, credit goes back when a frame has run.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "base/blocking.h"
#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "server/backend.h"
#include "server/fault.h"
#include "server/progress.h"
#include "server/uploads.h"
#include "wire/frame.h"
#include "wire/messages.h"
#include "wire/records.h"

namespace waldo::server {

// What an executor needs of its session. Any executor's thread.
class ExecutorHost {
 public:
  virtual ~ExecutorHost() = default;
  // Blocks for flow control. Not ok: the session ends.
  virtual Status send(wire::Lane lane, wire::FrameKind kind, Buffer payload) = 0;
  // The same for one piece of content, its bytes inline: in which way they travel is the host's choice.
  virtual Status send_content(wire::Lane lane, const wire::ReadData& piece) {
    return send(lane, wire::FrameKind::kReadData, wire::encode(piece));
  }
  virtual void consumed_records(uint64_t bytes) = 0;
  virtual void fault(const Status& why) = 0;  // the peer broke the protocol
};

// What the executors of one session share; outlives them.
struct ExecutorShared {
  ExecutorHost& host;
  Uploads& uploads;
  Progress& progress;
  FaultPlan faults;
};

class Executor {
 public:
  Executor(QueueId queue, std::unique_ptr<QueueBackend> backend, ExecutorShared& shared);
  ~Executor();  // stop(), then joins: waits for a call that is running

  void push(Buffer records_payload);  // of a RECORDS frame for this queue
  void stop();                        // what has not begun never will

 private:
  struct PlanShape {
    uint16_t reads = 0, creates = 0;
    bool defined = false;
  };

  void run();
  Status run_frame(std::span<const std::byte> payload);  // not ok: the session is over
  Status run_record(const wire::Record& record);
  Status run_unnumbered(const wire::Record& record);
  Status run_numbered(const wire::Record& record);  // the call's own failure, or the session's (session_over_)
  Status run_call(const wire::Record& record);
  Status run_read(const wire::Record& record);
  Status answer(wire::ReadData piece, Slot slot, uint64_t offset);
  Status answer_later(const wire::ReadData& first, Slot slot, uint64_t offset);
  Status send_chunk(wire::ReadData& piece, std::span<const std::byte> chunk);  // any thread, as send_piece
  Status send_piece(wire::ReadData& piece, std::span<const std::byte> bytes);
  Status run_mark(const wire::Record& record);
  Status run_upload(const wire::Record& record);
  Status run_command(const wire::Record& record);
  Status drop(const wire::Record& record);
  Status drop_upload(const wire::Record& record);
  void poison_if_empty(Slot slot);
  Status check_call(const wire::Record& record) const;
  Status fail_call(const wire::Record& record, Status why);
  void failed_later(CallNumber call, Status why);  // any thread
  Status tell_late_failure();

  template <typename Message>
  Status send(wire::FrameKind kind, const Message& message);
  Status over(Status why);  // marks `why` as the session's end

  const QueueId queue_;
  std::unique_ptr<QueueBackend> backend_;  // fixed until the destructor
  ExecutorShared& shared_;

  // The executor's thread only.
  std::vector<PlanShape> plans_;
  CallNumber next_call_{1};
  Status failure_;             // not ok: dropping; created slots are poisoned with it
  bool session_over_ = false;  // the Status on its way up ends the session, not the call

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::deque<Buffer> inbox_;
  std::deque<std::pair<CallNumber, Status>> late_failures_;
  bool stopped_ = false;

  Thread thread_;  // last: starts when everything else is there
};

}  // namespace waldo::server
