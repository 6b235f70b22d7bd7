#include "sim/world.h"

#include <fmt/format.h>

#include "wire/limits.h"

namespace waldo::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kSession = 42;

}  // namespace

// What ssh, bridge and daemon are in the product: HELLO goes one way, WELCOME comes back, either may be lost or late.
class World::SimDialer final : public client::Dialer {
 public:
  explicit SimDialer(World& world) : world_(world), prng_(world.plan_.seed ^ 0xd1a1) {}

  Result<Dialed> dial(const wire::Hello& hello, bool, const std::function<bool()>& stop) override {
    Stage& stage = world_.stage_;
    const bool bad = world_.links_ < static_cast<uint64_t>(world_.plan_.bad_links);
    const Status failed(StatusKind::kDisconnected, "no way there");
    if (!stage.sleep(some(bad ? 3s : 100ms), stop)) return failed;
    if (world_.network_is_gone() || (bad && prng_.one_in(4))) return failed;
    Links links = world_.next_links();
    if (bad && prng_.one_in(8)) {  // a HELLO that is slow: we have given up when it arrives, perhaps after newer ones
      auto late = std::make_shared<std::unique_ptr<channel::Link>>(std::move(links.second));
      stage.at(stage.now() + some(20s), [this, hello, late] { (void)arrive(hello, std::move(*late)); });
      return failed;
    }
    if (!stage.sleep(some(50ms), stop)) return failed;
    auto received = arrive(hello, std::move(links.second));
    if (!received.ok()) return received.status();
    if (!stage.sleep(some(50ms), stop)) return failed;
    if (bad && prng_.one_in(8)) return failed;  // WELCOME was lost
    return Dialed{std::move(links.first), *received};
  }

 private:
  Duration some(Duration most) {
    return Duration(static_cast<Duration::rep>(prng_.below(static_cast<uint64_t>(most.count()))));
  }

  // At the worker; the order of things is worker.cc's.
  Result<FrameNumber> arrive(const wire::Hello& hello, std::unique_ptr<channel::Link> link) {
    if (world_.worker_end_) return Status(StatusKind::kLost, "the session is gone");
    WALDO_TRY(world_.door_->admit(hello));
    const FrameNumber received = world_.worker_->received();
    WALDO_TRY(world_.worker_->attach(std::move(link), hello.received));
    return received;
  }

  World& world_;
  Prng prng_;
};

World::World(const Plan& plan)
    : plan_(plan),
      stage_(plan.seed),
      prng_(plan.seed ^ 0x3e7),
      backend_(plan.devices),
      client_loop_(channel::Loop::Mode::kManual, stage_.clock()),
      worker_loop_(channel::Loop::Mode::kManual, stage_.clock()) {
  stage_.add(client_loop_);
  stage_.add(worker_loop_);
  auto made = server::Session::make(worker_loop_, backend_, server::FaultPlan(),
                                    [this](const Status& why) { worker_end_ = why; });
  WALDO_CHECK(made.ok());
  worker_ = std::move(*made);
  worker_->keep_for(plan.grace);

  wire::Hello hello;
  hello.secret.fill(std::byte{9});
  door_ = std::make_unique<server::Doorman>(hello);
  client::WorkerInfo info;
  info.target = "sim";
  info.devices.resize(static_cast<size_t>(plan.devices));
  client_ =
      std::make_unique<client::SessionCore>(client_loop_, waits_, std::move(info), client::LinkLoss::kKeepsSession);
  client::ReconnectSettings settings;
  settings.target = "sim";
  settings.grace = plan.grace;
  settings.hello = hello;
  settings.hello.session = SessionId{kSession};
  settings.clock = &stage_.clock();
  settings.seed = plan.seed;
  client_->come_back_with(std::make_unique<SimDialer>(*this), settings, {});

  Links links = next_links();
  WALDO_CHECK(worker_->attach(std::move(links.second), FrameNumber{0}).ok());
  WALDO_CHECK(client_->attach(std::move(links.first), FrameNumber{0}).ok());
  stage_.set_invariant([this] { check_memory(); });
}

World::~World() {
  stage_.set_invariant({});
  backend_.gate().open();
  client_.reset();
  worker_.reset();
}

void World::end_client() { client_->end(1s); }

uint64_t World::bytes_up() const { return client_->channel_counters().bytes_sent; }
uint64_t World::bytes_down() const { return client_->channel_counters().bytes_received; }

bool World::network_is_gone() const {
  return plan_.outage_for_ever_from && stage_.now().time_since_epoch() >= *plan_.outage_for_ever_from;
}

Links World::next_links() {
  const bool bad = links_ < static_cast<uint64_t>(plan_.bad_links);
  ++links_;
  if (links_ == 1 && plan_.first_link_cut) {
    Fate up, down;
    up.cut_after_bytes = plan_.first_link_cut->first;
    down.cut_after_bytes = plan_.first_link_cut->second;
    return make_links(stage_, up, down);
  }
  Fate up = fate(bad), down = fate(bad);
  if (bad && prng_.one_in(2)) (prng_.one_in(2) ? up : down).cut_after_bytes = std::numeric_limits<size_t>::max();
  return make_links(stage_, up, down);
}

Fate World::fate(bool bad) {
  Fate fate;
  fate.delay = prng_.one_in(3) ? Duration::zero() : std::chrono::microseconds(prng_.between(1, 60'000));
  if (prng_.one_in(3)) fate.delay_extra = std::chrono::microseconds(prng_.between(1, 200'000));
  fate.small_pieces = prng_.one_in(4);
  fate.room_bytes = size_t{1} << prng_.between(6, 20);
  if (plan_.outage_for_ever_from && links_ > 2) fate.cut_after_bytes = prng_.between(1, 100'000);
  if (!bad) return fate;
  fate.cut_after_bytes = prng_.below(size_t{1} << prng_.between(1, 20));
  fate.writer_hears = !prng_.one_in(3);
  fate.reader_hears = !prng_.one_in(3);
  return fate;
}

// What is kept for a lost link is no more than the windows (and a header per frame).
void World::check_memory() const {
  const uint64_t most = 2 * (limits::records_window_bytes + limits::bulk_window_bytes);
  if (client_->channel_counters().replay_bytes > most) throw Failure("the client's replay log is past its windows");
}

}  // namespace waldo::sim
