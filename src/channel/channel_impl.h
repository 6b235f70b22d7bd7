// The inside of a Channel: a ChannelCore on a Loop, with a Link that comes and goes. Only channel.cc and
// channel_impl.cc know it.
//
// Everything the loop does happens in a *turn*: handle what came, then pump (collect, write, read), then settle into a
// state that says what a kick from another thread has to do. docs/threads.md draws the states.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "base/os/fork.h"
#include "channel/buffer_pool.h"
#include "channel/channel.h"
#include "channel/core.h"
#include "channel/flow.h"

namespace waldo::channel {

class Channel::Impl final : public ChannelCore::Events, public std::enable_shared_from_this<Channel::Impl> {
 public:
  Impl(Loop& loop, Handler& handler);

  // Any thread.
  Status send(Lane lane, wire::FrameKind kind, Buffer payload, const std::function<bool()>& interrupted);
  void kick(Kick kick);
  void consumed(Lane lane, uint64_t bytes);
  FrameNumber received() const { return FrameNumber{received_.load()}; }
  TimePoint heard_at() const { return TimePoint(Duration(heard_at_.load())); }
  ChannelCounters counters() const;
  BufferPool& pool() { return pool_; }
  Loop& loop() { return loop_; }
  bool in_child() const { return fork_.in_child(); }

  // Loop thread.
  Status attach(std::unique_ptr<Link> link, FrameNumber peer_received);
  void watch_peer();
  void close(std::chrono::milliseconds timeout, const Status& why);
  void abort(Status why);
  void drop();  // the Channel is being destroyed: no callback from now on

 private:
  // What the loop does about work that others bring.
  enum State : uint32_t {  // unscoped: it lives in an atomic number

    kAsleep,   // nothing: whoever has something posts a turn
    kResting,  // an alarm within 2 ms will acknowledge; records must not wait for that and post a turn
    kPolling,  // an alarm within 100 µs will collect; only what cannot wait posts a turn
    kWriting,  // a write is under way; nothing can be sent before it ends, and its end is a turn
    kKicked,   // a turn is posted
    kRunning,  // in a turn; what comes now may have been missed by it
    kAgain,    // in a turn that will pump once more
    kEnded,
  };
  enum class Need : uint8_t { kAcknowledge, kSoon, kNow };

  void on_frame(wire::FrameKind kind, Lane lane, Buffer payload) override;
  void on_credit(Lane lane, uint64_t consumed) override;

  void need(Need need);
  template <typename Work>
  void turn(Work&& work);
  void pump();
  void take_consumed();
  void collect();
  void start_write();
  void start_read();
  void on_read(const Status& status, size_t bytes);
  void on_written(const Status& status, size_t bytes);
  void on_bytes(size_t bytes);
  State settle();
  void arm(TimePoint when);  // at the latest; one that is set for earlier stays, because setting costs a system call
  void arm_heartbeat();
  void heartbeat();
  void lose_link(const Status& why);
  void end(const Status& why);
  void publish();

  // Fixed.
  Loop& loop_;
  Handler& handler_;
  const os::ForkGuard fork_;

  // Any thread.
  BufferPool pool_;
  SendGate gate_;
  std::atomic<uint32_t> state_{kAsleep};
  std::atomic<uint64_t> received_{0};
  std::atomic<Duration::rep> heard_at_{0};
  std::array<std::atomic<uint64_t>, wire::lane_count> consumed_{};       // by our session, in all
  std::array<std::atomic<uint64_t>, wire::lane_count> consumed_told_{};  // about what the last ACK said
  struct {
    std::atomic<uint64_t> frames_sent{0}, frames_received{0}, bytes_sent{0}, bytes_received{0}, acks_sent{0},
        acks_received{0}, frames_replayed{0}, links{0}, replay_bytes{0};
  } counters_;

  // Loop.
  ChannelCore core_;
  std::unique_ptr<Link> link_;
  bool reading_ = false, writing_ = false;
  bool broken_ = false;    // the link cannot be written any more, but may still have something to read
  wire::Goodbye goodbye_;  // when closing
  bool in_turn_ = false, in_core_ = false;
  bool closing_ = false, outboxes_empty_ = false, ended_ = false, dropped_ = false;
  std::array<uint64_t, wire::lane_count> consumed_taken_{};
  std::vector<Buffer> batch_;
  std::vector<SendGate::Item> items_;
  TimePoint active_at_, collected_at_;
  bool active_ = false, collected_ = false;               // in this turn
  bool watching_ = false, heard_ = false, said_ = false;  // heard and said since the last heartbeat
  std::optional<TimePoint> pinged_at_;                    // and nothing was heard since
  TimePoint heartbeat_at_;
  Timer alarm_, close_alarm_, broken_alarm_, heartbeat_alarm_;
  TimePoint alarm_at_;
};

}  // namespace waldo::channel
