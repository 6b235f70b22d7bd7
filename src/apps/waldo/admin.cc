// `waldo ls` and `waldo down`: ask the daemon of this machine, of a socket, or of another host through its own waldo.
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include <unistd.h>

#include "apps/waldo/commands.h"
#include "apps/waldo/exit_code.h"
#include "apps/waldo/ssh.h"
#include "apps/waldo/target.h"
#include "base/os/process.h"
#include "base/os/socket.h"
#include "server/daemon_client.h"
#include "server/state_dir.h"

namespace waldo::apps {

namespace {

// Runs `waldo <arguments>` on the host; its output is ours, its errors are explained.
int run_there(const std::string& host, const std::vector<std::string>& arguments) {
  SshSettings settings = ssh_settings_from_environment();
  settings.may_prompt = ::isatty(STDIN_FILENO) == 1;
  for (const bool home_install : {false, true}) {
    auto errors = os::make_pipe();
    if (!errors.ok()) return kExitOther;
    os::SpawnOptions ssh;
    ssh.command = ssh_command(settings, host, arguments, home_install);
    ssh.fds = {{2, errors->second.get()}};
    auto pid = os::spawn(ssh);
    if (!pid.ok()) {
      const LinkFailure failure = explain_missing_ssh(settings);
      complain(failure.text);
      return failure.exit_code;
    }
    errors->second.reset();
    std::string said;
    char bytes[4096];
    for (ssize_t got; (got = ::read(errors->first.get(), bytes, sizeof(bytes))) > 0;)
      said.append(bytes, static_cast<size_t>(got));
    auto code = os::wait_process(*pid);
    if (code.ok() && *code == 0) return kExitOk;
    const int exit_code = code.ok() ? *code : 255;
    if (exit_code == 127 && !home_install && settings.remote_waldo.empty()) continue;
    const LinkFailure failure = explain_ssh_failure(settings, host, exit_code, said);
    complain(failure.text);
    return failure.exit_code;
  }
  return kExitUnreachable;
}

// Where to ask: the socket's path, or `host` for ssh.
struct Place {
  std::string socket_path;
  std::string host;
};

Result<Place> find_place(const std::string& on) {
  if (!on.empty()) {
    auto target = parse_target(on);
    if (!target.ok()) return target.status();
    if (target->kind == Target::Kind::kUnix) return Place{target->where, ""};
    if (target->kind == Target::Kind::kSsh) return Place{"", target->where};
  }
  auto dir = server::make_daemon_dir();
  if (!dir.ok()) return dir.status();
  return Place{server::daemon_socket_path(*dir), ""};
}

std::string shown(const nlohmann::json& session, const char* name) {
  const auto found = session.find(name);
  if (found == session.end() || found->is_null()) return "-";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string age_of(int64_t since) {
  const int64_t seconds = std::max<int64_t>(0, static_cast<int64_t>(std::time(nullptr)) - since);
  if (seconds < 120) return std::to_string(seconds) + " s";
  if (seconds < 7200) return std::to_string(seconds / 60) + " min";
  return std::to_string(seconds / 3600) + " h";
}

void print_table(const nlohmann::json& sessions) {
  std::printf("%-8s %-8s %-8s %-10s %s\n", "SESSION", "WORKER", "AGE", "MEMORY", "PROGRAM");
  for (const auto& session : sessions) {
    const auto number = [&](const char* name) {
      return session.contains(name) && session[name].is_number() ? session[name].get<int64_t>() : int64_t{0};
    };
    const std::string memory = std::to_string(number("rss_bytes") >> 20) + " MiB";
    std::printf("%-8s %-8s %-8s %-10s %s\n", shown(session, "id").c_str(), shown(session, "pid").c_str(),
                age_of(number("since")).c_str(), memory.c_str(), shown(session, "program").c_str());
  }
}

int fail(const Status& why) {
  complain(why.text());
  return why.kind() == StatusKind::kInvalid || why.kind() == StatusKind::kUnsupported ? kExitUsage : kExitUnreachable;
}

}  // namespace

int list_sessions(const AdminOptions& options) {
  auto place = find_place(options.on);
  if (!place.ok()) return fail(place.status());
  if (!place->host.empty()) {
    return run_there(place->host,
                     options.json ? std::vector<std::string>{"ls", "--json"} : std::vector<std::string>{"ls"});
  }
  auto answer = server::ask_daemon(place->socket_path, R"({"want": "ls"})");
  nlohmann::json json = {{"sessions", nlohmann::json::array()}};  // no daemon: no sessions
  if (answer.ok()) {
    json = nlohmann::json::parse(*answer, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("sessions")) {
      complain("the daemon at " + place->socket_path + " gives no sensible answer");
      return kExitOther;
    }
  } else if (!options.on.empty() || answer.status().kind() != StatusKind::kDisconnected) {
    complain((options.on.empty() ? "" : options.on + ": ") + std::string("no daemon listens there (") +
             answer.status().text() + ")");
    return kExitUnreachable;
  }
  if (options.json) {
    json.erase("ok");
    std::printf("%s\n", json.dump(2).c_str());
  } else if (json["sessions"].empty()) {
    if (!options.quiet) std::fprintf(stderr, "waldo: no sessions\n");
  } else {
    print_table(json["sessions"]);
  }
  return kExitOk;
}

int stop_sessions(const AdminOptions& options) {
  auto place = find_place(options.on);
  if (!place.ok()) return fail(place.status());
  if (!place->host.empty()) {
    return run_there(place->host,
                     options.json ? std::vector<std::string>{"down", "--json"} : std::vector<std::string>{"down"});
  }
  size_t sessions = 0;
  auto stopped = server::stop_daemon(place->socket_path, &sessions);
  if (!stopped.ok()) return fail(stopped.status());
  if (options.json) {
    std::printf("%s\n", nlohmann::json({{"stopped", *stopped}, {"sessions", sessions}}).dump().c_str());
  } else if (!options.quiet) {
    const std::string what =
        *stopped ? "stopped the daemon and " + std::to_string(sessions) + " session" + (sessions == 1 ? "" : "s")
                 : "no daemon runs";
    std::fprintf(stderr, "waldo: %s\n", what.c_str());
  }
  return kExitOk;
}

}  // namespace waldo::apps
