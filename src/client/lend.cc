#include "client/lend.h"

#include <poll.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/os/process.h"
#include "base/os/socket.h"

namespace waldo::client {
namespace {

using std::chrono::steady_clock;

constexpr size_t kAnswerBytesMax = 64u << 10;
// A log-in through several hosts takes its time and ssh has its own limits; this one only ends a broker that hangs.
constexpr std::chrono::seconds kAnswerWaitMax{180};
constexpr std::chrono::milliseconds kAskEvery{50};

Status unreachable(std::string text) {
  StatusDetail detail;
  detail.exit_code = 3;
  return Status(StatusKind::kDisconnected, std::move(text), std::move(detail));
}

StatusKind kind_named(std::string_view name) {
  for (int kind = 1; kind <= static_cast<int>(StatusKind::kInternal); ++kind) {
    if (name_of(static_cast<StatusKind>(kind)) == name) return static_cast<StatusKind>(kind);
  }
  return StatusKind::kInternal;
}

Result<os::UniqueFd> start_broker(const LendRequest& request) {
  auto ends = os::make_socketpair();
  if (!ends.ok()) return ends.status();
  auto& [ours, theirs] = *ends;
  constexpr int kFdThere = 3;
  os::SpawnOptions options;
  options.command = {request.package_dir.empty() ? "waldo" : request.package_dir + "/bin/waldo",
                     "broker",
                     "--target",
                     request.target,
                     "--fd",
                     std::to_string(kFdThere)};
  options.fds = {{kFdThere, theirs.get()}};
  options.group = os::ProcessGroup::kNewSession;  // Ctrl-C in the terminal is for the program, not for its device
  auto pid = os::spawn(options);
  if (!pid.ok()) return unreachable("could not start " + options.command[0] + ": " + pid.status().text());
  // It forks and leaves at once; a program that waits for all its children, or ignores them, may have been faster.
  (void)os::wait_process(*pid);
  return std::move(ours);
}

Status wait_readable(int fd, steady_clock::time_point deadline, const std::function<bool()>& interrupted) {
  while (true) {
    pollfd wanted{fd, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(kAskEvery.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return unreachable("poll: " + os::error_text(errno));
    if (interrupted && interrupted()) return Status(StatusKind::kCancelled, "interrupted while connecting");
    if (steady_clock::now() > deadline) return unreachable("the broker gave no answer");
  }
}

Result<os::UniqueFd> read_answer(int broker, const std::function<bool()>& interrupted) {
  const auto deadline = steady_clock::now() + kAnswerWaitMax;
  std::string line;
  os::UniqueFd link;
  while (line.find('\n') == std::string::npos) {
    WALDO_TRY(wait_readable(broker, deadline, interrupted));
    auto got = os::receive_fd(broker, kAnswerBytesMax);
    if (!got.ok()) return unreachable("the broker: " + got.status().text());
    if (got->bytes.empty()) return unreachable("the broker ended without an answer");
    if (got->fd.valid()) link = std::move(got->fd);
    line += as_text(got->bytes);
    if (line.size() > kAnswerBytesMax) return unreachable("the broker's answer is too long");
  }
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return unreachable("the broker's answer is not JSON");
  const auto member = [&json](const char* name) { return json.contains(name) ? json[name] : nlohmann::json(); };
  if (const auto ok = member("ok"); !ok.is_boolean() || !ok.get<bool>()) {
    const auto exit_code = member("exit"), kind = member("kind"), text = member("text");
    StatusDetail detail;
    detail.exit_code = exit_code.is_number_integer() ? exit_code.get<int>() : 1;
    return Status(kind_named(kind.is_string() ? kind.get<std::string>() : ""),
                  text.is_string() ? text.get<std::string>() : "the broker lends no link", std::move(detail));
  }
  if (!link.valid()) return unreachable("the broker's answer has no link");
  return link;
}

}  // namespace

Result<os::UniqueFd> lend_link(const LendRequest& request, const std::function<bool()>& interrupted) {
  auto broker = request.broker.empty() ? start_broker(request) : os::connect_unix(request.broker);
  if (!broker.ok()) {
    if (request.broker.empty()) return broker.status();
    return unreachable("`waldo run` does not answer at " + request.broker + ": " + broker.status().text());
  }
  nlohmann::json wish = {{"want", "link"}};
  if (!request.target.empty()) wish["target"] = request.target;
  if (request.gpus > 0) wish["gpus"] = request.gpus;
  const auto deadline = steady_clock::now() + std::chrono::seconds(5);
  if (Status status = os::write_all(broker->get(), as_bytes(wish.dump() + "\n"), deadline); !status.ok()) {
    return unreachable("the broker: " + status.text());
  }
  return read_answer(broker->get(), interrupted);
}

}  // namespace waldo::client
