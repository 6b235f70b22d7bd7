// Numbered, acknowledged frames over one link after another; what makes a session outlive a link.
//
// A channel has two ends, alike but for who opens links. Frames are numbered 1, 2, 3 … per direction over both lanes
// and are delivered to the handler exactly once and in order, whatever links do. Two lanes share a link: records go
// first, bulk fills what is left, one chunk at a time. Sent frames are kept in the replay log until acknowledged.
//
// Flow control: per lane, bytes sent and not yet `consumed()` by the peer's session never pass the lane's window, so
// both sides hold a bounded number of bytes. send() blocks when the window is full (senders are never the loop thread).
//
// Threads: send(), kick(), consumed(), close() from any thread. The handler runs on the loop thread and must not block.
// Ownership: the channel owns the link it is attached to. It never takes the interpreter's lock.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "channel/link.h"
#include "channel/loop.h"
#include "wire/frame.h"

namespace waldo::channel {

enum class Lane : uint8_t { kRecords = 0, kBulk = 1 };

class Handler {
 public:
  virtual ~Handler() = default;
  // One numbered frame, once and in order. `payload` is moved in; call Channel::consumed() with its size once it no
  // longer takes memory (credit goes back to the peer then).
  virtual void on_frame(wire::FrameKind kind, Lane lane, Buffer payload) = 0;
  // The loop is about to write and has room on the records lane: append what waits in outboxes (each entry becomes one
  // kRecords frame). Called often; must be cheap when there is nothing. Default: nothing.
  virtual void collect(std::vector<Buffer>&) {}
  // The link died. The channel keeps its state and waits for attach().
  virtual void on_link_lost(const Status& why) = 0;
  // The peer broke the protocol, or said goodbye, or close() was called: nothing will be delivered any more. Once.
  virtual void on_closed(const Status& why) = 0;
};

struct ChannelCounters {  // exact; whole channel, both lanes, protocol overhead included
  uint64_t frames_sent = 0, frames_received = 0;
  uint64_t bytes_sent = 0, bytes_received = 0;        // as written to and read from links, headers and acks included
  uint64_t frames_replayed = 0, links = 0;
};

class Channel {
 public:
  Channel(Loop& loop, Handler& handler);  // both must outlive the channel
  ~Channel();                             // drops the link; never waits for the network

  // The newest link wins; an older one is closed. `peer_received` is the last frame number the peer said it has
  // (0 for a new session): later ones in the replay log are sent again, in order, before anything new.
  // kInvalid when the peer claims frames we never sent.
  Status attach(std::unique_ptr<Link> link, FrameNumber peer_received);
  FrameNumber received() const;  // last frame delivered; goes into HELLO or WELCOME of the next link

  // Queues one frame. Blocks while the lane's window is full. kLost after close.
  // `interrupted`, when given, is asked every 50 ms while blocked; true ends the call with kCancelled, nothing queued.
  Status send(Lane lane, wire::FrameKind kind, Buffer payload, const std::function<bool()>& interrupted = {});
  // Outboxes have data: have collect() called. kSoon: within 100 µs or at the next write; kNow: at once.
  enum class Kick : uint8_t { kSoon, kNow };
  void kick(Kick kick);
  void consumed(Lane lane, uint64_t bytes);

  // Sends what is queued, then goodbye, for at most `timeout`; then on_closed(). Safe to repeat.
  void close(std::chrono::milliseconds timeout);
  ChannelCounters counters() const;
};

}  // namespace waldo::channel
