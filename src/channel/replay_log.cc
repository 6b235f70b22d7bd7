#include "channel/replay_log.h"

#include "base/check.h"

namespace waldo::channel {

const SentFrame& ReplayLog::append(wire::FrameKind kind, wire::Lane lane, Buffer payload) {
  ++last_.raw;
  bytes_ += wire::frame_header_bytes + payload.size();
  frames_.push_back({wire::encode_header(kind, lane, last_, payload), std::move(payload)});
  return frames_.back();
}

void ReplayLog::acknowledge(FrameNumber last) {
  WALDO_CHECK(last <= last_);
  while (acknowledged_ < last) {
    Buffer& payload = frames_.front().payload;
    bytes_ -= wire::frame_header_bytes + payload.size();
    pool_.give(std::move(payload));
    frames_.pop_front();
    ++acknowledged_.raw;
  }
}

const SentFrame& ReplayLog::at(FrameNumber number) const {
  WALDO_CHECK(number > acknowledged_ && number <= last_);
  return frames_[number.raw - acknowledged_.raw - 1];
}

}  // namespace waldo::channel
