#include "channel/channel_impl.h"

#include "wire/limits.h"

namespace waldo::channel {

using wire::FrameKind;

namespace {

// After records were collected the loop looks again this often, without being woken: a program that records all the
// time pays no system call for it and its records travel in batches.
constexpr std::chrono::microseconds kPollEvery(100);
// … and gives that up after so long without any. Also how long a quiet channel waits before it acknowledges.
constexpr std::chrono::microseconds kQuietAfter(2000);
// A link that cannot be written any more is read for so long at most: what has come may be the reason, or the goodbye.
constexpr std::chrono::milliseconds kReadAfterBroken(500);

// A peer that is silent. Whoever receives says something once a second, so a slow link is not taken for a dead one.
constexpr std::chrono::seconds kHeartbeatEvery(1);
constexpr std::chrono::seconds kPingAfter(1), kPingAfterIdle(15);  // without a byte from it
constexpr std::chrono::milliseconds kAnswerMax(2900);  // … and then: 1 s + 1 s of heartbeat + this stay below 5 s
constexpr std::chrono::seconds kSilenceShown(2);

constexpr Lane kLanes[] = {Lane::kRecords, Lane::kBulk};

}  // namespace

Channel::Impl::Impl(Loop& loop, Handler& handler)
    : loop_(loop),
      handler_(handler),
      core_(*this, pool_),
      alarm_(loop),
      close_alarm_(loop),
      broken_alarm_(loop),
      heartbeat_alarm_(loop) {}

// --- any thread ------------------------------------------------------------------------------------------------------

Status Channel::Impl::send(Lane lane, FrameKind kind, Buffer payload, const std::function<bool()>& interrupted) {
  WALDO_CHECK(wire::may_use(kind, lane) && payload.size() <= limits::frame_payload_bytes_max);
  const auto wait = loop_.on_loop_thread() ? SendGate::Wait::kNever : SendGate::Wait::kBlock;
  WALDO_TRY(gate_.push({lane, kind, std::move(payload)}, wait, interrupted));
  need(Need::kNow);
  return Status();
}

void Channel::Impl::kick(Kick kick) { need(kick == Kick::kNow ? Need::kNow : Need::kSoon); }

void Channel::Impl::consumed(Lane lane, uint64_t bytes) {
  const auto i = static_cast<size_t>(lane);
  const uint64_t total = consumed_[i].fetch_add(bytes) + bytes;
  const bool urgent = total - consumed_told_[i].load(std::memory_order_relaxed) >= default_windows.bytes[i] / 2;
  need(urgent ? Need::kNow : Need::kAcknowledge);
}

// Hot: once per recorded call. Reading with a read-modify-write orders it after the caller's own writes: either we see
// that the loop has settled, or the loop's turn sees what we wrote.
void Channel::Impl::need(Need need) {
  uint32_t state = state_.fetch_add(0);
  while (true) {
    switch (state) {
      case kEnded:
      case kWriting:
      case kKicked:
      case kAgain:
        return;
      case kRunning:
        if (state_.compare_exchange_weak(state, kAgain)) return;
        continue;
      case kPolling:
        if (need != Need::kNow) return;
        break;
      case kResting:
        if (need == Need::kAcknowledge) return;
        break;
      case kAsleep:
        break;
    }
    if (state_.compare_exchange_weak(state, kKicked)) break;
  }
  loop_.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->turn([] {});
  });
}

ChannelCounters Channel::Impl::counters() const {
  ChannelCounters result;
  result.frames_sent = counters_.frames_sent.load();
  result.frames_received = counters_.frames_received.load();
  result.bytes_sent = counters_.bytes_sent.load();
  result.bytes_received = counters_.bytes_received.load();
  result.acks_sent = counters_.acks_sent.load();
  result.acks_received = counters_.acks_received.load();
  result.frames_replayed = counters_.frames_replayed.load();
  result.links = counters_.links.load();
  result.replay_bytes = counters_.replay_bytes.load();
  return result;
}

void Channel::Impl::publish() {
  const auto& counters = core_.counters();
  counters_.frames_sent.store(counters.frames_sent, std::memory_order_relaxed);
  counters_.frames_received.store(counters.frames_received, std::memory_order_relaxed);
  counters_.replay_bytes.store(core_.log().bytes(), std::memory_order_relaxed);
  counters_.acks_sent.store(counters.acks_sent, std::memory_order_relaxed);
  counters_.acks_received.store(counters.acks_received, std::memory_order_relaxed);
  counters_.frames_replayed.store(counters.frames_replayed, std::memory_order_relaxed);
  received_.store(core_.received().raw);
}

// --- a turn of the loop ----------------------------------------------------------------------------------------------

template <typename Work>
void Channel::Impl::turn(Work&& work) {
  if (in_turn_) return work();  // a callback of ours called back; the turn it is in goes on afterwards
  in_turn_ = true;
  active_ = collected_ = false;
  state_.exchange(kRunning);
  work();
  while (true) {
    pump();
    uint32_t running = kRunning;
    if (state_.compare_exchange_strong(running, settle())) break;
    state_.exchange(kRunning);  // somebody brought something while we looked elsewhere
  }
  in_turn_ = false;
}

