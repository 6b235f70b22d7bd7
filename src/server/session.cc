#include "server/session.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "channel/content.h"
#include "wire/limits.h"

namespace waldo::server {

size_t count_devices(const std::string& info_json) {
  const auto info = nlohmann::json::parse(info_json, nullptr, /*allow_exceptions=*/false);
  if (!info.is_object() || !info.contains("devices") || !info["devices"].is_array()) return 0;
  return std::min<size_t>(info["devices"].size(), limits::queue_count_max);
}

Result<std::unique_ptr<Session>> Session::make(channel::Loop& loop, Backend& backend, FaultPlan faults, OnEnd on_end) {
  const size_t queues = count_devices(backend.info_json());
  std::unique_ptr<Session> session(new Session(loop, queues, std::move(faults), std::move(on_end)));
  for (size_t i = 0; i < queues; ++i) {
    const QueueId id{static_cast<uint16_t>(i)};
    auto queue = backend.open_queue(id);
    if (!queue.ok()) return queue.status().with_context("open device " + std::to_string(i));
    session->executors_.push_back(std::make_unique<Executor>(id, std::move(queue.value()), session->shared_));
  }
  return session;
}

Session::Session(channel::Loop& loop, size_t queue_count, FaultPlan faults, OnEnd on_end)
    : on_end_(std::move(on_end)),
      loop_(loop),
      grace_alarm_(loop),
      channel_(loop, *this),
      uploads_([this](const Credit& credit) { grant(credit); }),
      progress_(queue_count),
      shared_{*this, uploads_, progress_, std::move(faults)} {}

// In order: nothing new begins, everything that waits is released, then the threads that ran are joined.
Session::~Session() {
  ended_ = true;
  for (auto& executor : executors_) executor->stop();
  uploads_.stop();
  progress_.stop();
  channel_.abort(Status(StatusKind::kLost, "the session ends"));  // releases executors that wait to send
  executors_.clear();
  loop_.run_there([this] { grace_alarm_.cancel(); });
}

void Session::keep_for(std::chrono::seconds grace) {
  grace_ = grace;
  if (grace.count() > 0) channel_.watch_peer();
}

Status Session::attach(std::unique_ptr<channel::Link> link, FrameNumber peer_received) {
  Status status(StatusKind::kLost, "the worker ends");
  loop_.run_there([&] {
    const bool was_linked = std::exchange(linked_, true);  // first: the link may be lost again while it is attached
    grace_alarm_.cancel();
    status = channel_.attach(std::move(link), peer_received);
    if (!status.ok() && !was_linked) await_return();
  });
  return status;
}

void Session::on_frame(wire::FrameKind kind, wire::Lane lane, Buffer payload) {
  if (ended_) return;
  if (kind == wire::FrameKind::kRecords && lane == wire::Lane::kRecords) return on_records(std::move(payload));
  if (kind == wire::FrameKind::kUploadData && lane == wire::Lane::kBulk) return on_upload_data(std::move(payload));
  fault(Status(StatusKind::kInvalid, "a " + std::string(wire::name_of(kind)) + " frame is not a client's to send"));
}

void Session::on_records(Buffer payload) {
  uint16_t queue = 0;  // decoded by the executor; only its destination matters here
  if (payload.size() < sizeof(queue)) return fault(Status(StatusKind::kInvalid, "malformed RECORDS: queue"));
  std::memcpy(&queue, payload.data(), sizeof(queue));
  if (queue >= executors_.size()) return fault(Status(StatusKind::kInvalid, "RECORDS for a queue that is not there"));
  executors_[queue]->push(std::move(payload));
}

void Session::on_upload_data(Buffer payload) {
  auto piece = wire::decode_upload_data(payload);
  if (!piece.ok()) return fault(piece.status());
  const auto bytes = channel::find_content(*piece, shared_chunks_.get());
  if (!bytes.ok()) return fault(bytes.status());
  Credit cost{.window_bytes = payload.size(), .shared = {}};
  if (piece->payload_kind == wire::PayloadKind::kSharedMemory) cost.shared.push_back(piece->shared);
  Status added = uploads_.add(piece->upload, piece->total, piece->offset, *bytes, cost);
  if (!added.ok()) return fault(added);
  channel_.give_back(std::move(payload));
}

void Session::on_link_lost(const Status& why) {
  if (grace_.count() == 0) return end(Status(StatusKind::kDisconnected, why.ok() ? "link lost" : why.text()));
  log_info("worker: the link is lost ({}); the session is kept for {} s", why.text(), grace_.count());
  await_return();
}

void Session::await_return() {
  linked_ = false;
  grace_alarm_.arm(loop_.now() + grace_, [this] {
    end(Status(StatusKind::kDisconnected,
               "its client did not come back within " + std::to_string(grace_.count()) + " s"));
  });
}

void Session::on_closed(const Status& why) { end(why); }

Status Session::send(wire::Lane lane, wire::FrameKind kind, Buffer payload) {
  return channel_.send(lane, kind, std::move(payload));
}

void Session::grant(const Credit& credit) {
  for (const wire::SharedPiece piece : credit.shared) shared_chunks_->give_back(piece);
  channel_.consumed(wire::Lane::kBulk, credit.window_bytes);
}

Status Session::send_content(wire::Lane lane, const wire::ReadData& piece) {
  return channel::send_content(channel_, shared_chunks_.get(), lane, wire::FrameKind::kReadData, piece,
                               [this] { return ended_.load(); });
}

void Session::consumed_records(uint64_t bytes) { channel_.consumed(wire::Lane::kRecords, bytes); }

void Session::fault(const Status& why) { end(why.with_context("the client broke the protocol")); }

void Session::end(const Status& why) {
  if (ended_.exchange(true)) return;
  on_end_(why);
}

}  // namespace waldo::server
