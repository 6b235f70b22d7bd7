#include "server/session.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <future>

#include "channel/link.h"
#include "server/fake_backend.h"
#include "wire/records.h"

namespace waldo::server {
namespace {

using namespace std::chrono_literals;

// The client's end, as bare as can be: frames out, frames in.
class Client final : private channel::Handler {
 public:
  explicit Client(channel::Loop& loop) : channel_(loop, *this) {}

  channel::Channel& channel() { return channel_; }
  void attach(std::unique_ptr<channel::Link> link) {
    ASSERT_TRUE(channel_.attach(std::move(link), FrameNumber{0}).ok());
  }
  void send(wire::FrameKind kind, Buffer payload, wire::Lane lane = wire::Lane::kRecords) {
    ASSERT_TRUE(channel_.send(lane, kind, std::move(payload)).ok());
  }
  Buffer wait_frame(wire::FrameKind kind) {
    std::unique_lock lock(mutex_);
    for (;;) {
      for (auto frame = frames_.begin(); frame != frames_.end(); ++frame) {
        if (frame->first != kind) continue;
        Buffer payload = std::move(frame->second);
        frames_.erase(frame);
        return payload;
      }
      changed_.wait(lock);
    }
  }

 private:
  void on_frame(wire::FrameKind kind, wire::Lane lane, Buffer payload) override {
    channel_.consumed(lane, payload.size());
    std::lock_guard lock(mutex_);
    frames_.emplace_back(kind, std::move(payload));
    changed_.notify_all();
  }
  void on_link_lost(const Status&) override {}
  void on_closed(const Status&) override {}

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<wire::FrameKind, Buffer>> frames_;
  channel::Channel channel_;
};

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    session_ = Session::make(worker_loop_, backend_, {}, [this](const Status& why) { ended_.set_value(why); }).value();
    auto links = channel::make_memory_links(1 << 20);
    client_.attach(std::move(links.first));
    EXPECT_TRUE(session_->attach(std::move(links.second), FrameNumber{0}).ok());
  }
  Status wait_end() { return ended_.get_future().get(); }

  channel::Loop worker_loop_, client_loop_;
  FakeBackend backend_{2};
  std::promise<Status> ended_;
  std::unique_ptr<Session> session_;
  Client client_{client_loop_};
};

TEST_F(SessionTest, RunsCallsOfEveryQueue) {
  EXPECT_EQ(session_->queue_count(), 2u);
  for (const uint16_t queue : {0, 1}) {
    wire::RecordsBuilder records(QueueId{queue});
    const Slot made[] = {Slot::make(QueueId{queue}, 1)};
    Buffer scalars;
    Writer(scalars).put(uint64_t{3});
    Writer(scalars).put(uint64_t{queue + 5u});
    records.define_plan(PlanId{0}, 0, 1, as_bytes("full_u8"));
    records.call(PlanId{0}, made, scalars);
    records.read(made[0], 0, 3);
    client_.send(wire::FrameKind::kRecords, records.take());
    const Buffer payload = client_.wait_frame(wire::FrameKind::kReadData);
    auto data = wire::decode_read_data(payload);
    ASSERT_TRUE(data.ok());
    EXPECT_EQ(data->queue.raw, queue);
    EXPECT_EQ(to_buffer(data->bytes), Buffer(3, static_cast<std::byte>(queue + 5)));
  }
}

