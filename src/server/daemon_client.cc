#include "server/daemon_client.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/os/process.h"
#include "base/os/socket.h"
#include "server/state_dir.h"

namespace waldo::server {

namespace {

using namespace std::chrono_literals;

constexpr size_t kAnswerBytesMax = 4u << 20;

os::Deadline in(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

Result<std::string> ask_on(int socket, const std::string& request_json) {
  WALDO_TRY(os::write_all(socket, as_bytes(request_json + "\n"), in(10s)));
  std::string line;
  for (std::byte byte;;) {
    WALDO_TRY(os::read_exactly(socket, std::span(&byte, 1), in(10s)));
    if (byte == std::byte{'\n'}) return line;
    line.push_back(static_cast<char>(byte));
    if (line.size() > kAnswerBytesMax) return Status(StatusKind::kInvalid, "the daemon's answer does not end");
  }
}

// Runs `waldo daemon` away from our terminal and log-in, and waits until it listens or has ended.
Status start_daemon(const std::string& dir) {
  auto ready = os::make_pipe();
  if (!ready.ok()) return ready.status();
  const std::string log_path = dir + "/daemon.log";
  const os::UniqueFd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const os::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!log.valid()) return Status(StatusKind::kInternal, "open " + log_path + ": " + os::error_text(errno));
  os::SpawnOptions daemon;
  daemon.command = {os::executable_path(), "daemon", "--ready-fd", "3"};
  daemon.fds = {{0, null.get()}, {1, log.get()}, {2, log.get()}, {3, ready->second.get()}};
  daemon.group = os::ProcessGroup::kNewSession;
  auto pid = os::spawn(daemon);
  if (!pid.ok()) return pid.status();
  ready->second.reset();
  std::byte byte;
  Status listening = os::read_exactly(ready->first.get(), std::span(&byte, 1), in(10s));
  return listening.ok() ? listening : Status(StatusKind::kDisconnected, "the daemon did not start; see " + log_path);
}

}  // namespace

Result<std::string> ask_daemon(const std::string& socket_path, const std::string& request_json) {
  auto socket = os::connect_unix(socket_path);
  if (!socket.ok()) return socket.status();
  return ask_on(socket->get(), request_json);
}

Result<Banner> ask_info(const std::string& socket_path) {
  auto answer = ask_daemon(socket_path, R"({"want": "info"})");
  if (!answer.ok()) return answer.status();
  return parse_banner(*answer);
}

Result<bool> stop_daemon(const std::string& socket_path, size_t* sessions) {
  *sessions = 0;
  auto socket = os::connect_unix(socket_path);
  if (!socket.ok()) {
    if (socket.status().kind() == StatusKind::kDisconnected) return false;
    return socket.status();
  }
  auto answer = ask_on(socket->get(), R"({"want": "down"})");
  if (!answer.ok()) return answer.status();
  const auto json = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("sessions") && json["sessions"].is_number_unsigned()) {
    *sessions = json["sessions"].get<size_t>();
  }
  pollfd closed{socket->get(), POLLIN, 0};  // it keeps this connection until everything has ended
  while (::poll(&closed, 1, 10'000) < 0 && errno == EINTR) continue;
  return true;
}

Result<std::string> ensure_daemon() {
  auto dir = make_daemon_dir();
  if (!dir.ok()) return dir.status();
  const std::string path = daemon_socket_path(*dir);
  Status why;
  for (int attempt = 0; attempt < 3; ++attempt) {  // others may start and stop it at the same time
    auto answer = ask_daemon(path, R"({"want": "ls"})");
    if (answer.ok()) {
      const auto json = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
      const bool idle = json.is_object() && json.contains("sessions") && json["sessions"].empty();
      const bool same = json.is_object() && json.contains("waldo") && json["waldo"] == WALDO_VERSION;
      if (same || !idle) return path;
      size_t sessions = 0;
      (void)stop_daemon(path, &sessions);
    }
    why = start_daemon(*dir);
  }
  if (auto banner = ask_info(path); banner.ok()) return path;
  return why.ok() ? Status(StatusKind::kDisconnected, "the daemon does not answer at " + path) : why;
}

}  // namespace waldo::server