void Channel::Impl::pump() {
  if (ended_) return;
  take_consumed();
  gate_.take(items_);
  for (auto& item : items_) core_.queue(item.lane, item.kind, std::move(item.payload));
  // While a write is under way records gather in their outboxes: the next write takes them all as one frame.
  if (!writing_) collect();
  if (ended_) return;
  if (closing_ && outboxes_empty_) core_.goodbye(goodbye_);
  if (core_.ack_urgent()) core_.acknowledge();
  start_write();
  start_read();
  publish();
}

void Channel::Impl::take_consumed() {
  for (const Lane lane : kLanes) {
    const auto i = static_cast<size_t>(lane);
    const uint64_t total = consumed_[i].load();
    if (total == consumed_taken_[i]) continue;
    core_.consumed(lane, total - consumed_taken_[i]);
    consumed_taken_[i] = total;
    active_ = true;
  }
}

void Channel::Impl::collect() {
  if (outboxes_empty_ || !core_.idle(Lane::kRecords) || gate_.full(Lane::kRecords)) return;
  batch_.clear();
  handler_.collect(batch_);
  if (ended_) return;
  for (auto& payload : batch_) {
    gate_.admit(Lane::kRecords, payload.size());
    core_.queue(Lane::kRecords, FrameKind::kRecords, std::move(payload));
  }
  if (!batch_.empty()) collected_ = active_ = true;
  if (batch_.empty() && closing_) outboxes_empty_ = true;
}

void Channel::Impl::start_write() {
  if (link_ == nullptr || writing_ || broken_) return;
  const auto bytes = core_.to_write();
  if (bytes.empty()) return;
  writing_ = true;
  for (size_t i = 0; i < wire::lane_count; ++i) consumed_told_[i].store(consumed_taken_[i], std::memory_order_relaxed);
  publish();
  link_->async_write(bytes, [weak = weak_from_this()](const Status& status, size_t bytes) {
    if (const auto self = weak.lock()) self->turn([&] { self->on_written(status, bytes); });
  });
}

void Channel::Impl::start_read() {
  if (link_ == nullptr || reading_) return;
  reading_ = true;
  link_->async_read(core_.to_read(), [weak = weak_from_this()](const Status& status, size_t bytes) {
    if (const auto self = weak.lock()) self->turn([&] { self->on_read(status, bytes); });
  });
}

// How the loop waits for what comes next.
Channel::Impl::State Channel::Impl::settle() {
  if (ended_) return kEnded;
  const TimePoint now = loop_.now();
  if (std::exchange(active_, false)) active_at_ = now;
  if (std::exchange(collected_, false)) collected_at_ = now;
  if (writing_) return kWriting;
  if (now - collected_at_ < kQuietAfter) {
    arm(now + kPollEvery);
    return kPolling;
  }
  if (link_ != nullptr && core_.ack_due()) {
    if (now - active_at_ < kQuietAfter) {
      arm(active_at_ + kQuietAfter);
      return kResting;
    }
    core_.acknowledge();
    start_write();
    publish();
    if (writing_) return kWriting;
  }
  return kAsleep;
}

void Channel::Impl::arm(TimePoint when) {
  if (alarm_.armed() && alarm_at_ <= when) return;
  alarm_at_ = when;
  alarm_.arm(when, [this] {
    const auto self = shared_from_this();  // a callback may destroy the Channel
    turn([] {});
  });
}

// --- the link
// ----------------------------------------------------------------------------------------------------------

Status Channel::Impl::attach(std::unique_ptr<Link> link, FrameNumber peer_received) {
  WALDO_CHECK(!in_core_);  // not from on_frame()
  Status status;
  turn([&] {
    if (ended_) {
      status = Status(StatusKind::kLost, "the channel has ended");
      return;
    }
    status = core_.attach(peer_received);
    if (!status.ok()) return;
    link_ = std::move(link);  // closes the older one; nothing of it calls back
    reading_ = writing_ = broken_ = false;
    broken_alarm_.cancel();
    counters_.links.fetch_add(1);
    heard_at_.store(loop_.now().time_since_epoch().count());
    pinged_at_.reset();
    arm_heartbeat();
    link_->start(loop_);
    active_ = true;
  });
  return status;
}

void Channel::Impl::on_written(const Status& status, size_t bytes) {
  writing_ = false;
  if (!status.ok()) {
    // The peer may have closed after it wrote: nothing that has arrived is given up with the link.
    broken_ = true;
    broken_alarm_.arm(loop_.now() + kReadAfterBroken, [this, status] {
      const auto self = shared_from_this();
      turn([&] { lose_link(status); });
    });
    return;
  }
  counters_.bytes_sent.fetch_add(bytes, std::memory_order_relaxed);
  core_.wrote(bytes);
  active_ = said_ = true;
}

