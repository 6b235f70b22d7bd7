#include "client/session_core.h"

#include <fmt/format.h>

#include <cstring>

#include "channel/content.h"
#include "client/queue_record.h"

namespace waldo::client {
namespace {

constexpr uint64_t kCollectBytesMax = 512u << 10;  // from one queue at a time

}  // namespace

// --- the worker's answers --------------------------------------------------------------------------------------------

void SessionCore::on_frame(wire::FrameKind kind, channel::Lane lane, Buffer payload) {
  if (Status status = take_frame(kind, payload); !status.ok()) {
    channel_.abort(status.with_context("the worker broke the protocol"));
    return;
  }
  channel_.consumed(lane, payload.size());
  if (lane == channel::Lane::kBulk) channel_.give_back(std::move(payload));
}

Status SessionCore::take_frame(wire::FrameKind kind, std::span<const std::byte> payload) {
  switch (kind) {
    case wire::FrameKind::kReadData: {
      auto data = wire::decode_read_data(payload);
      return data.ok() ? take_read_data(*data) : data.status();
    }
    case wire::FrameKind::kReport: {
      auto report = wire::decode_call_report(payload);
      if (!report.ok()) return report.status();
      auto queue = queue_of(report->queue);
      if (!queue.ok()) return queue.status();
      const auto pending = (*queue)->find_pending(report->call);
      if (pending == nullptr) return {};  // nobody waits any more
      {
        std::lock_guard lock(pending->mutex);
        pending->report = to_buffer(report->body);
      }
      pending->finish({});
      return {};
    }
    case wire::FrameKind::kDone: {
      auto done = wire::decode_call_done(payload);
      if (!done.ok()) return done.status();
      auto queue = queue_of(done->queue);
      if (!queue.ok()) return queue.status();
      const auto pending = (*queue)->find_pending(done->call);
      if (pending == nullptr) return {};
      {
        std::lock_guard lock(pending->mutex);
        pending->time_ns = done->time_ns;
      }
      pending->finish({});
      return {};
    }
    case wire::FrameKind::kFailed: {
      auto failed = wire::decode_call_failed(payload);
      if (!failed.ok()) return failed.status();
      auto queue = queue_of(failed->queue);
      if (!queue.ok()) return queue.status();
      (*queue)->on_failed(failed->call, wire::to_status(*failed));
      return {};
    }
    case wire::FrameKind::kConformed: {
      auto conformed = wire::decode_call_conformed(payload);
      if (!conformed.ok()) return conformed.status();
      auto queue = queue_of(conformed->queue);
      if (!queue.ok()) return queue.status();
      conforms_.fetch_add(1, std::memory_order_relaxed);
      (*queue)->on_conformed(conformed->plan);
      return {};
    }
    default:
      return Status(StatusKind::kInvalid, fmt::format("unexpected {}", wire::name_of(kind)));
  }
}

Status SessionCore::take_read_data(const wire::ReadData& data) {
  const auto bytes = channel::find_content(data, shared_chunks_.get());
  if (!bytes.ok()) return bytes.status();
  Status status = take_read_bytes(data, *bytes);
  if (data.payload_kind == wire::PayloadKind::kSharedMemory) shared_chunks_->give_back(data.shared);
  return status;
}

// Straight into the caller's memory: the only copy of ours.
Status SessionCore::take_read_bytes(const wire::ReadData& data, std::span<const std::byte> bytes) {
  auto queue = queue_of(data.queue);
  if (!queue.ok()) return queue.status();
  const auto pending = (*queue)->find_pending(data.call);
  if (pending == nullptr) return {};
  bool complete = false;
  {
    std::lock_guard lock(pending->mutex);
    if (pending->done || pending->abandoned) return {};
    if (pending->kind != Pending::Kind::kRead)
      return Status(StatusKind::kInvalid, "READ_DATA for a call that is no read");
    if (data.total != pending->bytes || data.offset != pending->received) {
      return Status(StatusKind::kInvalid, fmt::format("READ_DATA with bytes {} of {} where {} of {} come next",
                                                      data.offset, data.total, pending->received, pending->bytes));
    }
    if (!bytes.empty()) std::memcpy(pending->destination + data.offset, bytes.data(), bytes.size());
    pending->received += bytes.size();
    complete = pending->received == pending->bytes;
  }
  if (complete) pending->finish({});
  return {};
}

Result<Queue*> SessionCore::queue_of(QueueId id) {
  if (id.raw >= queues_.size()) return Status(StatusKind::kInvalid, fmt::format("no queue {}", id.raw));
  return queues_[id.raw].get();
}

void SessionCore::collect(std::vector<Buffer>& frames) {
  bool more = false;
  for (const auto& queue : queues_) more |= queue->collect(frames, kCollectBytesMax) != 0;
  if (more) channel_.kick(channel::Channel::Kick::kNow);
}

// --- beginning and end -----------------------------------------------------------------------------------------------

SessionCore::SessionCore(channel::Loop& loop, Waits& waits, WorkerInfo worker, LinkLoss link_loss)
    : waits_(waits), worker_(std::move(worker)), link_loss_(link_loss), session_(*this), channel_(loop, *this) {
  for (size_t i = 0; i < worker_.devices.size(); ++i) {
    queues_.push_back(std::unique_ptr<Queue>(new Queue(*this, session_, QueueId{static_cast<uint16_t>(i)})));
  }
}

SessionCore::~SessionCore() {
  if (reconnector_) reconnector_->stop();  // while there is a channel to attach to
  lose(ended_status());
  channel_.abort(ended_status());  // ends sends that block
  std::vector<Thread> background;
  {
    std::lock_guard lock(mutex_);
    background.swap(background_);
  }
  for (Thread& thread : background) thread.join();
}

Status SessionCore::attach(std::unique_ptr<channel::Link> link, FrameNumber peer_received) {
  return channel_.attach(std::move(link), peer_received);
}

void SessionCore::come_back_with(std::unique_ptr<Dialer> dialer, ReconnectSettings settings,
                                 ContactBanner::Sink banner) {
  Reconnector::Session session;
  session.received = [this] { return channel_.received(); };
  session.heard_at = [this] { return channel_.heard_at(); };
  session.attach = [this](std::unique_ptr<channel::Link> link, FrameNumber peer_received) {
    return channel_.attach(std::move(link), peer_received);
  };
  session.give_up = [this](const Status& why) { channel_.abort(why); };
  reconnector_ =
      std::make_unique<Reconnector>(std::move(session), std::move(dialer), std::move(settings), std::move(banner));
  channel_.watch_peer();
}

void SessionCore::on_silence(Duration) {
  if (reconnector_) reconnector_->on_silence();
}

void SessionCore::on_link_lost(const Status& why) {
  if (reconnector_) return reconnector_->on_link_lost(why);
  if (link_loss_ == LinkLoss::kKeepsSession) return;
  channel_.abort(why);
}

void SessionCore::on_closed(const Status& why) {
  if (!ended_.load()) {
    lose(gone(why.ok() ? "it said goodbye" : why.text()));
  }
  if (reconnector_) reconnector_->finish();
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    said_goodbye_ = why.ok();
  }
  closed_changed_.notify_all();
}

