// Frames the peer has not acknowledged, kept so that a session can outlive its connection. On resume the peer names the
// last frame it has; everything after it is sent again, in order.
//
// Owns:    the numbered frames (moved in; payloads go to the pool when acknowledged).
// Thread:  the channel's loop only. There is no lock.
// Limit:   none of its own: flow control admits no more than the lanes' windows, and what is here is a part of that.
#pragma once

#include <deque>

#include "base/bytes.h"
#include "base/ids.h"
#include "channel/buffer_pool.h"
#include "wire/frame.h"

namespace waldo::channel {

struct SentFrame {
  wire::FrameHeaderBytes header;
  Buffer payload;
};

class ReplayLog {
 public:
  explicit ReplayLog(BufferPool& pool) : pool_(pool) {}

  // The frame gets the next number, its header is made here. The result stays where it is until acknowledged.
  const SentFrame& append(wire::FrameKind kind, wire::Lane lane, Buffer payload);

  // The peer has everything up to and including `last`. Safe to repeat.
  void acknowledge(FrameNumber last);

  const SentFrame& at(FrameNumber number) const;              // after acknowledged(), up to last()
  FrameNumber last() const { return last_; }                  // the newest number given; 0: none yet
  FrameNumber acknowledged() const { return acknowledged_; }  // the newest one dropped here
  uint64_t bytes() const { return bytes_; }                   // headers and payloads kept

 private:
  BufferPool& pool_;
  std::deque<SentFrame> frames_;  // numbers acknowledged_ + 1 … last_
  FrameNumber last_, acknowledged_;
  uint64_t bytes_ = 0;
};

}  // namespace waldo::channel