// Goal: an upload far beyond the staging limit and the window arrives whole, and a download of the same size comes
// back.
TEST_F(SessionTest, CarriesMoreThanItsWindows) {
  const uint64_t size = limits::staging_bytes_max + limits::bulk_window_bytes + 17;
  wire::RecordsBuilder records(QueueId{0});
  records.upload(Slot::make(QueueId{0}, 1), 0, size, UploadId{1});
  records.read(Slot::make(QueueId{0}, 1), 0, size);
  client_.send(wire::FrameKind::kRecords, records.take());
  std::vector<std::byte> piece(limits::chunk_bytes);
  for (uint64_t at = 0; at < size; at += piece.size()) {
    const size_t part = std::min<uint64_t>(piece.size(), size - at);
    std::fill(piece.begin(), piece.end(), static_cast<std::byte>(at / piece.size()));
    wire::UploadData data{.upload = UploadId{1}, .total = size, .offset = at, .bytes = std::span(piece).first(part)};
    client_.send(wire::FrameKind::kUploadData, wire::encode(data), wire::Lane::kBulk);
  }
  for (uint64_t at = 0; at < size;) {
    const Buffer payload = client_.wait_frame(wire::FrameKind::kReadData);
    auto data = wire::decode_read_data(payload);
    ASSERT_TRUE(data.ok());
    ASSERT_EQ(data->offset, at);
    ASSERT_EQ(data->bytes.front(), static_cast<std::byte>(at / limits::chunk_bytes));
    at += data->bytes.size();
  }
}

TEST_F(SessionTest, EndsWithAGoodbye) {
  client_.channel().close(5s);
  EXPECT_TRUE(wait_end().ok());
}

TEST_F(SessionTest, EndsWhenItsLinkIsLost) {
  client_.channel().abort(Status(StatusKind::kCancelled, "test"));
  EXPECT_EQ(wait_end().kind(), StatusKind::kDisconnected);
}

// Goal: whatever a client sends that it must not, the session ends, says why, and the process goes on.
TEST_F(SessionTest, EndsOnWhatAClientMustNotSend) {
  client_.send(wire::FrameKind::kDone, wire::encode(wire::CallDone{QueueId{0}, CallNumber{1}, 0}));
  const Status why = wait_end();
  EXPECT_EQ(why.kind(), StatusKind::kInvalid);
  EXPECT_NE(why.text().find("DONE"), std::string::npos);
}

TEST_F(SessionTest, EndsOnRecordsForNoQueue) {
  wire::RecordsBuilder records(QueueId{2});
  records.sync();
  client_.send(wire::FrameKind::kRecords, records.take());
  EXPECT_EQ(wait_end().kind(), StatusKind::kInvalid);
}

TEST_F(SessionTest, EndsOnAMalformedRecord) {
  wire::RecordsBuilder records(QueueId{0});
  records.sync();
  Buffer payload = records.take();
  payload[wire::records_header_bytes] = std::byte{0xee};
  client_.send(wire::FrameKind::kRecords, std::move(payload));
  EXPECT_EQ(wait_end().kind(), StatusKind::kInvalid);
}

TEST_F(SessionTest, EndsOnAMalformedUpload) {
  const std::vector<std::byte> bytes(8);
  wire::UploadData data{.upload = UploadId{1}, .total = 4, .offset = 0, .bytes = bytes};
  client_.send(wire::FrameKind::kUploadData, wire::encode(data), wire::Lane::kBulk);
  EXPECT_EQ(wait_end().kind(), StatusKind::kInvalid);
}

TEST_F(SessionTest, EndsOnSharedMemoryThatWasNotAgreedOn) {
  wire::UploadData data{.upload = UploadId{1}, .total = 4, .offset = 0, .bytes = {}, .shared = {0, 4}};
  data.payload_kind = wire::PayloadKind::kSharedMemory;
  client_.send(wire::FrameKind::kUploadData, wire::encode(data), wire::Lane::kBulk);
  EXPECT_EQ(wait_end().kind(), StatusKind::kInvalid);
}

TEST(CountDevices, BelievesNothing) {
  EXPECT_EQ(count_devices(R"({"devices": [{}, {}]})"), 2u);
  EXPECT_EQ(count_devices("nonsense"), 0u);
  EXPECT_EQ(count_devices(R"({"devices": 7})"), 0u);
}

}  // namespace
}  // namespace waldo::server
