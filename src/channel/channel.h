// Numbered, acknowledged frames over one link after another; what makes a session outlive a link.
//
// A channel has two ends, alike but for who opens links. Frames are numbered 1, 2, 3 … per direction over both lanes
// and are delivered to the handler exactly once and in order, whatever links do. Two lanes share a link: records go
// first, bulk fills what is left, one chunk at a time. Sent frames are kept in the replay log until acknowledged.
//
// Flow control: per lane, bytes sent and not yet `consumed()` by the peer's session never pass the lane's window, so
// both sides hold a bounded number of bytes. send() blocks when the window is full (senders are never the loop thread).
//
// Threads: everything from any thread. The handler runs on the loop thread and must not block.
// Ownership: the channel owns the link it is attached to. It never takes the interpreter's lock.
// Fork: in a child every function does nothing (send() returns kLost).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "channel/link.h"
#include "channel/loop.h"
#include "wire/frame.h"

namespace waldo::channel {

using wire::Lane;

inline constexpr const char* silent_peer_text = "the other side is silent";  // why watch_peer() drops a link

class Handler {
 public:
  virtual ~Handler() = default;
  // One numbered frame, once and in order (GOODBYE stays in the channel). `payload` is moved in; call
  // Channel::consumed() with its size once it no longer takes memory (credit goes back to the peer then).
  virtual void on_frame(wire::FrameKind kind, Lane lane, Buffer payload) = 0;
  // The loop is about to write and has room on the records lane: append what waits in outboxes (each entry becomes one
  // RECORDS frame). Called often; must be cheap when there is nothing. Not called while the records window is full, so
  // an outbox bounds itself: who waits for room there waits for the next collect(). It may leave some behind and kick
  // again. Default: nothing.
  virtual void collect(std::vector<Buffer>&) {}
  // The link died. The channel keeps its state and waits for attach(), which may be called from here.
  virtual void on_link_lost(const Status& why) = 0;
  // With watch_peer(), on the loop, once a second while there is a link. Does the session stand still for something of
  // the peer's? Then a silent one is found within 5 s, not 45.
  virtual bool waits_for_peer() { return false; }
  // … and nothing was heard for so long, though something is outstanding. The link is not given up yet.
  virtual void on_silence(Duration) {}
  // Nothing will be delivered or accepted any more. Once; the last callback. Ok: close() of this or the other side ran
  // its course. Else: what the peer or we did wrong, what its goodbye said, or what abort() was given.
  virtual void on_closed(const Status& why) = 0;
};

struct ChannelCounters {  // exact; whole channel, both lanes, protocol overhead included
  uint64_t frames_sent = 0, frames_received = 0;
  uint64_t bytes_sent = 0, bytes_received = 0;  // as written to and read from links, headers and acks included
  uint64_t acks_sent = 0, acks_received = 0;    // also in frames_…
  uint64_t frames_replayed = 0, links = 0;
  uint64_t replay_bytes = 0;  // sent and not acknowledged, now
};

class Channel {
 public:
  Channel(Loop& loop, Handler& handler);  // both must outlive the channel
  // Drops the link; never waits for the network, but for the callback that runs now: not under a lock it may want.
  ~Channel();

  // The newest link wins; an older one is closed. `peer_received` is the last frame number the peer said it has
  // (0 for a new session): later ones in the replay log are sent again, in order, before anything new.
  // kInvalid when the peer claims frames we never sent; kLost after the end. Not from on_frame().
  Status attach(std::unique_ptr<Link> link, FrameNumber peer_received);
  FrameNumber received() const;  // last frame delivered; goes into HELLO or WELCOME of the next link
  // From now on a link whose other end is silent is dropped (on_link_lost): within 5 s when something is outstanding,
  // else within 45 s. Without it only a link that breaks is lost, which is right where the other end is a process of
  // this machine. Both ends need not agree.
  void watch_peer();
  TimePoint heard_at() const;  // when the last byte came, or the last link

  // Queues one frame. Blocks while the lane's window is full; on the loop thread it returns kOverloaded then.
  // kLost after the end. `interrupted`, when given, is asked when it begins to block and every 50 ms from then
  // on; true ends the call with kCancelled, nothing queued.
  Status send(Lane lane, wire::FrameKind kind, Buffer payload, const std::function<bool()>& interrupted = {});
  // Outboxes have data: have collect() called. kSoon: within 100 µs or at the next write; kNow: at once.
  // Cheap: one atomic operation unless the loop really sleeps. Call it after the outbox's lock is released.
  enum class Kick : uint8_t { kSoon, kNow };
  void kick(Kick kick);
  void consumed(Lane lane, uint64_t bytes);

  // A buffer of this size whose pages are warm, content undefined; and where payloads of bulk frames should go when
  // they are done with. Buffers that send() took come back by themselves once acknowledged.
  Buffer take_buffer(size_t bytes);
  void give_back(Buffer buffer);

  // Returns at once. What is queued or in outboxes is sent, then GOODBYE with `why`; on_closed() when the peer has it,
  // or after `timeout`, or at once without a link. Safe to repeat.
  void close(std::chrono::milliseconds timeout, Status why = Status());
  // The end, now, without a word to the peer. `why` (not ok) goes to on_closed(), blocked senders and later ones.
  void abort(Status why);
  ChannelCounters counters() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace waldo::channel
