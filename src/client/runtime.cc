// The one file of the client with globals: frameworks ask for devices from anywhere.
#include <dlfcn.h>
#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "base/log.h"
#include "base/os/entropy.h"
#include "base/os/fork.h"
#include "channel/link.h"
#include "channel/loop.h"
#include "channel/shared_chunks.h"
#include "client/connect.h"
#include "client/counters.h"
#include "client/dial.h"
#include "client/session_core.h"
#include "client/visible_devices.h"

namespace waldo::client {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kShutdownMax{1000};
constexpr std::chrono::seconds kRetryAfter{10};  // a program that asks again and again must not log in each time

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

int positive_number(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1) return 0;
  return std::min<int>(number, limits::queue_count_max);
}

// The folder of this library.
std::string own_folder() {
  if (std::string given = environment("WALDO_PACKAGE_DIR"); !given.empty()) return given;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

struct Runtime::State {
  explicit State(size_t number) : number(number) {}

  Options resolved();
  int declared_count();
  Status connect();
  Status connect_once(const Options& options);
  bool forked() const {
    const uint64_t made_in = connected_in.load(std::memory_order_relaxed);
    return made_in != kNever && made_in != os::fork_generation();
  }

  static constexpr uint64_t kNever = ~uint64_t{0};

  const size_t number;  // of this runtime in the process

  Waits waits;
  std::atomic<SessionCore*> core{nullptr};
  std::array<std::atomic<Queue*>, limits::queue_count_max> queues{};  // by the program's device number
  std::atomic<int> count{-1};                                         // known devices; -1: not known yet
  std::atomic<uint64_t> connected_in{kNever};                         // fork generation that began to connect
  std::atomic<bool> shut_down{false};
  std::atomic<uint64_t> greeting_bytes_up{0}, greeting_bytes_down{0}, greetings{0};

  std::timed_mutex connecting;  // held while connecting; guards what follows
  channel::Loop* loop = nullptr;
  Status failure;
  steady_clock::time_point failed_at;

  std::mutex mutex;  // guards what follows
  Options options;
  bool warned = false;
};

namespace {

constexpr size_t kRuntimes = 2;
std::array<std::atomic<SessionCore*>, kRuntimes> cores;  // by runtime; from when it is connected
std::array<std::atomic<Runtime*>, kRuntimes> runtimes;   // from when somebody asked for it
std::mutex ending;                                       // of runtimes: one at a time

void tell_forked_child() {
  for (const auto& one : cores) {
    if (SessionCore* core = one.load(std::memory_order_relaxed)) core->in_forked_child();
  }
}

void add(Counters& sum, const Counters& one) {
  sum.calls += one.calls;
  sum.messages += one.messages;
  sum.waits += one.waits;
  sum.bytes_up += one.bytes_up;
  sum.bytes_down += one.bytes_down;
  sum.plans += one.plans;
  sum.asks += one.asks;
  sum.conforms += one.conforms;
  sum.frees += one.frees;
  sum.waits_at.insert(sum.waits_at.end(), one.waits_at.begin(), one.waits_at.end());
}

}  // namespace

// --- connecting ------------------------------------------------------------------------------------------------------

Options Runtime::State::resolved() {
  Options result;
  {
    std::lock_guard lock(mutex);
    result = options;
  }
  if (result.target.empty()) result.target = environment("WALDO_ON");
  if (result.target.empty()) result.target = "local";
  if (result.gpus <= 0) result.gpus = positive_number(environment("WALDO_GPUS"));
  if (result.package_dir.empty()) result.package_dir = own_folder();
  return result;
}

// How many devices there are before CUDA_VISIBLE_DEVICES, where that is known without a worker; else -1.
int Runtime::State::declared_count() {
  const Options now = resolved();
  if (now.gpus > 0) return now.gpus;
  return now.target == "local" ? 1 : -1;
}

Status Runtime::State::connect_once(const Options& options) {
  LendRequest request;
  request.target = options.target;
  request.gpus = options.gpus;
  request.frontend = options.frontend;
  request.broker = environment("WALDO_BROKER");
  request.package_dir = options.package_dir;
  const std::function<bool()> interrupted = [this] { return waits.interrupted(); };

  wire::Hello hello;
  os::fill_random(hello.secret);
  auto shared = options.target == "local" ? channel::SharedChunks::make()
                                          : Status(StatusKind::kUnsupported, "the worker may be on another machine");
  hello.info_json = hello_info(options, shared.ok() ? (*shared)->offer() : channel::SharedChunks::Offer{});
  auto dialer = std::make_unique<BrokerDialer>(request);
  auto first = dialer->dial_first(hello, interrupted);
  if (!first.ok()) return first.status();
  const wire::Welcome& welcome = first->greeting.welcome;
  auto info = parse_welcome_info(welcome.info_json, options.target);
  if (!info.ok()) return info.status();

  if (loop == nullptr) loop = new channel::Loop();  // lives as long as the process
  const LinkLoss loss = info->grace.count() > 0 ? LinkLoss::kKeepsSession : LinkLoss::kEndsSession;
  auto session = std::make_unique<SessionCore>(*loop, waits, std::move(info->worker), loss);
  if (loss == LinkLoss::kKeepsSession) {
    dialer->remember(welcome.session, hello.secret);
    ReconnectSettings settings;
    settings.target = options.target;
    settings.grace = info->grace;
    settings.hello = hello;
    settings.hello.session = welcome.session;
    std::memcpy(&settings.seed, hello.secret.data(), sizeof settings.seed);
    session->come_back_with(std::move(dialer), std::move(settings), ContactBanner::standard_error());
  }
  if (shared.ok() && info->shares_memory) {
    (*shared)->taken_up();
    session->share(std::move(*shared));
  }
  WALDO_TRY(session->attach(std::move(first->link), welcome.received));
  greeting_bytes_up.fetch_add(first->greeting.bytes_sent);
  greeting_bytes_down.fetch_add(first->greeting.bytes_received);
  greetings.fetch_add(1);

  const auto visible = visible_devices(std::getenv("CUDA_VISIBLE_DEVICES"), static_cast<int>(session->queue_count()));
  SessionCore* const made = session.release();
  cores[number].store(made);
  core.store(made);
  for (size_t i = 0; i < visible.size(); ++i) queues[i].store(&made->queue(static_cast<size_t>(visible[i])));
  count.store(static_cast<int>(visible.size()));
  return {};
}

Status Runtime::State::connect() {
  if (forked()) return SessionCore::forked_status();
  // Another thread may be at it. By the wall clock, because ThreadSanitizer knows no other way to lock for a while.
  while (!connecting.try_lock_until(std::chrono::system_clock::now() + Waits::kAskEvery)) {
    if (waits.interrupted()) return Status(StatusKind::kCancelled, "interrupted while connecting");
  }
  std::lock_guard lock(connecting, std::adopt_lock);
  if (core.load() != nullptr) return {};
  if (shut_down.load()) return SessionCore::ended_status();
  if (!failure.ok() && steady_clock::now() - failed_at < kRetryAfter) return failure;

  static const int registered = pthread_atfork(nullptr, nullptr, tell_forked_child);
  (void)registered;
  connected_in.store(os::fork_generation());
  Status status = connect_once(resolved());
  if (!status.ok() && status.kind() == StatusKind::kCancelled) {
    connected_in.store(kNever);
    return status;
  }
  if (!status.ok()) connected_in.store(kNever);
  failure = status;
  failed_at = steady_clock::now();
  return status;
}

// --- Runtime ---------------------------------------------------------------------------------------------------------

Runtime::Runtime(size_t number) : state_(new State(number)) { runtimes[number].store(this); }

Runtime& Runtime::instance() {
  static Runtime* const runtime = new Runtime(0);  // never destroyed: deleters run until the very end
  return *runtime;
}

Runtime& Runtime::second() {
  static Runtime* const runtime = new Runtime(1);
  return *runtime;
}

void Runtime::set_hooks(Hooks hooks) { state_->waits.set_hooks(std::move(hooks)); }

void Runtime::configure(Options options) {
  std::lock_guard lock(state_->mutex);
  if (state_->core.load() == nullptr) state_->options = std::move(options);
}

bool Runtime::strict() const {
  const std::string value = environment("WALDO_STRICT");
  return !value.empty() && value != "0";
}

int Runtime::device_count() {
  if (const int known = state_->count.load(std::memory_order_relaxed); known >= 0) return known;
  if (const int declared = state_->declared_count(); declared >= 0) {
    const int visible = static_cast<int>(visible_devices(std::getenv("CUDA_VISIBLE_DEVICES"), declared).size());
    int unknown = -1;
    state_->count.compare_exchange_strong(unknown, visible);
    return state_->count.load();
  }
  const Status status = state_->connect();
  if (status.ok()) return state_->count.load();
  std::lock_guard lock(state_->mutex);
  if (!strict() && status.kind() != StatusKind::kCancelled && !state_->warned && !state_->forked()) {
    state_->warned = true;
    log_warning("no device: {}", status.text());
  }
  return 0;
}

Status Runtime::connect_error() {
  if (state_->forked() || state_->core.load() != nullptr) return {};
  std::unique_lock lock(state_->connecting, std::try_to_lock);
  return lock.owns_lock() ? state_->failure : Status();
}

Result<Queue*> Runtime::queue(int device) {
  if (device >= 0 && device < limits::queue_count_max) [[likely]] {
    if (Queue* queue = state_->queues[static_cast<size_t>(device)].load(std::memory_order_acquire)) return queue;
  }
  WALDO_TRY(state_->connect());
  const int count = state_->count.load();
  if (device < 0 || device >= count) {
    return Status(StatusKind::kInvalid, fmt::format("invalid device ordinal {}: there are {} devices", device, count));
  }
  Queue* const queue = state_->queues[static_cast<size_t>(device)].load();
  if (queue == nullptr) return Status(StatusKind::kInvalid, fmt::format("the worker has no device {}", device));
  return queue;
}

bool Runtime::connected() const { return state_->core.load(std::memory_order_relaxed) != nullptr; }
bool Runtime::in_forked_child() const { return state_->forked(); }

Counters Runtime::counters() {
  Counters counters;
  if (state_->forked()) return counters;
  counters.waits = state_->waits.count();
  counters.waits_at = state_->waits.places();
  counters.messages = 2 * state_->greetings.load();
  counters.bytes_up = state_->greeting_bytes_up.load();
  counters.bytes_down = state_->greeting_bytes_down.load();
  if (const SessionCore* core = state_->core.load()) core->add_to(counters);
  return counters;
}

// In this order: no new connection; the flush and the goodbye; the loop's thread, which must not outlive the libraries
// it runs in; then the figures, which nothing changes any more.
void Runtime::shutdown() {
  if (state_->forked() || state_->shut_down.exchange(true)) return;
  SessionCore* const core = state_->core.load();
  if (core != nullptr) {
    core->end(kShutdownMax);
    if (std::unique_lock lock(state_->connecting, std::try_to_lock); lock.owns_lock()) state_->loop->stop();
  }
  std::lock_guard lock(ending);
  Counters sum;
  bool connected = core != nullptr;
  for (const auto& one : runtimes) {
    Runtime* other = one.load();
    if (other == nullptr) continue;
    const bool was_connected = other->state_->core.load() != nullptr;
    if (was_connected && !other->state_->shut_down.load()) return;  // it will say what both did
    if (other != this && was_connected && core == nullptr) return;  // it said so
    connected = connected || was_connected;
    add(sum, other->counters());
  }
  write_stats(sum, connected);
}

}  // namespace waldo::client
