#include "client/connect.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/os/socket.h"
#include "client/wait.h"
#include "wire/frame.h"
#include "wire/limits.h"

namespace waldo::client {
namespace {

using std::chrono::steady_clock;
using wire::Hello;

constexpr std::chrono::seconds kAnswerWaitMax{120};     // a worker loads its libraries from a cold network disk first
constexpr std::chrono::seconds kAnswerWaitAgainMax{8};  // … but when it has our session
constexpr std::chrono::seconds kRestWaitMax{20};        // from the first byte of the answer to its last

bool is_new(const Hello& hello) { return hello.session.raw == 0; }

Status with_exit_code(StatusKind kind, std::string text, int exit_code) {
  StatusDetail detail;
  detail.exit_code = exit_code;
  return Status(kind, std::move(text), std::move(detail));
}

Status gone(const std::string& target, const std::string& why) {
  return with_exit_code(StatusKind::kDisconnected,
                        fmt::format("the worker of `{}` ended before it answered ({})", target, why), 3);
}

Status wait_readable(int fd, const Hello& hello, const std::string& target, const std::function<bool()>& interrupted) {
  const auto wait_max = is_new(hello) ? kAnswerWaitMax : kAnswerWaitAgainMax;
  const auto deadline = steady_clock::now() + wait_max;
  while (true) {
    pollfd wanted{fd, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(Waits::kAskEvery.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return gone(target, os::error_text(errno));
    if (interrupted && interrupted()) return Status(StatusKind::kCancelled, "interrupted while connecting");
    if (steady_clock::now() > deadline) return gone(target, fmt::format("no answer in {} s", wait_max.count()));
  }
}

// One frame that is not numbered, as handshakes have them.
Result<std::pair<wire::FrameKind, Buffer>> read_frame(int fd, const Hello& hello, const std::string& target) {
  const auto deadline = steady_clock::now() + (is_new(hello) ? kRestWaitMax : kAnswerWaitAgainMax);
  wire::FrameHeaderBytes header_bytes;
  if (Status status = os::read_exactly(fd, header_bytes, deadline); !status.ok()) return gone(target, status.text());
  const auto header = wire::decode_header(header_bytes);
  if (!header.ok()) return header.status().with_context(fmt::format("`{}` does not speak Waldo's protocol", target));
  Buffer payload(header->payload_bytes);
  if (Status status = os::read_exactly(fd, payload, deadline); !status.ok()) return gone(target, status.text());
  WALDO_TRY(wire::check_payload(header_bytes, payload));
  return std::pair(header->kind, std::move(payload));
}

std::string program_name() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string line((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (char& c : line) {
    if (c == '\0') c = ' ';
  }
  constexpr size_t kProgramBytesMax = 200;
  return line.substr(0, kProgramBytesMax);
}

}  // namespace

Result<Greeting> greet(int fd, const wire::Hello& hello, const std::string& target,
                       const std::function<bool()>& interrupted) {
  const Buffer frame =
      wire::encode_frame(wire::FrameKind::kHello, wire::Lane::kRecords, FrameNumber{0}, wire::encode(hello));
  // Should this fail: somebody who hung up at once may have said why before.
  (void)os::write_all(fd, frame, steady_clock::now() + kRestWaitMax);
  WALDO_TRY(wait_readable(fd, hello, target, interrupted));
  auto answer = read_frame(fd, hello, target);
  if (!answer.ok()) return answer.status();
  const auto& [kind, payload] = *answer;
  if (kind == wire::FrameKind::kRefuse) {
    const auto refuse = wire::decode_refuse(payload);
    if (!refuse.ok()) return refuse.status();
    return with_exit_code(refuse->kind, refuse->text, refuse->exit_code);
  }
  if (kind != wire::FrameKind::kWelcome) {
    return Status(StatusKind::kInvalid, fmt::format("`{}` answered HELLO with {}", target, wire::name_of(kind)));
  }
  auto welcome = wire::decode_welcome(payload);
  if (!welcome.ok()) return welcome.status();
  if (welcome->version < wire::protocol_version_oldest || welcome->version > wire::protocol_version) {
    return with_exit_code(
        StatusKind::kUnsupported,
        fmt::format("`{}` speaks version {} of the protocol, we speak {} to {}. Install the same Waldo there", target,
                    welcome->version, static_cast<uint32_t>(wire::protocol_version_oldest),
                    static_cast<uint32_t>(wire::protocol_version)),
        5);
  }
  Greeting greeting;
  greeting.welcome = std::move(*welcome);
  greeting.bytes_sent = frame.size();
  greeting.bytes_received = wire::frame_header_bytes + payload.size();
  return greeting;
}

std::string hello_info(const Options& options, const channel::SharedChunks::Offer& shared) {
  nlohmann::ordered_json info = {{"frontend", options.frontend},
                                 {"version", options.frontend_version},
                                 {"waldo_version", WALDO_VERSION},
                                 {"pid", ::getpid()},
                                 {"program", program_name()}};
  if (shared.fd >= 0) info["shared_memory"] = {{"fd", shared.fd}, {"bytes", shared.bytes}};
  if (options.gpus > 0) info["gpus"] = options.gpus;
  if (const char* grace = std::getenv("WALDO_GRACE"); grace != nullptr) {
    if (const int64_t seconds = std::atoll(grace); seconds > 0) info["grace_s"] = seconds;
  }
  return info.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<WelcomeInfo> parse_welcome_info(const std::string& info_json, const std::string& target) {
  const auto json = nlohmann::json::parse(info_json, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&](const char* what) {
    return Status(StatusKind::kInvalid,
                  fmt::format("the worker of `{}` says nothing sensible of its {}", target, what));
  };
  if (!json.is_object()) return bad("devices");
  const auto text = [](const nlohmann::json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  WelcomeInfo welcome;
  WorkerInfo& worker = welcome.worker;
  worker.target = target;
  worker.backend = text(json, "kind");
  worker.version = text(json, "version");
  worker.json = info_json;
  const auto devices = json.find("devices");
  if (devices == json.end() || !devices->is_array() || devices->size() > limits::queue_count_max) return bad("devices");
  for (const auto& entry : *devices) {
    if (!entry.is_object()) return bad("devices");
    DeviceInfo device;
    device.name = text(entry, "name");
    device.kind = text(entry, "kind");
    if (const auto found = entry.find("total_memory"); found != entry.end() && found->is_number_integer()) {
      device.total_memory = found->get<uint64_t>();
    }
    if (const auto found = entry.find("multi_processor_count"); found != entry.end() && found->is_number_integer()) {
      device.multi_processor_count = found->get<int>();
    }
    if (const auto found = entry.find("capability"); found != entry.end() && found->is_array() && found->size() == 2 &&
                                                     (*found)[0].is_number_integer() &&
                                                     (*found)[1].is_number_integer()) {
      device.capability_major = (*found)[0].get<int>();
      device.capability_minor = (*found)[1].get<int>();
    }
    worker.devices.push_back(std::move(device));
  }
  if (const auto found = json.find("grace_s"); found != json.end() && found->is_number_integer()) {
    welcome.grace = std::chrono::seconds(std::clamp<int64_t>(found->get<int64_t>(), 0, limits::grace_seconds_max));
  }
  welcome.shares_memory = json.contains("shared_memory") && json["shared_memory"] == true;
  return welcome;
}

}  // namespace waldo::client
