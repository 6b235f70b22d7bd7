#include "server/daemon.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/os/entropy.h"
#include "base/os/process.h"
#include "base/os/socket.h"
#include "channel/handshake.h"
#include "server/attach.h"
#include "server/banner.h"
#include "server/poll_loop.h"
#include "server/state_dir.h"
#include "wire/limits.h"

namespace waldo::server {

namespace {

using namespace std::chrono_literals;
using Json = nlohmann::ordered_json;

constexpr size_t kRequestBytesMax = 64u << 10;
constexpr auto kSpareLifetime = 120s;
constexpr auto kWorkersEndMax = 2s;

// Workers of a daemon that is gone find the next one within this time; until then an unknown session may be theirs.
constexpr auto kAdoptionMax = 2s;

struct Worker {
  pid_t pid = -1;
  bool adopted = false;  // not our child
  os::UniqueFd control;
  SessionId session;      // 0: a spare
  wire::Secret secret{};  // of an adopted one: not known here
  std::string likely;     // the front end it loaded the libraries for
  std::time_t since = 0;
  nlohmann::json client;  // HELLO's info
};

uint64_t resident_bytes([[maybe_unused]] pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

class Daemon {
 public:
  Daemon(const DaemonOptions& options, std::string dir, os::UniqueFd listener)
      : options_(options), dir_(std::move(dir)), listener_(std::move(listener)) {}

  void run() {
    loop_.watch(listener_.get(), POLLIN, [this](short) { on_connection(); });
    loop_.watch(signals_.fd(), POLLIN, [this](short) { on_signals(); });
    young_ = true;
    loop_.after(kAdoptionMax, [this] {
      young_ = false;
      for (auto& arrival : std::exchange(early_, {})) take_link(std::move(arrival));
    });
    note_activity();
    loop_.run();
    end();
  }

 private:
  // A connection until it is known what it wants: exactly the bytes of a request or a HELLO are read, none behind.
  struct Visitor {
    os::UniqueFd fd;
    Buffer bytes;
    bool waits_for_end = false;  // asked us to end; closed when we have
  };

  void on_connection() {
    auto accepted = os::accept_unix(listener_.get());
    if (!accepted.ok()) return;
    auto peer = os::peer_credentials(accepted->get());
    if (!peer.ok() || peer->uid != ::geteuid()) {
      log_warning("daemon: refused a connection of another user");
      return;
    }
    const int fd = accepted->get();
    visitors_[fd].fd = std::move(accepted.value());
    loop_.watch(fd, POLLIN, [this, fd](short) { on_readable(fd); });
    note_activity();
  }

  void on_readable(int fd) {
    Visitor& visitor = visitors_[fd];
    const bool is_request = !visitor.bytes.empty() && visitor.bytes[0] == std::byte{'{'};
    // A request is read as it comes: its sender waits for the answer before it says more.
    const size_t wanted = visitor.bytes.empty() ? 1 : is_request ? 4096 : link_bytes_missing(visitor.bytes);
    if (wanted == 0) return dismiss(fd);
    const size_t had = visitor.bytes.size();
    visitor.bytes.resize(had + wanted);
    const ssize_t got = ::recv(fd, visitor.bytes.data() + had, wanted, MSG_DONTWAIT);
    visitor.bytes.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return dismiss(fd);
    if (visitor.bytes[0] == std::byte{'{'}) {
      if (visitor.bytes.end()[-1] == std::byte{'\n'}) return on_request(fd);
      if (visitor.bytes.size() > kRequestBytesMax) dismiss(fd);
      return;
    }
    if (had > 0 && link_bytes_missing(visitor.bytes) == 0) on_link(fd);
  }

  // How many bytes of the HELLO frame have not come. 0 when it is whole, or not a HELLO at all.
  static size_t link_bytes_missing(const Buffer& bytes) {
    if (bytes.size() < wire::frame_header_bytes) return wire::frame_header_bytes - bytes.size();
    auto header = wire::decode_header(std::span(bytes).first(wire::frame_header_bytes));
    if (!header.ok() || header->kind != wire::FrameKind::kHello) return 0;
    return wire::frame_header_bytes + header->payload_bytes - bytes.size();
  }

  void on_link(int fd) {
    Arrival arrival;
    arrival.hello_frame = std::move(visitors_[fd].bytes);
    arrival.link = std::move(visitors_[fd].fd);
    loop_.unwatch(fd);
    visitors_.erase(fd);
    auto hello = channel::parse_hello(arrival.hello_frame);
    if (!hello.ok()) {
      log_warning("daemon: {}", hello.status().text());
      return;
    }
    take_link(std::move(arrival));
    note_activity();
  }

  void take_link(Arrival arrival) {
    const auto hello = channel::parse_hello(arrival.hello_frame);  // parsed before
    if (Status version = channel::check_version(*hello); !version.ok()) {
      return refuse(arrival, version.kind(), 5, version.text());
    }
    const bool is_new = hello->session.raw == 0;
    Worker* worker = is_new ? new_session(*hello) : find_session(hello->session);
    if (worker == nullptr && !is_new && young_) {
      early_.push_back(std::move(arrival));
      return;
    }
    if (worker == nullptr) {
      return refuse(arrival, is_new ? StatusKind::kInternal : StatusKind::kLost, is_new ? 1 : 9,
                    is_new ? "no worker can be started; see " + dir_ + "/daemon.log"
                           : "the session is gone, and its tensors with it");
    }
    arrival.session = worker->session;
    if (Status handed = hand_over(worker->control.get(), arrival); !handed.ok()) {
      log_warning("daemon: hand a link to worker {}: {}", worker->pid, handed.text());
    }
  }

  void refuse(const Arrival& arrival, StatusKind kind, int exit_code, const std::string& text) {
    wire::Refuse refuse;
    refuse.kind = kind;
    refuse.exit_code = static_cast<uint8_t>(exit_code);
    refuse.text = text;
    (void)channel::write_refuse(arrival.link.get(), refuse, soon());
  }

  Worker* find_session(SessionId session) {
    for (auto& [pid, worker] : workers_) {
      if (worker.session == session) return &worker;
    }
    return nullptr;
  }

  // A client whose first link broke before WELCOME says the same HELLO again: it gets the worker it had.
  Worker* new_session(const wire::Hello& hello) {
    for (auto& [pid, worker] : workers_) {
      if (worker.session.raw != 0 && !worker.adopted && worker.secret == hello.secret) return &worker;
    }
    const auto client = nlohmann::json::parse(hello.info_json, nullptr, /*allow_exceptions=*/false);
    const std::string frontend = frontend_of(client, "frontend");
    Worker* worker = find_session(SessionId{0});  // the spare
    if (worker == nullptr || (worker->likely != frontend && options_.backend.empty())) worker = start_worker(frontend);
    if (worker == nullptr) return nullptr;
    os::fill_random(std::as_writable_bytes(std::span(&worker->session.raw, 1)));  // no number of an earlier daemon's
    worker->secret = hello.secret;
    worker->since = std::time(nullptr);
    worker->client = client;
    return worker;
  }

  static std::string frontend_of(const nlohmann::json& object, const char* name) {
    const bool names = object.is_object() && object.contains(name) && object[name].is_string();
    return names && object[name] == "tensorflow" ? "tensorflow" : "torch";
  }

  Worker* start_worker(const std::string& likely) {
    auto control = os::make_socketpair();
    if (!control.ok()) return nullptr;
    const os::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    os::SpawnOptions options;
    options.command = {os::executable_path(), "worker", "--control-fd", "3", "--likely", likely};
    if (!options_.backend.empty()) options.command.insert(options.command.end(), {"--backend", options_.backend});
    options.fds = {{0, null.get()}, {1, null.get()}, {3, control->second.get()}};
    options.setenv = {{"WALDO_PACKAGE_DIR", options_.package_dir}};
    auto pid = os::spawn(options);
    if (!pid.ok()) {
      log_error("daemon: {}", pid.status().text());
      return nullptr;
    }
    Worker& worker = workers_[*pid];
    worker.pid = *pid;
    worker.control = std::move(control->first);
    worker.likely = likely;
    return &worker;
  }

  // The connection becomes the worker's; its end is the worker's end.
  void adopt(int fd, const nlohmann::json& request) {
    auto peer = os::peer_credentials(fd);
    const bool shaped = request.contains("session") && request["session"].is_number_unsigned();
    if (!peer.ok() || peer->pid <= 0 || !shaped || workers_.contains(peer->pid)) return dismiss(fd);
    Worker& worker = workers_[peer->pid];
    worker.pid = peer->pid;
    worker.adopted = true;
    worker.session = SessionId{request["session"].get<uint64_t>()};
    worker.since = std::time(nullptr);
    if (request.contains("client")) worker.client = request["client"];
    worker.control = std::move(visitors_[fd].fd);
    visitors_.erase(fd);
    loop_.watch(fd, POLLIN, [this, fd, pid = worker.pid](short) {
      loop_.unwatch(fd);
      workers_.erase(pid);
      note_activity();
    });
    log_info("daemon: adopted worker {}", peer->pid);
    for (auto& arrival : std::exchange(early_, {})) take_link(std::move(arrival));
  }

  void on_request(int fd) {
    const auto request = nlohmann::json::parse(as_text(visitors_[fd].bytes), nullptr, /*allow_exceptions=*/false);
    std::string want;
    if (request.is_object() && request.contains("want") && request["want"].is_string()) want = request["want"];
    if (want == "info") {
      answer(fd, to_json(make_banner(options_.package_dir)));
    } else if (want == "ls") {
      answer(fd, list().dump(-1, ' ', false, Json::error_handler_t::replace));
    } else if (want == "prestart") {
      if (find_session(SessionId{0}) == nullptr && start_worker(frontend_of(request, "likely")) != nullptr) {
        expire_spare();
      }
      answer(fd, R"({"ok": true})");
    } else if (want == "adopt") {
      return adopt(fd, request);
    } else if (want == "down") {
      ends_workers_ = true;
      answer(fd, Json({{"ok", true}, {"sessions", session_count()}}).dump());
      visitors_[fd].waits_for_end = true;
      loop_.unwatch(fd);
      loop_.stop();
      return;
    } else {
      answer(fd, R"({"ok": false, "text": "want must be one of info, ls, prestart, down"})");
    }
    dismiss(fd);
  }

  void answer(int fd, const std::string& json) { (void)os::write_all(fd, as_bytes(json + "\n"), soon()); }

  // A program that never touches a device would keep a worker's memory for nothing.
  void expire_spare() {
    loop_.cancel(spare_timer_);
    spare_timer_ = loop_.after(kSpareLifetime, [this] {
      if (Worker* spare = find_session(SessionId{0})) ::kill(spare->pid, SIGTERM);
    });
  }

  Json list() {
    char host[256] = {};
    ::gethostname(host, sizeof(host) - 1);
    Json json = {{"ok", true}, {"waldo", WALDO_VERSION}, {"host", host}, {"pid", ::getpid()}};
    json["sessions"] = Json::array();
    for (const auto& [pid, worker] : workers_) {
      if (worker.session.raw == 0) continue;
      const auto of_client = [&client = worker.client](const char* name) {
        return client.is_object() && client.contains(name) ? client[name] : nlohmann::json();
      };
      json["sessions"].push_back({{"id", worker.session.raw},
                                  {"pid", pid},
                                  {"program", of_client("program")},
                                  {"frontend", of_client("frontend")},
                                  {"client_pid", of_client("pid")},
                                  {"gpus", of_client("gpus")},
                                  {"since", static_cast<int64_t>(worker.since)},
                                  {"rss_bytes", resident_bytes(pid)}});
    }
    return json;
  }

  size_t session_count() const {
    return static_cast<size_t>(
        std::ranges::count_if(workers_, [](const auto& item) { return item.second.session.raw != 0; }));
  }

  void dismiss(int fd) {
    loop_.unwatch(fd);
    visitors_.erase(fd);
    note_activity();
  }

  void on_signals() {
    for (SignalPipe::Caught caught; signals_.take(&caught);) {
      if (caught.signal == SIGCHLD) {
        reap();
      } else {
        loop_.stop();
      }
    }
  }

  void reap() {
    for (int status = 0;;) {
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid <= 0) break;
      if (WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM) {
        log_warning("daemon: worker {} was ended by signal {}", pid, WTERMSIG(status));
      }
      workers_.erase(pid);
    }
    note_activity();
  }

  void note_activity() {
    loop_.cancel(idle_timer_);
    idle_timer_ = 0;
    if (session_count() > 0 || !visitors_.empty()) return;
    idle_timer_ = loop_.after(std::chrono::milliseconds(options_.idle), [this] { loop_.stop(); });
  }

  // In order: nobody can join any more; the workers end, if they are to; only then are those told who asked us to.
  void end() {
    ::unlink(daemon_socket_path(dir_).c_str());
    loop_.unwatch(listener_.get());
    listener_.reset();
    if (!ends_workers_) {
      if (Worker* spare = find_session(SessionId{0})) ::kill(spare->pid, SIGTERM);
      return;
    }
    for (const auto& [pid, worker] : workers_) ::kill(pid, SIGTERM);
    const auto timer = loop_.after(kWorkersEndMax, [this] {
      for (const auto& [pid, worker] : workers_) ::kill(pid, SIGKILL);
    });
    loop_.run([this] { return workers_.empty(); });
    loop_.cancel(timer);
    visitors_.clear();
  }

  const DaemonOptions options_;
  const std::string dir_;
  os::UniqueFd listener_;
  PollLoop loop_;
  SignalPipe signals_{{SIGCHLD, SIGTERM, SIGINT}};
  std::map<int, Visitor> visitors_;
  std::map<pid_t, Worker> workers_;
  std::vector<Arrival> early_;  // for sessions that may be adopted yet
  bool young_ = false, ends_workers_ = false;
  PollLoop::TimerId idle_timer_ = 0, spare_timer_ = 0;
};

}  // namespace

int run_daemon(const DaemonOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  auto dir = make_daemon_dir();
  if (!dir.ok()) {
    log_error("daemon: {}", dir.status().text());
    return 1;
  }
  // One daemon per user and host: whoever holds the lock. It is released with the process, however that ends.
  const os::UniqueFd lock(::open((*dir + "/daemon.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return 0;
  ::unlink(daemon_socket_path(*dir).c_str());  // of one that was killed
  auto listener = os::listen_unix(daemon_socket_path(*dir));
  if (!listener.ok()) {
    log_error("daemon: {}", listener.status().text());
    return 1;
  }
  if (::chdir("/") != 0) log_warning("daemon: cannot leave its folder");
  Daemon daemon(options, *dir, std::move(listener.value()));
  if (options.ready_fd >= 0) {
    [[maybe_unused]] const ssize_t put = ::write(options.ready_fd, "+", 1);
    ::close(options.ready_fd);
  }
  daemon.run();
  return 0;
}

}  // namespace waldo::server
