// A client and a real server with the fake backend in one process, over any pair of links; and a network that is far
// away.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/os/socket.h"
#include "channel/link.h"
#include "channel/loop.h"
#include "client/session_core.h"
#include "server/fake_backend.h"
#include "server/session.h"

namespace waldo::client {

using Links = std::pair<std::unique_ptr<channel::Link>, std::unique_ptr<channel::Link>>;  // the client's, the server's
Links socket_links();

enum class Content : bool { kInline, kShared };  // how uploads and reads travel

class TestSession {
 public:
  explicit TestSession(int devices = 1, LinkLoss link_loss = LinkLoss::kEndsSession, Links links = socket_links(),
                       Content content = Content::kInline);
  explicit TestSession(Content content, LinkLoss link_loss = LinkLoss::kEndsSession)
      : TestSession(1, link_loss, socket_links(), content) {}
  ~TestSession();

  Queue& queue(size_t index = 0) { return client->queue(index); }
  Status server_end();  // why the server's session ended; blocks until it has
  bool server_ended() const { return server_ended_; }
  void kill_server();  // its link closes without a word
  void cut_client();   // the client's link closes; the server is not asked
  // Both ends go over to a new link, as a client that comes back would make them: as a link breaks (what is written
  // then arrives nowhere), and as another is made.
  void swap_links();
  void part_links();
  void join_links();
  Counters counters() const;

  // The fake backend's operators.
  PlanId plan(const char* body, uint16_t reads, uint16_t creates, size_t queue = 0);
  Slot full(uint64_t bytes, uint8_t value, size_t queue = 0);  // a new slot with so many bytes of `value`
  std::vector<uint8_t> read(Slot slot, uint64_t bytes);

  server::FakeBackend backend;
  Waits waits;
  channel::Loop client_loop, server_loop;
  std::unique_ptr<server::Session> server;
  std::unique_ptr<SessionCore> client;

 private:
  std::vector<PlanId> full_plans_;
  Links servers_dead_, clients_dead_;  // their other ends stay open
  std::atomic<bool> server_ended_{false};
  std::promise<Status> server_end_;
};

std::vector<std::byte> full_scalars(uint64_t bytes, uint8_t value);

// Two socket links with `one_way` of delay in each direction between them.
class FarNetwork {
 public:
  explicit FarNetwork(std::chrono::milliseconds one_way);
  ~FarNetwork();
  Links take_links() { return std::move(links_); }

 private:
  class Direction;
  Links links_;
  std::vector<std::unique_ptr<Direction>> directions_;
};

}  // namespace waldo::client
