#include "server/worker.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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
#include "channel/shared_chunks.h"
#include "server/attach.h"
#include "server/backend_loader.h"
#include "server/doorman.h"
#include "server/session.h"
#include "server/state_dir.h"
#include "server/wishes.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/version.h"

namespace waldo::server {

namespace {

using namespace std::chrono_literals;

constexpr auto kDaemonSoughtEvery = 250ms;
constexpr auto kGoodbyeMax = 500ms;
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

// Everything a link needs to be the session's: the HELLO checked, WELCOME said, the channel given it.
class Host {
 public:
  Host(Session& session, SessionId id, const wire::Hello& first, std::string welcome_info)
      : session_(session), id_(id), door_(first), welcome_info_(std::move(welcome_info)) {}

  Status welcome(Guest& guest) {
    wire::Welcome welcome;
    welcome.link_number = guest.hello.link_number;
    welcome.session = id_;
    welcome.received = session_.received();
    welcome.info_json = welcome_info_;
    WALDO_TRY(channel::write_welcome(guest.link.get(), welcome, soon()));
    return session_.attach(channel::make_socket_link(std::move(guest.link)), guest.hello.received);
  }

  void take_back(Guest guest) {
    Status status = door_.admit(guest.hello);
    if (!status.ok()) {
      wire::Refuse refuse;
      refuse.kind = status.kind();
      refuse.exit_code = status.kind() == StatusKind::kUnsupported ? 5 : 9;
      refuse.text = status.text();
      (void)channel::write_refuse(guest.link.get(), refuse, soon());
    } else {
      status = welcome(guest);
    }
    log_info("worker: link {}: {}", guest.hello.link_number, status.ok() ? "the client is back" : status.text());
  }

 private:
  Session& session_;
  const SessionId id_;
  Doorman door_;
  const std::string welcome_info_;
};

// Greets the first client while the main thread maps the backend, and ends the process when that client goes away in
// the meantime. Later links arrive here too, from this daemon or the one that comes after it.
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

  void open_for(Host& host) { host_.set_value(&host); }  // the session has its first link

 private:
  void run() {
    auto guest = options_.control_fd >= 0 ? wait_guest(options_.control_fd) : read_guest(options_.link_fd);
    if (!guest.ok()) {
      if (guest.status().kind() != StatusKind::kDisconnected) {
        log_warning("worker: {}", guest.status().text());
      }
      leave(0);
    }
    const SessionId session = guest->session;
    const std::string info = guest->hello.info_json;
    hello_arrived_.set_value(info);
    watch_until_taken(guest->link.get());
    guest_.set_value(std::move(guest.value()));
    if (options_.control_fd < 0) return;
    Host& host = *host_.get_future().get();
    for (os::UniqueFd control(options_.control_fd);; control = find_daemon(session, info)) {
      while (true) {
        auto later = wait_guest(control.get());
        if (later.ok()) {
          host.take_back(std::move(*later));
        } else if (later.status().kind() == StatusKind::kDisconnected) {
          break;  // the daemon is gone; the session lives on its link
        }
      }
    }
  }

  // Waits for another daemon and tells it that we are here.
  static os::UniqueFd find_daemon(SessionId session, const std::string& info) {
    const auto client = nlohmann::json::parse(info, nullptr, /*allow_exceptions=*/false);
    const nlohmann::json offer = {{"want", "adopt"}, {"session", session.raw}, {"client", client}};
    for (;; std::this_thread::sleep_for(kDaemonSoughtEvery)) {
      auto dir = make_daemon_dir();
      if (!dir.ok()) continue;
      auto daemon = os::connect_unix(daemon_socket_path(*dir));
      if (!daemon.ok()) continue;
      const std::string line = offer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      if (os::write_all(daemon->get(), as_bytes(line), soon()).ok()) return std::move(*daemon);
    }
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

  const WorkerOptions& options_;
  os::UniqueFd wake_read_, wake_write_;
  std::promise<std::string> hello_arrived_;
  std::promise<Guest> guest_;
  std::promise<Host*> host_;
  std::thread thread_;
};

// The memory that HELLO offers. Null: it cannot be had, and content stays inline.
std::unique_ptr<channel::SharedChunks> take_up_memory(const channel::SharedChunks::Offer& offer) {
  auto shared = channel::SharedChunks::take_up(offer);
  if (shared.ok()) return std::move(*shared);
  log_info("worker: content stays inline: {}", shared.status().text());
  return nullptr;
}

std::string welcome_info(Backend& backend, std::chrono::seconds grace, bool shared_memory) {
  auto info = nlohmann::json::parse(backend.info_json(), nullptr, /*allow_exceptions=*/false);
  if (!info.is_object()) info = nlohmann::json::object();
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  info["waldo_version"] = WALDO_VERSION;
  info["host"] = host;
  info["pid"] = ::getpid();
  if (grace.count() > 0) info["grace_s"] = grace.count();
  if (shared_memory) info["shared_memory"] = true;
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

// SIGTERM: the client hears why, so that it does not try to come back. Whatever the executors do.
void say_goodbye_when_told(Session& session) {
  static os::FdPair told = std::move(os::make_pipe().value());
  struct sigaction action {};
  action.sa_handler = [](int) { [[maybe_unused]] const ssize_t put = ::write(told.second.get(), "+", 1); };
  ::sigaction(SIGTERM, &action, nullptr);
  std::thread([&session] {
    char byte;
    while (::read(told.first.get(), &byte, 1) != 1) continue;
    session.close(Status(StatusKind::kLost, "it was told to end"), kGoodbyeMax);
    std::this_thread::sleep_for(kGoodbyeMax * 2);
    leave(0);
  }).detach();
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
  const std::string likely = options.backend.empty() ? options.likely : options.backend;
  auto make = load_backend(options.package_dir, likely);  // overlaps with the client's own start
  const Wishes wishes = parse_wishes(greeter.wait_hello_info());
  const int gpus = wishes.gpus > 0 ? wishes.gpus : options.gpus;
  const std::string wanted = options.backend.empty() ? wishes.backend : options.backend;
  if (wanted != likely) make = load_backend(options.package_dir, wanted);
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

  // On a bare link the client is on this machine and started this worker; nobody would bring it another link.
  const bool bare = options.control_fd < 0;
  const auto grace = bare ? 0s : wishes.grace;
  (*session)->keep_for(grace);
  auto shared = bare && wishes.shared_memory ? take_up_memory(*wishes.shared_memory) : nullptr;
  const bool shares = shared != nullptr;
  (*session)->share(std::move(shared));
  say_goodbye_when_told(**session);
  auto& host = *new Host(**session, guest.session, guest.hello, welcome_info(**backend, grace, shares));
  if (Status attached = host.welcome(guest); !attached.ok()) {
    log_warning("worker: {}", attached.text());
    leave(attached.kind() == StatusKind::kDisconnected ? 0 : 1);
  }
  greeter.open_for(host);
  const Status why = ended.get_future().get();
  report_end(why);
  leave(why.ok() || why.kind() == StatusKind::kDisconnected ? 0 : 1);
}

}  // namespace waldo::server
