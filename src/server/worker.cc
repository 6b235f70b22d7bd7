#include "server/worker.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "base/os/socket.h"
#include "channel/handshake.h"
#include "channel/loop.h"
#include "server/attach.h"
#include "server/backend_loader.h"
#include "server/session.h"
#include "wire/version.h"

namespace waldo::server {

namespace {

using namespace std::chrono_literals;

os::Deadline soon() { return std::chrono::steady_clock::now() + 5s; }
constexpr auto kNoDeadline = std::chrono::hours(24 * 365);

// The process goes, whatever its threads do: an operator may run for minutes, and nobody is left to tell.
[[noreturn]] void leave(int code) { ::_exit(code); }

// A link and the HELLO that came on it.
struct Guest {
  os::UniqueFd link;
  SessionId session;
  wire::Hello hello;
};

Result<Guest> read_guest(int link_fd) {
  Guest guest;
  guest.link.reset(link_fd);
  guest.session = SessionId{1};
  auto received = channel::read_hello(link_fd, std::chrono::steady_clock::now() + kNoDeadline);
  if (!received.ok()) return received.status();
  guest.hello = std::move(received->hello);
  return guest;
}

Result<Guest> wait_guest(int control_fd) {
  auto arrival = wait_arrival(control_fd);
  if (!arrival.ok()) return arrival.status();
  auto hello = channel::parse_hello(arrival->hello_frame);
  if (!hello.ok()) return hello.status();
  Guest guest;
  guest.link = std::move(arrival->link);
  guest.session = arrival->session;
  guest.hello = std::move(*hello);
  return guest;
}

bool link_is_closed(int fd) {
  char byte;
  const ssize_t got = ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

// Greets the first client while the main thread maps the backend, and ends the process when that client goes away in
// the meantime. Later links (resume) would arrive here too; this version refuses them.
class Greeter {
 public:
  explicit Greeter(const WorkerOptions& options) : options_(options) {
    auto wake = os::make_pipe();
    WALDO_CHECK(wake.ok());
    wake_read_ = std::move(wake->first);
    wake_write_ = std::move(wake->second);
    thread_ = std::thread([this] { run(); });
  }

  // Blocks for the first HELLO; its link is watched from here on until take_guest().
  std::string wait_hello_info() { return hello_arrived_.get_future().get(); }

  Guest take_guest() {
    wake_write_.reset();
    return guest_.get_future().get();
  }

 private:
  void run() {
    auto guest = options_.control_fd >= 0 ? wait_guest(options_.control_fd) : read_guest(options_.link_fd);
    if (!guest.ok()) {
      if (guest.status().kind() != StatusKind::kDisconnected) {
        log_warning("worker: {}", guest.status().text());
      }
      leave(0);
    }
    hello_arrived_.set_value(guest->hello.info_json);
    watch_until_taken(guest->link.get());
    guest_.set_value(std::move(guest.value()));
    if (options_.control_fd >= 0) refuse_later_links();
  }

  void watch_until_taken(int link) {
    pollfd items[2] = {{link, POLLIN, 0}, {wake_read_.get(), POLLIN, 0}};
    for (;;) {
      ::poll(items, 2, -1);
      if (items[1].revents != 0) return;
      if (items[0].revents == 0) continue;
      if (link_is_closed(link)) leave(0);
      items[0].fd = -1;  // bytes before WELCOME: the channel will judge them
    }
  }

  void refuse_later_links() {
    for (;;) {
      auto guest = wait_guest(options_.control_fd);
      if (!guest.ok()) return;  // the daemon is gone; the session lives on its link
      wire::Refuse refuse;
      refuse.kind = StatusKind::kLost;
      refuse.exit_code = 9;
      refuse.text = "this session cannot be resumed: its first link is the only one in this version";
      (void)channel::write_refuse(guest->link.get(), refuse, soon());
    }
  }

  const WorkerOptions& options_;
  os::UniqueFd wake_read_, wake_write_;
  std::promise<std::string> hello_arrived_;
  std::promise<Guest> guest_;
  std::thread thread_;
};

int gpus_of(const std::string& hello_info, int otherwise) {
  const auto info = nlohmann::json::parse(hello_info, nullptr, /*allow_exceptions=*/false);
  if (!info.is_object() || !info.contains("gpus") || !info["gpus"].is_number_integer()) return otherwise;
  const int gpus = info["gpus"].get<int>();
  return gpus > 0 ? gpus : otherwise;
}

std::string welcome_info(Backend& backend) {
  auto info = nlohmann::json::parse(backend.info_json(), nullptr, /*allow_exceptions=*/false);
  if (!info.is_object()) info = nlohmann::json::object();
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  info["waldo_version"] = WALDO_VERSION;
  info["host"] = host;
  info["pid"] = ::getpid();
  return info.dump();
}

[[noreturn]] void refuse_and_leave(const Guest& guest, StatusKind kind, int exit_code, const std::string& text) {
  log_info("worker: refuses a client: {}", text);
  wire::Refuse refuse;
  refuse.kind = kind;
  refuse.exit_code = static_cast<uint8_t>(exit_code);
  refuse.text = text;
  (void)channel::write_refuse(guest.link.get(), refuse, soon());
  leave(1);
}

void report_end(const Status& why) {
  if (why.ok() || why.kind() == StatusKind::kDisconnected) {
    log_debug("worker: the session ends: {}", why.ok() ? "goodbye" : why.text());
  } else {
    log_warning("worker: the session ends: {}", why.text());
  }
}

}  // namespace

int run_worker(const WorkerOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  auto faults = parse_faults(options.faults);
  if (!faults.ok()) {
    log_error("WALDO_WORKER_FAULT: {}", faults.status().text());
    return 2;
  }
  // Never destroyed: the process ends by leave(), with threads still at work.
  auto& greeter = *new Greeter(options);
  auto make = load_backend(options.package_dir, options.backend);  // overlaps with the client's own start
  const int gpus = gpus_of(greeter.wait_hello_info(), options.gpus);
  Result<std::unique_ptr<Backend>> backend = make.ok() ? make_backend(*make, gpus) : make.status();
  Guest guest = greeter.take_guest();

  if (Status version = channel::check_version(guest.hello); !version.ok()) {
    refuse_and_leave(guest, version.kind(), 5, version.text());
  }
  if (guest.hello.session.raw != 0) {
    refuse_and_leave(guest, StatusKind::kLost, 9, "the session is gone, and its tensors with it");
  }
  if (!backend.ok())
    refuse_and_leave(guest, StatusKind::kInternal, 1, "the worker cannot start: " + backend.status().text());

  std::promise<Status> ended;
  auto& loop = *new channel::Loop();
  auto session = Session::make(loop, **backend, FaultPlan(std::move(faults.value())),
                               [&](const Status& why) { ended.set_value(why); });
  if (!session.ok())
    refuse_and_leave(guest, StatusKind::kInternal, 1, "the worker cannot start: " + session.status().text());

  wire::Welcome welcome;
  welcome.link_number = guest.hello.link_number;
  welcome.session = guest.session;
  welcome.received = (*session)->received();
  welcome.info_json = welcome_info(**backend);
  if (!channel::write_welcome(guest.link.get(), welcome, soon()).ok()) leave(0);
  const FrameNumber peer_received = guest.hello.received;
  Status attached = (*session)->attach(channel::make_socket_link(std::move(guest.link)), peer_received);
  if (!attached.ok()) {
    log_warning("worker: {}", attached.text());
    leave(1);
  }
  const Status why = ended.get_future().get();
  report_end(why);
  leave(why.ok() || why.kind() == StatusKind::kDisconnected ? 0 : 1);
}

}  // namespace waldo::server
