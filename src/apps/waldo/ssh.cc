#include "apps/waldo/ssh.h"

#include <cstdlib>
#include <sstream>

#include "apps/waldo/exit_code.h"

namespace waldo::apps {

namespace {

constexpr const char* kInstall = "pip install waldo-gpu";

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

std::string last_line(const std::string& text) {
  std::istringstream lines(text);
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) last = line;
  }
  return last;
}

// "me@lab: Permission denied (publickey,password)." -> "publickey,password"
std::string methods_of(const std::string& said) {
  const size_t begin = said.find("Permission denied (");
  if (begin == std::string::npos) return "";
  const size_t open = said.find('(', begin), close = said.find(')', begin);
  return close == std::string::npos ? "" : " (" + said.substr(open + 1, close - open - 1) + ")";
}

}  // namespace

SshSettings ssh_settings_from_environment() {
  SshSettings settings;
  if (const char* program = std::getenv("WALDO_SSH"); program != nullptr && program[0] != 0) {
    settings.program = program;
    settings.program_is_ours = false;
  }
  if (const char* remote = std::getenv("WALDO_REMOTE"); remote != nullptr) settings.remote_waldo = remote;
  return settings;
}

SshConfig parse_ssh_config(const std::string& printed) {
  SshConfig config;
  std::istringstream lines(printed);
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.find(' ');
    if (space == std::string::npos) continue;
    const std::string key = line.substr(0, space), value = line.substr(space + 1);
    if (key == "controlpath" && value != "none") config.shares_connections = true;
    if (key == "controlmaster" && value != "false" && value != "no") config.shares_connections = true;
    if (key == "connecttimeout" && value != "none" && value != "0") config.has_connect_timeout = true;
  }
  return config;
}

std::vector<std::string> ssh_command(const SshSettings& settings, const std::string& host,
                                     const std::vector<std::string>& waldo_arguments, bool home_install) {
  // Each option is one word, so that a stand-in for ssh can skip whatever begins with a dash.
  std::vector<std::string> command = {settings.program,           "-T",
                                      "-oRemoteCommand=none",     "-oClearAllForwardings=yes",
                                      "-oServerAliveInterval=15", "-oServerAliveCountMax=3"};
  if (!settings.may_prompt) command.push_back("-oBatchMode=yes");
  if (!settings.has_connect_timeout) command.push_back("-oConnectTimeout=10");
  if (settings.own_connection) {
    command.push_back("-oControlMaster=no");
    command.push_back("-oControlPath=none");
  } else if (!settings.control_path.empty()) {
    command.push_back("-oControlMaster=auto");
    command.push_back("-oControlPath=" + settings.control_path);
    command.push_back("-oControlPersist=no");
  }
  command.push_back(host);
  std::string waldo = settings.remote_waldo;
  if (waldo.empty()) waldo = home_install ? "~/.local/bin/waldo" : "waldo";
  command.push_back(waldo);
  command.insert(command.end(), waldo_arguments.begin(), waldo_arguments.end());
  return command;
}

std::string ssh_command_to_try(const SshSettings& settings, const std::string& host, const std::string& command) {
  return settings.program + " " + host + " " + command;
}

LinkFailure explain_missing_ssh(const SshSettings& settings) {
  if (!settings.program_is_ours) {
    return {kExitUnreachable, StatusKind::kDisconnected,
            "WALDO_SSH names " + settings.program + ", which cannot be started here. Try: unset WALDO_SSH"};
  }
  return {kExitUnreachable, StatusKind::kDisconnected,
          "ssh is not installed on this machine. Try: apt install openssh-client"};
}

LinkFailure explain_ssh_failure(const SshSettings& settings, const std::string& host, int exit_code,
                                const std::string& said) {
  const std::string log_in = ". Try: " + ssh_command_to_try(settings, host, "true");
  const auto failure = [&](int code, const std::string& text) {
    return LinkFailure{code, StatusKind::kDisconnected, host + ": " + text};
  };
  if (exit_code == 127 || exit_code == 126) {
    const std::string where = settings.remote_waldo.empty() ? "waldo" : settings.remote_waldo;
    return failure(kExitUnreachable, where + " is not installed there, or not where ssh finds it. Try: " +
                                         ssh_command_to_try(settings, host, kInstall) +
                                         ", or name it: WALDO_REMOTE=/path/to/waldo");
  }
  // Ordered from the special to the general: a changed key also says that verification failed.
  if (contains(said, "REMOTE HOST IDENTIFICATION HAS CHANGED")) {
    return failure(kExitAuthentication,
                   "its host key is not the one this machine knows. If the host was installed anew: ssh-keygen -R " +
                       host + "; then compare the fingerprint with: " + ssh_command_to_try(settings, host, "true"));
  }
  if (contains(said, "Host key verification failed") || contains(said, "host key is known")) {
    return failure(kExitAuthentication, "its host key is not known here yet. Compare its fingerprint and accept it: " +
                                            ssh_command_to_try(settings, host, "true"));
  }
  if (contains(said, "Permission denied") || contains(said, "Too many authentication failures")) {
    return failure(kExitAuthentication, "ssh could not log in" + methods_of(said) + log_in);
  }
  if (contains(said, "Could not resolve hostname")) {
    return failure(kExitUnreachable, "no host of that name. Check the name, or ~/.ssh/config" + log_in);
  }
  if (contains(said, "Connection refused")) {
    return failure(kExitUnreachable, "it refuses connections: no ssh server on that port" + log_in);
  }
  if (contains(said, "timed out"))
    return failure(kExitUnreachable, "no answer in time: down, or behind a firewall" + log_in);
  if (contains(said, "No route to host") || contains(said, "Network is unreachable")) {
    return failure(kExitUnreachable, "there is no way to it from here" + log_in);
  }
  const std::string line = last_line(said);
  if (exit_code == 255)
    return failure(kExitUnreachable, "ssh failed: " + (line.empty() ? "it did not say why" : line) + log_in);
  if (exit_code == kExitVersion || contains(said, "bridge: no such") ||
      (exit_code == kExitUsage && contains(said, "bridge"))) {
    return failure(kExitVersion, line.empty() ? "another version of waldo is there" : line);
  }
  return failure(kExitUnreachable, line.empty() ? "the waldo there ended with code " + std::to_string(exit_code) +
                                                      ". Try: " + ssh_command_to_try(settings, host, "waldo --version")
                                                : line);
}

}  // namespace waldo::apps
