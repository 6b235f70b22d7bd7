#include "channel/core.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "wire/limits.h"

namespace waldo::channel {

using wire::FrameKind;

const Windows default_windows{{limits::records_window_bytes, limits::bulk_window_bytes}};

namespace {

constexpr size_t kInboxBytes = 64 << 10;
// Behind a long payload only the next header is wanted here: the payload after it shall be read where it stays.
constexpr size_t kInboxBytesBehindPayload = 4 << 10;
// One write holds about one bulk chunk, so that records overtake after that much and no later.
constexpr size_t kWriteBytes = limits::chunk_bytes;
constexpr size_t kWriteSegmentsMax = 64;

}  // namespace

ChannelCore::ChannelCore(Events& events, BufferPool& pool, Windows windows)
    : events_(events), pool_(pool), windows_(windows), log_(pool), inbox_(kInboxBytes) {}

// --- to send ---------------------------------------------------------------------------------------------------------

void ChannelCore::queue(Lane lane, FrameKind kind, Buffer payload) {
  WALDO_CHECK(wire::is_numbered(kind) && wire::may_use(kind, lane) && kind != FrameKind::kGoodbye);
  WALDO_CHECK(payload.size() <= limits::frame_payload_bytes_max && !goodbye_ && goodbye_number_.raw == 0);
  lanes_[index(lane)].waiting.push_back({kind, std::move(payload)});
}

void ChannelCore::goodbye(const wire::Goodbye& message) {
  if (!goodbye_ && goodbye_number_.raw == 0) goodbye_ = wire::encode(message);
}

bool ChannelCore::goodbye_acknowledged() const { return goodbye_number_.raw != 0 && peer_has_ >= goodbye_number_; }

bool ChannelCore::goodbye_written() const {
  return goodbye_number_.raw != 0 && next_to_write_ > goodbye_number_ && segments_.empty();
}

bool ChannelCore::number_next() {
  for (const Lane lane : {Lane::kRecords, Lane::kBulk}) {
    OneLane& state = lanes_[index(lane)];
    if (state.waiting.empty()) continue;
    Waiting& next = state.waiting.front();
    if (state.sent + next.payload.size() - state.peer_consumed > windows_.bytes[index(lane)]) continue;
    state.sent += next.payload.size();
    log_.append(next.kind, lane, std::move(next.payload));
    state.waiting.pop_front();
    return true;
  }
  if (goodbye_ && idle(Lane::kRecords) && idle(Lane::kBulk)) {  // takes no window: it must always get through
    log_.append(FrameKind::kGoodbye, Lane::kRecords, std::move(*goodbye_));
    goodbye_.reset();
    goodbye_number_ = log_.last();
    return true;
  }
  return false;
}

// --- writing ---------------------------------------------------------------------------------------------------------

std::span<const std::span<const std::byte>> ChannelCore::to_write() {
  if (segments_.empty()) fill_segments();
  return std::span(segments_).subspan(segments_done_);
}

void ChannelCore::fill_segments() {
  size_t bytes = 0;
  if (ack_wanted_) {
    ack_wanted_ = false;
    OneLane& records = lanes_[index(Lane::kRecords)];
    OneLane& bulk = lanes_[index(Lane::kBulk)];
    ack_frame_ = wire::encode_frame(FrameKind::kAck, Lane::kRecords, FrameNumber{},
                                    wire::encode(wire::Ack{received_, records.consumed, bulk.consumed}));
    received_told_ = received_;
    received_since_ack_ = 0;
    for (OneLane& lane : lanes_) lane.consumed_told = lane.consumed;
    segments_.emplace_back(ack_frame_);
    ++counters_.frames_sent;
    ++counters_.acks_sent;
  }
  if (ping_wanted_) {
    ping_wanted_ = false;
    ping_frame_ = wire::encode_frame(FrameKind::kPing, Lane::kRecords, FrameNumber{}, wire::encode(wire::Ping{}));
    segments_.emplace_back(ping_frame_);
    ++counters_.frames_sent;
  }
  while (bytes < kWriteBytes && segments_.size() + 2 <= kWriteSegmentsMax) {
    if (next_to_write_ > log_.last() && !number_next()) return;
    const SentFrame& frame = log_.at(next_to_write_);
    add_segments(frame);
    bytes += frame.header.size() + frame.payload.size();
    ++counters_.frames_sent;
    if (next_to_write_ <= written_before_) ++counters_.frames_replayed;
    written_before_ = std::max(written_before_, next_to_write_);
    ++next_to_write_.raw;
  }
}

void ChannelCore::add_segments(const SentFrame& frame) {
  segments_.emplace_back(frame.header);
  if (!frame.payload.empty()) segments_.emplace_back(frame.payload);
}

void ChannelCore::wrote(size_t bytes) {
  while (bytes > 0) {
    WALDO_CHECK(segments_done_ < segments_.size());
    auto& segment = segments_[segments_done_];
    const size_t part = std::min(bytes, segment.size());
    segment = segment.subspan(part);
    bytes -= part;
    if (segment.empty()) ++segments_done_;
  }
  if (segments_done_ == segments_.size()) {
    segments_.clear();
    segments_done_ = 0;
    release();
  }
}

void ChannelCore::release() {
  // The peer may acknowledge a frame before we are told that the last of it was written; until then it must stay.
  if (!segments_.empty()) return;
  log_.acknowledge(peer_has_);
  // It may have had more from an older link than its greeting said: what it acknowledges now need not be written again.
  next_to_write_ = std::max(next_to_write_, FrameNumber{peer_has_.raw + 1});
}

Status ChannelCore::attach(FrameNumber peer_received) {
  if (!broken_.ok()) return broken_;
  if (peer_received > written_before_) {
    return Status(StatusKind::kInvalid, fmt::format("the peer claims frame {}, but {} is the last one sent",
                                                    peer_received.raw, written_before_.raw));
  }
  detach();
  // What it said in its greeting may be older than an ACK that still came over the old link.
  peer_has_ = std::max(peer_has_, peer_received);
  release();
  next_to_write_ = FrameNumber{peer_has_.raw + 1};
  if (received_.raw != 0) acknowledge();  // an ACK may have been lost with the old link; credit in particular
  return Status();
}

void ChannelCore::detach() {
  segments_.clear();
  segments_done_ = 0;
  release();
  inbox_begin_ = inbox_end_ = 0;
  header_.reset();
  pool_.give(std::move(payload_));
  payload_ = Buffer();
}

// --- reading ---------------------------------------------------------------------------------------------------------

std::span<const std::span<std::byte>> ChannelCore::to_read() {
  if (!header_) {
    read_spaces_[0] = std::span(inbox_).subspan(inbox_end_);
    return std::span(read_spaces_).first(1);
  }
  read_spaces_[0] = std::span(payload_).subspan(payload_at_);
  read_spaces_[1] = std::span(inbox_).first(kInboxBytesBehindPayload);  // it is empty while a payload is being read
  return read_spaces_;
}

Status ChannelCore::got(size_t bytes) {
  if (!broken_.ok()) return broken_;
  if (header_) {
    const size_t part = std::min(bytes, payload_.size() - payload_at_);
    payload_at_ += part;
    inbox_begin_ = 0;
    inbox_end_ = bytes - part;
    if (payload_at_ < payload_.size()) return Status();
    const wire::FrameHeader header = *header_;
    header_.reset();
    broken_ = take_frame(header, header_bytes_, std::move(payload_));
    payload_ = Buffer();
  } else {
    inbox_end_ += bytes;
  }
  if (broken_.ok()) broken_ = parse_inbox();
  return broken_;
}

Status ChannelCore::parse_inbox() {
  while (!peer_goodbye_ && inbox_end_ - inbox_begin_ >= wire::frame_header_bytes) {
    const auto bytes = std::span<const std::byte>(inbox_).subspan(inbox_begin_, inbox_end_ - inbox_begin_);
    const auto header_bytes = bytes.first(wire::frame_header_bytes);
    const auto rest = bytes.subspan(wire::frame_header_bytes);
    auto header = wire::decode_header(header_bytes);
    if (!header.ok()) return header.status();
    Buffer payload = pool_.take(header->payload_bytes);
    const size_t here = std::min<size_t>(rest.size(), payload.size());
    if (here > 0) std::memcpy(payload.data(), rest.data(), here);
    inbox_begin_ += wire::frame_header_bytes + here;
    if (here < payload.size()) {
      header_ = *header;
      std::copy(header_bytes.begin(), header_bytes.end(), header_bytes_.begin());
      payload_ = std::move(payload);
      payload_at_ = here;
      break;
    }
    WALDO_TRY(take_frame(*header, header_bytes, std::move(payload)));
  }
  // What is left is less than a header.
  std::copy(inbox_.begin() + static_cast<ptrdiff_t>(inbox_begin_), inbox_.begin() + static_cast<ptrdiff_t>(inbox_end_),
            inbox_.begin());
  inbox_end_ -= inbox_begin_;
  inbox_begin_ = 0;
  return Status();
}

Status ChannelCore::take_frame(const wire::FrameHeader& header, std::span<const std::byte> header_bytes,
                               Buffer payload) {
  WALDO_TRY(wire::check_payload(header_bytes, payload));
  ++counters_.frames_received;
  if (header.kind == FrameKind::kAck) {
    ++counters_.acks_received;
    auto ack = wire::decode_ack(payload);
    return ack.ok() ? take_ack(*ack) : ack.status();
  }
  if (header.kind == FrameKind::kPing) {
    acknowledge();
    ++counters_.pings_received;
    return wire::decode_ping(payload).status();
  }
  if (!wire::is_numbered(header.kind)) {
    return Status(StatusKind::kInvalid, fmt::format("{} after the greeting", wire::name_of(header.kind)));
  }
  if (header.number <= received_) return Status();  // sent again because an acknowledgement was lost with a link
  if (header.number.raw != received_.raw + 1) {
    return Status(StatusKind::kInvalid, fmt::format("frame {} follows frame {}", header.number.raw, received_.raw));
  }
  if (header.kind == FrameKind::kGoodbye) {
    auto message = wire::decode_goodbye(payload);
    if (!message.ok()) return message.status();
    received_ = header.number;
    peer_goodbye_ = std::move(*message);
    acknowledge();
    return Status();
  }
  OneLane& lane = lanes_[index(header.lane)];
  if (lane.received + payload.size() - lane.consumed > windows_.bytes[index(header.lane)]) {
    return Status(StatusKind::kInvalid, fmt::format("frame {} passes the window of its lane", header.number.raw));
  }
  lane.received += payload.size();
  received_ = header.number;
  received_since_ack_ += wire::frame_header_bytes + payload.size();
  events_.on_frame(header.kind, header.lane, std::move(payload));
  return Status();
}

Status ChannelCore::take_ack(const wire::Ack& ack) {
  if (ack.received > written_before_) {
    return Status(StatusKind::kInvalid, fmt::format("frame {} acknowledged, but {} is the last one sent",
                                                    ack.received.raw, written_before_.raw));
  }
  const std::array<uint64_t, wire::lane_count> consumed{ack.consumed_records, ack.consumed_bulk};
  for (const Lane lane : {Lane::kRecords, Lane::kBulk}) {
    OneLane& state = lanes_[index(lane)];
    const uint64_t now = consumed[index(lane)];
    if (now > state.sent) return Status(StatusKind::kInvalid, "more consumed than was sent");
    if (now <= state.peer_consumed) continue;
    state.peer_consumed = now;
    events_.on_credit(lane, now);
  }
  peer_has_ = std::max(peer_has_, ack.received);
  release();
  return Status();
}

// --- acknowledgements
// --------------------------------------------------------------------------------------------------

void ChannelCore::consumed(Lane lane, uint64_t bytes) {
  OneLane& state = lanes_[index(lane)];
  WALDO_CHECK(bytes <= state.received - state.consumed);
  state.consumed += bytes;
}

bool ChannelCore::ack_due() const {
  const auto untold = [](const OneLane& lane) { return lane.consumed != lane.consumed_told; };
  return received_ != received_told_ || std::any_of(lanes_.begin(), lanes_.end(), untold);
}

bool ChannelCore::ack_urgent() const {
  if (received_since_ack_ >= limits::ack_every_bytes) return true;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].consumed - lanes_[i].consumed_told >= windows_.bytes[i] / 2) return true;
  }
  return false;
}

void ChannelCore::acknowledge() { ack_wanted_ = true; }

}  // namespace waldo::channel