Status SessionCore::gone(const std::string& why) const {
  return Status(StatusKind::kLost, fmt::format("the worker of `{}` is gone ({})", worker_.target, why));
}

void SessionCore::lose(const Status& why) {
  if (lost_.exchange(true)) return;
  for (const auto& queue : queues_) queue->end_with(Recorder::kLost, why);
}

// In this order: nobody records any more, so that the flush has an end; what waits is let go; then the far side hears
// it.
void SessionCore::end(std::chrono::milliseconds timeout) {
  if (forked()) return;  // its locks may be held for ever
  ended_.store(true);
  for (const auto& queue : queues_) queue->end_with(Recorder::kEnded, ended_status());
  const bool was_lost = lost();
  if (!was_lost) close(timeout);
  if (!reconnector_) return;
  reconnector_->stop();
  if (was_lost) reconnector_->session_is_over();  // nobody is there to be told; asking would start a daemon there
}

void SessionCore::close(std::chrono::milliseconds timeout) {
  channel_.close(timeout);
  constexpr std::chrono::milliseconds kLoopGrace{100};  // the loop keeps the time; a busy machine may be a little late
  std::unique_lock lock(mutex_);
  block_for(lock, closed_changed_, timeout + kLoopGrace, [this] { return closed_; });
  const bool both_know = said_goodbye_;
  lock.unlock();
  if (both_know && reconnector_) reconnector_->session_is_over();
}

void SessionCore::in_forked_child() {
  forked_.store(true);
  for (const auto& queue : queues_) queue->in_forked_child();
}

// --- small things ----------------------------------------------------------------------------------------------------

void SessionCore::kick(Recorder::Urge urge) {
  channel_.kick(urge == Recorder::Urge::kNow ? channel::Channel::Kick::kNow : channel::Channel::Kick::kSoon);
}

void SessionCore::add_to(Counters& counters) const {
  for (const auto& queue : queues_) {
    const auto counts = queue->counts();
    counters.calls += counts.calls;
    counters.plans += counts.plans;
    counters.frees += counts.frees;
  }
  const auto sums = channel_.counters();
  counters.messages += sums.frames_sent + sums.frames_received;
  counters.bytes_up += sums.bytes_sent;
  counters.bytes_down += sums.bytes_received;
  if (shared_chunks_) {
    counters.bytes_up += shared_chunks_->bytes_put();
    counters.bytes_down += shared_chunks_->bytes_got();
  }
  counters.asks += asks_.load(std::memory_order_relaxed);
  counters.conforms += conforms_.load(std::memory_order_relaxed);
}

Status SessionCore::forked_status() {
  return Status(
      StatusKind::kInvalid,
      "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' "
      "start method");
}

Status SessionCore::ended_status() {
  return Status(StatusKind::kLost, "the session has ended (the program is exiting)");
}

const WorkerInfo& Session::worker() const { return core_.worker(); }
size_t Session::queue_count() const { return core_.queue_count(); }
Queue& Session::queue(size_t index) { return core_.queue(index); }
bool Session::lost() const { return core_.lost(); }

}  // namespace waldo::client
