// The channel without threads, sockets or clocks: link bytes in, frames out; frames in, link bytes out. Tests and
// simulation drive it directly; channel.cc puts a loop and a link around it.
//
// Owns:   frames to send and sent ones (replay log), the frame being received.
// Thread: one at a time. There is no lock.
// Memory: bounded by the lanes' windows on both sides, plus one frame and a 64 KiB inbox. It does not bound queue():
//         its caller admits (flow.h).
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "channel/buffer_pool.h"
#include "channel/replay_log.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace waldo::channel {

using wire::Lane;

struct Windows {  // bytes sent and not yet consumed by the peer, per lane; both ends must agree
  std::array<uint64_t, wire::lane_count> bytes;
};
extern const Windows default_windows;  // wire/limits.h

class ChannelCore {
 public:
  // What came in, in order. Called from within got().
  class Events {
   public:
    virtual ~Events() = default;
    virtual void on_frame(wire::FrameKind kind, Lane lane, Buffer payload) = 0;
    virtual void on_credit(Lane lane, uint64_t consumed) = 0;  // the peer's session has consumed so much in all
  };

  ChannelCore(Events& events, BufferPool& pool, Windows windows = default_windows);

  // --- to send -------------------------------------------------------------------------------------------------------
  void queue(Lane lane, wire::FrameKind kind, Buffer payload);
  bool idle(Lane lane) const { return lanes_[index(lane)].waiting.empty(); }  // everything queued has its number
  void goodbye(const wire::Goodbye& message);  // after everything queued; nothing may be queued later
  bool goodbye_acknowledged() const;           // the peer has it
  bool goodbye_written() const;

  // --- the link ------------------------------------------------------------------------------------------------------
  // A new link. Frames after `peer_received` will be written again, in order, before anything new. On failure (see
  // Channel::attach) nothing has changed.
  Status attach(FrameNumber peer_received);
  void detach();  // what was half read or half written is forgotten

  // What to write now; empty when there is nothing. Valid and the same until wrote() has taken all of it.
  std::span<const std::span<const std::byte>> to_write();
  void wrote(size_t bytes);
  // Where to put what is read next, never empty. got() says how much that was; a failure (kInvalid) is the peer's fault
  // and final: later bytes are not looked at. So is the peer's goodbye.
  std::span<const std::span<std::byte>> to_read();
  Status got(size_t bytes);
  const std::optional<wire::Goodbye>& peer_goodbye() const { return peer_goodbye_; }

  // --- acknowledgements
  // ------------------------------------------------------------------------------------------------
  void consumed(Lane lane, uint64_t bytes);
  bool ack_due() const;                 // there is something to acknowledge
  bool ack_urgent() const;              // the peer could be held up, or its replay log grow long: now
  void acknowledge();                   // the next to_write() begins with an ACK
  void ping() { ping_wanted_ = true; }  // … or with a PING, which the peer acknowledges
  bool unacknowledged() const { return written_before_ > peer_has_; }  // sent, and the peer has not said it has it

  FrameNumber received() const { return received_; }
  const ReplayLog& log() const { return log_; }

  struct Counters {
    uint64_t frames_sent = 0, frames_received = 0;
    uint64_t acks_sent = 0, acks_received = 0, frames_replayed = 0, pings_received = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  static size_t index(Lane lane) { return static_cast<size_t>(lane); }

  struct Waiting {
    wire::FrameKind kind;
    Buffer payload;
  };
  struct OneLane {
    std::deque<Waiting> waiting;  // not numbered yet
    uint64_t sent = 0;            // payload bytes numbered, in all
    uint64_t peer_consumed = 0;   // of these, given back
    uint64_t received = 0;        // payload bytes delivered, in all
    uint64_t consumed = 0;        // of these, given back by our session
    uint64_t consumed_told = 0;   // as the last ACK said
  };

  void fill_segments();
  void add_segments(const SentFrame& frame);
  bool number_next();  // gives the next waiting frame that a window lets through its number; false: none
  void release();      // drops what is acknowledged and no longer being written

  Status parse_inbox();
  Status take_frame(const wire::FrameHeader& header, std::span<const std::byte> header_bytes, Buffer payload);
  Status take_ack(const wire::Ack& ack);

  Events& events_;
  BufferPool& pool_;
  const Windows windows_;
  std::array<OneLane, wire::lane_count> lanes_;

  // Sending.
  ReplayLog log_;
  FrameNumber next_to_write_{1};  // of the log
  FrameNumber written_before_;    // highest number that was ever put into segments: later times are replays
  FrameNumber peer_has_;          // as its ACKs say; log_ may still hold some of these while they are being written
  std::vector<std::span<const std::byte>> segments_;
  size_t segments_done_ = 0;
  bool ack_wanted_ = false, ping_wanted_ = false;
  Buffer ack_frame_, ping_frame_;
  std::optional<Buffer> goodbye_;  // waits for its number
  FrameNumber goodbye_number_;     // 0: has none

  // Receiving.
  Buffer inbox_;
  size_t inbox_begin_ = 0, inbox_end_ = 0;
  std::optional<wire::FrameHeader> header_;  // of the frame whose payload is being read into payload_
  wire::FrameHeaderBytes header_bytes_;
  Buffer payload_;
  size_t payload_at_ = 0;
  std::array<std::span<std::byte>, 2> read_spaces_;
  FrameNumber received_;
  FrameNumber received_told_;
  uint64_t received_since_ack_ = 0;
  std::optional<wire::Goodbye> peer_goodbye_;
  Status broken_;

  Counters counters_;
};

}  // namespace waldo::channel
