// What the channel costs: contents, small records, and one round trip, between two loops over a socket pair.
//
//   build/dev/bench/channel_pump
//
// "copy" is memcpy of the same 256 MiB into memory that is warm: the machine's own speed for moving bytes once. A pump
// moves each byte five times (program to chunk, chunk to kernel, kernel to chunk, chunk to where it belongs, and a
// checksum on both sides).
#include <benchmark/benchmark.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/os/socket.h"
#include "channel/channel.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/records.h"

namespace waldo::channel {
namespace {

constexpr size_t kBytes = 256u << 20;
constexpr uint64_t kCalls = 1'000'000;
constexpr QueueId kQueue{0};

// The far side: puts contents where they belong, walks records, answers SYNC.
class Worker : public Handler {
 public:
  Worker() : destination(kBytes, std::byte{1}), channel(loop, *this) {}
  void on_frame(wire::FrameKind kind, Lane lane, Buffer payload) override {
    const uint64_t bytes = payload.size();
    if (kind == wire::FrameKind::kUploadData) {
      const auto piece = wire::decode_upload_data(payload);
      std::memcpy(destination.data() + piece->offset, piece->bytes.data(), piece->bytes.size());
    } else {
      auto reader = wire::RecordReader::open(payload);
      for (wire::Record record; reader->next(record);) {
        if (record.kind == wire::RecordKind::kSync) answer(record.call);
      }
    }
    channel.give_back(std::move(payload));
    channel.consumed(lane, bytes);
  }
  void on_link_lost(const Status&) override {}
  void on_closed(const Status&) override {}

  Buffer destination;
  Loop loop;
  Channel channel;

 private:
  void answer(CallNumber call) {
    WALDO_CHECK(
        channel.send(Lane::kRecords, wire::FrameKind::kDone, wire::encode(wire::CallDone{kQueue, call, 0})).ok());
  }
};

class Client : public Handler {
 public:
  Client() : source(kBytes, std::byte{2}), channel(loop, *this) {}
  void on_frame(wire::FrameKind, Lane lane, Buffer payload) override {
    const std::lock_guard lock(mutex_);
    answered_ = wire::decode_call_done(payload)->call;
    changed_.notify_all();
    channel.consumed(lane, payload.size());
  }
  void collect(std::vector<Buffer>& batch) override {
    const std::lock_guard lock(outbox_mutex_);
    for (auto& payload : full_) batch.push_back(std::move(payload));
    full_.clear();
    if (!builder_.empty()) batch.push_back(builder_.take());
    frames_ += batch.size();
    room_.notify_all();
  }
  void on_link_lost(const Status&) override {}
  void on_closed(const Status&) override {}

  void record(std::span<const Slot> slots) {
    {
      std::unique_lock lock(outbox_mutex_);
      builder_.call(PlanId{7}, slots, {});
      if (builder_.full()) {
        room_.wait(lock, [&] { return full_.size() < 4; });
        if (builder_.full()) full_.push_back(builder_.take());
      }
    }
    channel.kick(Channel::Kick::kSoon);
  }
  void synchronize() {
    CallNumber call;
    {
      const std::lock_guard lock(outbox_mutex_);
      call = builder_.sync();
    }
    channel.kick(Channel::Kick::kNow);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return answered_ >= call; });
  }
  void upload(UploadId id) {
    for (size_t at = 0; at < kBytes; at += limits::chunk_bytes) {
      Buffer payload = channel.take_buffer(wire::bulk_header_bytes + limits::chunk_bytes);
      wire::put_header(wire::UploadData{id, wire::PayloadKind::kInline, kBytes, at, {}},
                       std::span(payload).first<wire::bulk_header_bytes>());
      std::memcpy(payload.data() + wire::bulk_header_bytes, source.data() + at, limits::chunk_bytes);
      WALDO_CHECK(channel.send(Lane::kBulk, wire::FrameKind::kUploadData, std::move(payload)).ok());
    }
  }
  uint64_t frames() {
    const std::lock_guard lock(outbox_mutex_);
    return frames_;
  }

  Buffer source;
  Loop loop;
  Channel channel;

 private:
  std::mutex mutex_, outbox_mutex_;
  std::condition_variable changed_, room_;
  CallNumber answered_;
  wire::RecordsBuilder builder_{kQueue};
  std::vector<Buffer> full_;
  uint64_t frames_ = 0;
};

struct Session {
  Session() {
    auto pair = os::make_socketpair();
    WALDO_CHECK(client.channel.attach(make_socket_link(std::move(pair->first)), FrameNumber{0}).ok());
    WALDO_CHECK(worker.channel.attach(make_socket_link(std::move(pair->second)), FrameNumber{0}).ok());
  }
  Worker worker;
  Client client;
};

void copy(benchmark::State& state) {
  Buffer from(kBytes, std::byte{1}), to(kBytes, std::byte{2});
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), kBytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBytes));
}
BENCHMARK(copy)->UseRealTime()->Unit(benchmark::kMillisecond);

void upload_256_mib(benchmark::State& state) {
  Session session;
  uint64_t id = 0;
  for (auto _ : state) {
    session.client.upload(UploadId{++id});
    session.client.synchronize();  // bulk may still be on its way: the window is small beside the whole
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBytes));
}
BENCHMARK(upload_256_mib)->UseRealTime()->Unit(benchmark::kMillisecond);

void a_million_calls(benchmark::State& state) {
  Session session;
  const Slot slots[] = {Slot::make(kQueue, 1), Slot::make(kQueue, 2), Slot::make(kQueue, 3)};
  for (auto _ : state) {
    for (uint64_t i = 0; i < kCalls; ++i) session.client.record(slots);
    session.client.synchronize();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kCalls));
  state.counters["calls_per_frame"] =
      static_cast<double>(state.iterations() * kCalls) / static_cast<double>(session.client.frames());
}
BENCHMARK(a_million_calls)->UseRealTime()->Unit(benchmark::kMillisecond);

void round_trip(benchmark::State& state) {
  Session session;
  for (auto _ : state) session.client.synchronize();
}
BENCHMARK(round_trip)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace waldo::channel

BENCHMARK_MAIN();
