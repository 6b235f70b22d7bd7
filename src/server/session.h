// The worker's end of one session: takes frames from its channel and gives them to uploads and executors.
//
// Owns:    the channel, the queues' executors, what waits for uploads. The backend must outlive it.
// Threads: made, attached and destroyed on any one thread that is not the loop; the channel calls on the loop thread,
//          executors on theirs. `on_end` is called once, on any thread, and must not destroy the session there.
// Ends:    the client said goodbye, broke the protocol, or lost its link and did not come back within the grace. While
//          it is away everything stays as it is; what it may make us hold is what the windows allow (docs/memory.md).
//          Destroying it waits for calls that are running; a worker does not, it just exits.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "channel/channel.h"
#include "channel/shared_chunks.h"
#include "server/backend.h"
#include "server/executor.h"
#include "wire/messages.h"

namespace waldo::server {

class Session final : private channel::Handler, private ExecutorHost {
 public:
  using OnEnd = std::function<void(const Status& why)>;  // kOk: goodbye. kDisconnected: lost. kInvalid: its fault

  // Opens a queue per device the backend has. `loop` must outlive the session.
  static Result<std::unique_ptr<Session>> make(channel::Loop& loop, Backend& backend, FaultPlan faults, OnEnd on_end);
  ~Session() override;

  // The first link, or a later one: the newest wins. `peer_received` is from its HELLO.
  Status attach(std::unique_ptr<channel::Link> link, FrameNumber peer_received);
  // Content travels through this memory too, in both directions. Before the first attach().
  void share(std::unique_ptr<channel::SharedChunks> shared) { shared_chunks_ = std::move(shared); }
  // How long a lost client's session is kept, and that a silent link counts as lost. Before the first attach().
  // Default: the session ends with its link.
  void keep_for(std::chrono::seconds grace);
  // Says goodbye with this reason (not ok), then `on_end`.
  void close(const Status& why, std::chrono::milliseconds timeout) { channel_.close(timeout, why); }
  FrameNumber received() const { return channel_.received(); }  // goes into WELCOME
  size_t queue_count() const { return progress_.queue_count(); }

 private:
  Session(channel::Loop& loop, size_t queue_count, FaultPlan faults, OnEnd on_end);

  // channel::Handler, on the loop thread.
  void on_frame(wire::FrameKind kind, wire::Lane lane, Buffer payload) override;
  void on_link_lost(const Status& why) override;
  void on_closed(const Status& why) override;

  // ExecutorHost, on executors' threads.
  Status send(wire::Lane lane, wire::FrameKind kind, Buffer payload) override;
  Status send_content(wire::Lane lane, const wire::ReadData& piece) override;
  void consumed_records(uint64_t bytes) override;
  void fault(const Status& why) override;

  void on_records(Buffer payload);
  void on_upload_data(Buffer payload);
  void grant(const Credit& credit);
  void end(const Status& why);  // once; later ones are ignored
  void await_return();

  const OnEnd on_end_;
  std::atomic<bool> ended_{false};
  channel::Loop& loop_;
  std::chrono::seconds grace_{0};
  bool linked_ = false;                                   // loop
  channel::Timer grace_alarm_;                            // loop
  std::unique_ptr<channel::SharedChunks> shared_chunks_;  // null: all content is inline
  channel::Channel channel_;
  Uploads uploads_;
  Progress progress_;
  ExecutorShared shared_;
  std::vector<std::unique_ptr<Executor>> executors_;  // by queue
};

// How many devices info_json() lists; at most queue_count_max.
size_t count_devices(const std::string& info_json);

}  // namespace waldo::server
