// What a Session is inside: the channel, the queues on it, and the loop thread's half of every answer.
//
// Owns:    the channel and the queues. In the product it is never destroyed (queues' pointers live for ever); tests do.
// Threads: made by one thread; then any. Handler functions run on the loop thread and never wait, nor take the
//          interpreter's lock.
// Limits:  the outboxes' (recorder.h) and the channel's windows; answers that nobody waits for are dropped.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/blocking.h"
#include "base/os/fork.h"
#include "channel/channel.h"
#include "channel/shared_chunks.h"
#include "client/reconnect.h"
#include "client/session.h"
#include "client/standing.h"
#include "client/wait.h"
#include "wire/messages.h"

namespace waldo::client {

// What the loss of a link means.
enum class LinkLoss : uint8_t {
  kEndsSession,  // the worker's end is gone with it
  kKeepsSession  // somebody calls attach() again: come_back_with()'s reconnector, or a test
};

class SessionCore final : public channel::Handler {
 public:
  SessionCore(channel::Loop& loop, Waits& waits, WorkerInfo worker, LinkLoss link_loss = LinkLoss::kEndsSession);
  ~SessionCore() override;

  // Content travels through this memory too, in both directions; the worker has it. Before the first attach().
  void share(std::unique_ptr<channel::SharedChunks> shared) { shared_chunks_ = std::move(shared); }
  Status attach(std::unique_ptr<channel::Link> link, FrameNumber peer_received);
  FrameNumber received() const { return channel_.received(); }
  // From now on lost links are replaced, and silent ones are found. Before the first attach(); with kKeepsSession.
  void come_back_with(std::unique_ptr<Dialer> dialer, ReconnectSettings settings, ContactBanner::Sink banner);
  // Everything that waits is told `why`, and so is everybody who comes later.
  void lose(const Status& why);
  // Flush and GOODBYE: returns when the worker has them, or after `timeout`.
  void end(std::chrono::milliseconds timeout);

  Session& session() { return session_; }
  const WorkerInfo& worker() const { return worker_; }
  size_t queue_count() const { return queues_.size(); }
  Queue& queue(size_t index) { return *queues_[index]; }
  Recorder& recorder(size_t index) { return queues_[index]->recorder_; }
  Waits& waits() { return waits_; }
  bool lost() const { return lost_.load(std::memory_order_relaxed); }
  bool forked() const { return forked_.load(std::memory_order_relaxed); }

  void kick(Recorder::Urge urge);
  UploadId next_upload() { return UploadId{next_upload_.fetch_add(1, std::memory_order_relaxed)}; }
  Status send_upload(UploadId id, std::span<const std::byte> content);
  void count_ask() { asks_.fetch_add(1, std::memory_order_relaxed); }
  void add_to(Counters& counters) const;  // all but the waits
  channel::ChannelCounters channel_counters() const { return channel_.counters(); }

  static Status forked_status();  // CUDA's own words
  static Status ended_status();

  // In a forked child, where nothing else of ours runs: takes no locks and no memory.
  void in_forked_child();

  // channel::Handler
  void on_frame(wire::FrameKind kind, channel::Lane lane, Buffer payload) override;
  void collect(std::vector<Buffer>& frames) override;
  void on_link_lost(const Status& why) override;
  bool waits_for_peer() override { return standing_threads.load(std::memory_order_relaxed) > 0; }
  void on_silence(Duration) override;
  void on_closed(const Status& why) override;

 private:
  Status take_frame(wire::FrameKind kind, std::span<const std::byte> payload);
  Status take_read_data(const wire::ReadData& data);
  Status take_read_bytes(const wire::ReadData& data, std::span<const std::byte> bytes);
  Result<Queue*> queue_of(QueueId id);
  // The piece of an upload that begins at message.offset; `rest` is what follows from there. How much of it went.
  Result<uint64_t> send_piece(wire::UploadData message, std::span<const std::byte> rest,
                              const std::function<bool()>& interrupted);
  Status gone(const std::string& why) const;
  void close(std::chrono::milliseconds timeout);
  void send_in_background(wire::UploadData message, std::span<const std::byte> rest);

  // Fixed.
  Waits& waits_;
  const WorkerInfo worker_;
  const LinkLoss link_loss_;
  Session session_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::unique_ptr<channel::SharedChunks> shared_chunks_;  // null: all content is inline

  std::atomic<uint64_t> next_upload_{1};
  std::atomic<uint64_t> asks_{0}, conforms_{0};
  std::atomic<bool> lost_{false}, ended_{false}, forked_{false};

  std::mutex mutex_;
  std::condition_variable closed_changed_;
  // mutex_
  bool closed_ = false;             // the channel's last callback was
  bool said_goodbye_ = false;       // … and the worker has our goodbye
  std::vector<Thread> background_;  // uploads that were interrupted

  std::unique_ptr<Reconnector> reconnector_;
  channel::Channel channel_;  // last: its loop calls us until it is gone
};

}  // namespace waldo::client
