#include "client/lend.h"

#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/os/process.h"
#include "base/os/socket.h"
#include "client/wait.h"

namespace waldo::client {
namespace {

using std::chrono::steady_clock;

constexpr size_t kAnswerBytesMax = 64u << 10;
// A log-in through several hosts takes its time and ssh has its own limits; this one only ends a broker that hangs.
constexpr std::chrono::seconds kLendWaitMax{180};

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
    const int ready = ::poll(&wanted, 1, static_cast<int>(Waits::kAskEvery.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return unreachable("poll: " + os::error_text(errno));
    if (interrupted && interrupted()) return Status(StatusKind::kCancelled, "interrupted while connecting");
    if (steady_clock::now() > deadline) return unreachable("the broker gave no answer");
  }
}

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

std::string line_of(const nlohmann::json& json) { return json.dump() + "\n"; }

}  // namespace

Status Broker::connect() {
  if (connection_.valid()) return {};
  auto made = request_.broker.empty() ? start_broker(request_) : os::connect_unix(request_.broker);
  if (!made.ok()) {
    if (request_.broker.empty()) return made.status();
    return unreachable("`waldo run` does not answer at " + request_.broker + ": " + made.status().text());
  }
  connection_ = std::move(*made);
  in_child_.emplace(connection_.get());
  link_ = 0;
  return remembered_.empty() ? Status() : say(remembered_);
}

void Broker::close() {
  in_child_.reset();
  connection_.reset();
}

Status Broker::say(const std::string& line) {
  const auto deadline = steady_clock::now() + std::chrono::seconds(5);
  Status status = os::write_all(connection_.get(), as_bytes(line), deadline);
  if (status.ok()) return status;
  close();
  return unreachable("the broker: " + status.text());
}

Result<os::UniqueFd> Broker::lend(For wanted, const std::function<bool()>& interrupted) {
  // A broker that is gone shows when it is asked; then there may be another.
  const bool had = connection_.valid();
  WALDO_TRY(connect());
  nlohmann::json wish = {{"want", "link"}};
  if (!request_.target.empty()) wish["target"] = request_.target;
  if (request_.gpus > 0) wish["gpus"] = request_.gpus;
  if (!request_.frontend.empty()) wish["frontend"] = request_.frontend;
  if (wanted != For::kNew) wish["again"] = true;
  if (wanted == For::kAgainHung && link_ != 0) wish["hung"] = link_;
  WALDO_TRY(say(line_of(wish)));
  auto link = read_answer(interrupted);
  if (link.ok()) return link;
  // After Ctrl-C its late answer must not be taken for the next one's.
  const bool gone = link.status().kind() == StatusKind::kCancelled || !connection_.valid();
  if (gone) close();
  if (gone && had && link.status().kind() != StatusKind::kCancelled) return lend(wanted, interrupted);
  return link;
}

Result<os::UniqueFd> Broker::read_answer(const std::function<bool()>& interrupted) {
  const int broker = connection_.get();
  const auto deadline = steady_clock::now() + kLendWaitMax;
  const auto broken = [this](std::string text) {
    close();
    return unreachable(std::move(text));
  };
  std::string line;
  os::UniqueFd link;
  while (line.find('\n') == std::string::npos) {
    if (Status waited = wait_readable(broker, deadline, interrupted); !waited.ok()) {
      close();
      return waited;
    }
    auto got = os::receive_fd(broker, kAnswerBytesMax);
    if (!got.ok()) return broken("the broker: " + got.status().text());
    if (got->bytes.empty()) return broken("the broker ended without an answer");
    if (got->fd.valid()) link = std::move(got->fd);
    line += as_text(got->bytes);
    if (line.size() > kAnswerBytesMax) return broken("the broker's answer is too long");
  }
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return broken("the broker's answer is not JSON");
  const auto member = [&json](const char* name) { return json.contains(name) ? json[name] : nlohmann::json(); };
  if (const auto ok = member("ok"); !ok.is_boolean() || !ok.get<bool>()) {
    const auto exit_code = member("exit"), kind = member("kind"), text = member("text");
    StatusDetail detail;
    detail.exit_code = exit_code.is_number_integer() ? exit_code.get<int>() : 1;
    return Status(kind_named(kind.is_string() ? kind.get<std::string>() : ""),
                  text.is_string() ? text.get<std::string>() : "the broker lends no link", std::move(detail));
  }
  if (!link.valid()) return broken("the broker's answer has no link");
  const auto number = member("link");
  link_ = number.is_number_integer() ? number.get<int64_t>() : 0;
  return link;
}

void Broker::remember(SessionId session, const wire::Secret& secret) {
  remembered_ = line_of({{"want", "remember"},
                         {"target", request_.target},
                         {"gpus", request_.gpus},
                         {"session", session.raw},
                         {"secret", hex(secret)}});
  if (connection_.valid()) (void)say(remembered_);
}

void Broker::forget(SessionId session) {
  remembered_.clear();
  if (connection_.valid()) (void)say(line_of({{"want", "forget"}, {"session", session.raw}}));
}

}  // namespace waldo::client