void Channel::Impl::on_read(const Status& status, size_t bytes) {
  reading_ = false;
  if (!status.ok()) return lose_link(status);
  counters_.bytes_received.fetch_add(bytes, std::memory_order_relaxed);
  heard_at_.store(loop_.now().time_since_epoch().count(), std::memory_order_relaxed);
  const uint64_t pings_before = core_.counters().pings_received;
  active_ = heard_ = true;
  in_core_ = true;
  const Status malformed = core_.got(bytes);
  in_core_ = false;
  // A peer that only asks may not hear us.
  const uint64_t pings = core_.counters().pings_received - pings_before;
  if (bytes != pings * wire::frame_header_bytes) pinged_at_.reset();
  publish();
  if (ended_) return;
  if (const auto& goodbye = core_.peer_goodbye()) {
    start_write();  // the acknowledgement, if it goes out without waiting
    if (goodbye->kind == StatusKind::kOk) return end(Status());
    return end(Status(goodbye->kind, "the other side gave up: " + goodbye->text));
  }
  if (!malformed.ok()) {
    core_.goodbye({malformed.kind(), malformed.text()});  // best effort, for the other side's log
    start_write();
    return end(malformed.with_context("the other side broke the protocol"));
  }
  if (closing_ && core_.goodbye_acknowledged()) end(Status());
}

void Channel::Impl::on_frame(FrameKind kind, Lane lane, Buffer payload) {
  if (ended_) return;
  publish();
  handler_.on_frame(kind, lane, std::move(payload));
}

void Channel::Impl::on_credit(Lane lane, uint64_t consumed) { gate_.set_consumed(lane, consumed); }

void Channel::Impl::watch_peer() {
  watching_ = true;
  arm_heartbeat();
}

void Channel::Impl::arm_heartbeat() {
  if (!watching_ || ended_ || link_ == nullptr) return;
  heartbeat_at_ = loop_.now();
  heartbeat_alarm_.arm(heartbeat_at_ + kHeartbeatEvery, [this] {
    const auto self = shared_from_this();  // a callback may destroy the Channel
    turn([this] { heartbeat(); });
  });
}

void Channel::Impl::heartbeat() {
  if (ended_ || link_ == nullptr) return;
  const TimePoint now = loop_.now();
  const Duration silence = now - heard_at();
  // We stood still ourselves (stopped, or a machine that was busy): what the peer said meanwhile is not read yet.
  if (now - heartbeat_at_ > 2 * kHeartbeatEvery) pinged_at_.reset();
  const bool outstanding = core_.unacknowledged() || handler_.waits_for_peer();
  if (ended_) return;
  if (pinged_at_ && now - *pinged_at_ >= kAnswerMax) {
    return lose_link(Status(StatusKind::kDisconnected, silent_peer_text));
  }
  if (!pinged_at_ && silence >= (outstanding ? kPingAfter : kPingAfterIdle)) {
    pinged_at_ = now;
    core_.ping();
  }
  if (pinged_at_ && outstanding && silence >= kSilenceShown) handler_.on_silence(silence);
  if (heard_ && !said_) core_.acknowledge();
  heard_ = said_ = false;
  arm_heartbeat();
}

void Channel::Impl::lose_link(const Status& why) {
  link_.reset();
  heartbeat_alarm_.cancel();
  broken_alarm_.cancel();
  reading_ = writing_ = broken_ = false;
  const bool said = core_.goodbye_written();
  core_.detach();
  if (closing_) return end(said ? Status() : why);
  handler_.on_link_lost(why);
}

// --- the end
// -----------------------------------------------------------------------------------------------------------

void Channel::Impl::close(std::chrono::milliseconds timeout, const Status& why) {
  turn([&] {
    if (ended_ || closing_) return;
    closing_ = true;
    goodbye_ = {why.kind(), why.text()};
    gate_.close(Status(StatusKind::kLost, "the channel is closed"));
    if (link_ == nullptr) return end(Status(StatusKind::kDisconnected, "closed without a link"));
    close_alarm_.arm(loop_.now() + timeout, [this] {
      const auto self = shared_from_this();
      turn([&] { end(Status(StatusKind::kDisconnected, "the other side did not answer the goodbye in time")); });
    });
  });
}

void Channel::Impl::abort(Status why) {
  turn([&] { end(why); });
}

void Channel::Impl::drop() {
  dropped_ = true;
  turn([&] { end(Status(StatusKind::kLost, "the channel was destroyed")); });
}

// Order: nobody is admitted any more; the link and the alarms are gone, so nothing calls in; then the handler hears it.
void Channel::Impl::end(const Status& why) {
  if (ended_) return;
  ended_ = true;
  gate_.close(Status(StatusKind::kLost, why.ok() ? "the session has ended" : why.text()));
  link_.reset();
  alarm_.cancel();
  close_alarm_.cancel();
  broken_alarm_.cancel();
  heartbeat_alarm_.cancel();
  publish();
  if (!dropped_) handler_.on_closed(why);
}

}  // namespace waldo::channel
