// A client, a worker and a fake device with a bad network between them, on one stage. What the product does with
// sockets, ssh and a daemon is here a Dialer over simulated links; everything else is the product's own code.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/reconnect.h"
#include "client/session_core.h"
#include "server/doorman.h"
#include "server/fake_backend.h"
#include "server/session.h"
#include "sim/network.h"
#include "sim/stage.h"

namespace waldo::sim {

struct Plan {
  uint64_t seed = 0;
  int devices = 1;
  int bad_links = 20;                            // so many links break; those after them do not
  std::optional<Duration> outage_for_ever_from;  // from then on no link can be made, and the one there is goes silent
  std::chrono::seconds grace{900};
  std::optional<std::pair<size_t, size_t>> first_link_cut;  // after so many bytes up and down, instead of chance
};

class World {
 public:
  explicit World(const Plan& plan);
  ~World();

  Stage& stage() { return stage_; }
  client::SessionCore& client() { return *client_; }
  server::FakeBackend& backend() { return backend_; }
  // Blocks (an actor or the scheduler) for the goodbye.
  void end_client();
  const std::optional<Status>& worker_end() const { return worker_end_; }
  uint64_t links() const { return links_; }
  uint64_t bytes_up() const;
  uint64_t bytes_down() const;

 private:
  class SimDialer;
  Links next_links();
  Fate fate(bool bad);
  void check_memory() const;
  bool network_is_gone() const;

  const Plan plan_;
  Stage stage_;
  Prng prng_;
  server::FakeBackend backend_;
  channel::Loop client_loop_, worker_loop_;
  client::Waits waits_;
  std::optional<Status> worker_end_;
  std::unique_ptr<server::Session> worker_;
  std::unique_ptr<server::Doorman> door_;
  std::unique_ptr<client::SessionCore> client_;
  uint64_t links_ = 0;
};

}  // namespace waldo::sim
