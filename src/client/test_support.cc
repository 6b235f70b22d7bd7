#include "client/test_support.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

namespace waldo::client {

Links socket_links() {
  auto ends = os::make_socketpair();
  WALDO_CHECK(ends.ok());
  return {channel::make_socket_link(std::move(ends->first)), channel::make_socket_link(std::move(ends->second))};
}

TestSession::TestSession(int devices, LinkLoss link_loss, Links links, Content content)
    : backend(devices), full_plans_(static_cast<size_t>(devices)) {
  auto made = server::Session::make(server_loop, backend, server::FaultPlan(), [this](const Status& why) {
    server_ended_ = true;
    server_end_.set_value(why);
  });
  WALDO_CHECK(made.ok());
  server = std::move(*made);
  WorkerInfo worker;
  worker.target = "local";
  worker.devices.resize(static_cast<size_t>(devices));
  client = std::make_unique<SessionCore>(client_loop, waits, std::move(worker), link_loss);
  if (content == Content::kShared) {
    auto clients = channel::SharedChunks::make();
    WALDO_CHECK(clients.ok());
    auto servers = channel::SharedChunks::take_up((*clients)->offer());
    WALDO_CHECK(servers.ok());
    server->share(std::move(*servers));
    client->share(std::move(*clients));
  }
  EXPECT_TRUE(server->attach(std::move(links.second), FrameNumber{0}).ok());
  EXPECT_TRUE(client->attach(std::move(links.first), FrameNumber{0}).ok());
  for (size_t i = 0; i < full_plans_.size(); ++i) full_plans_[i] = plan("full_u8", 0, 1, i);
}

TestSession::~TestSession() {
  backend.gate().open();
  client.reset();
  server.reset();
}

Status TestSession::server_end() { return server_end_.get_future().get(); }

void TestSession::kill_server() {
  backend.gate().open();
  server.reset();
}

void TestSession::cut_client() {
  Links links = socket_links();
  links.second.reset();
  EXPECT_TRUE(client->attach(std::move(links.first), server->received()).ok());
}

// Both go over to links that lead nowhere, so that nothing arrives any more (the server before the client: it would
// take a link that closes for the end).
void TestSession::part_links() {
  servers_dead_ = socket_links();
  // What the client has may be more by the time the server hears it, through the old link's last acknowledgement.
  while (!server->attach(std::move(servers_dead_.second), client->received()).ok()) servers_dead_ = socket_links();
  clients_dead_ = socket_links();
  ASSERT_TRUE(client->attach(std::move(clients_dead_.first), server->received()).ok());
}

// Each tells the other what it has.
void TestSession::join_links() {
  Links links = socket_links();
  ASSERT_TRUE(server->attach(std::move(links.second), client->received()).ok());
  ASSERT_TRUE(client->attach(std::move(links.first), server->received()).ok());
}

void TestSession::swap_links() {
  part_links();
  join_links();
}

Counters TestSession::counters() const {
  Counters counters;
  counters.waits = waits.count();
  counters.waits_at = waits.places();
  client->add_to(counters);
  return counters;
}

PlanId TestSession::plan(const char* body, uint16_t reads, uint16_t creates, size_t queue) {
  return client->queue(queue).define_plan(reads, creates, as_bytes(body));
}

std::vector<std::byte> full_scalars(uint64_t bytes, uint8_t value) {
  const uint64_t numbers[2] = {bytes, value};
  std::vector<std::byte> scalars(sizeof numbers);
  std::memcpy(scalars.data(), numbers, sizeof numbers);
  return scalars;
}

Slot TestSession::full(uint64_t bytes, uint8_t value, size_t queue) {
  Slot slot[1];
  EXPECT_TRUE(client->queue(queue).call_making(full_plans_[queue], slot, full_scalars(bytes, value)).ok());
  return slot[0];
}

std::vector<uint8_t> TestSession::read(Slot slot, uint64_t bytes) {
  std::vector<uint8_t> content(bytes, 0xee);
  const Status status = client->queue(slot.queue().raw).read(slot, 0, content.data(), bytes);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return content;
}

// --- FarNetwork ------------------------------------------------------------------------------------------------------

// Takes bytes from one socket and puts them into another a while later, in order, as many under way as there are.
class FarNetwork::Direction {
 public:
  Direction(int from, int to, std::chrono::milliseconds delay)
      : from_(from), to_(to), delay_(delay), reader_([this] { read(); }), writer_([this] { write(); }) {}
  ~Direction() {
    ::shutdown(from_, SHUT_RDWR);
    ::shutdown(to_, SHUT_RDWR);
    reader_.join();
    writer_.join();
  }

 private:
  struct Piece {
    std::chrono::steady_clock::time_point due;
    Buffer bytes;  // empty: the end
  };
  void read() {
    while (true) {
      Buffer bytes(64 << 10);
      const ssize_t got = ::recv(from_, bytes.data(), bytes.size(), 0);
      bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
      {
        std::lock_guard lock(mutex_);
        pieces_.push_back({std::chrono::steady_clock::now() + delay_, std::move(bytes)});
      }
      changed_.notify_all();
      if (got <= 0) return;
    }
  }
  void write() {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !pieces_.empty(); });
      Piece piece = std::move(pieces_.front());
      pieces_.pop_front();
      lock.unlock();
      std::this_thread::sleep_until(piece.due);
      if (piece.bytes.empty()) {
        ::shutdown(to_, SHUT_WR);
        return;
      }
      (void)os::write_all(to_, piece.bytes, std::chrono::steady_clock::now() + std::chrono::seconds(20));
    }
  }

  const int from_, to_;
  const std::chrono::milliseconds delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Piece> pieces_;  // mutex_
  std::thread reader_, writer_;
};

FarNetwork::FarNetwork(std::chrono::milliseconds one_way) {
  auto near = os::make_socketpair(), far = os::make_socketpair();
  WALDO_CHECK(near.ok() && far.ok());
  links_ = {channel::make_socket_link(std::move(near->first)), channel::make_socket_link(std::move(far->second))};
  // The relay's own ends live as long as the process does; a test has few.
  const int here = near->second.release(), there = far->first.release();
  directions_.push_back(std::make_unique<Direction>(here, there, one_way));
  directions_.push_back(std::make_unique<Direction>(there, here, one_way));
}

FarNetwork::~FarNetwork() = default;

}  // namespace waldo::client
