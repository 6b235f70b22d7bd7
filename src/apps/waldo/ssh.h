// The system's ssh as we call it, and what its failures mean. Pure: no process is started here.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace waldo::apps {

// Why there is no link: what to tell the user, and the exit code.
struct LinkFailure {
  int exit_code = 1;
  StatusKind kind = StatusKind::kDisconnected;
  std::string text;  // "lab: ssh could not log in (publickey). Try: ssh lab true"
};

struct SshSettings {
  std::string program = "ssh";       // WALDO_SSH
  bool program_is_ours = true;       // false: WALDO_SSH named it; we assume nothing but options, host, command
  std::string remote_waldo;          // WALDO_REMOTE; "" is `waldo` on the PATH there, then ~/.local/bin/waldo
  std::string control_path;          // "" is no ControlMaster of ours
  bool own_connection = false;       // share none, neither ours nor the user's
  bool may_prompt = false;           // the terminal is the user's and this is the first link
  bool has_connect_timeout = false;  // the user's configuration has one
};

// WALDO_SSH and WALDO_REMOTE; the rest as above.
SshSettings ssh_settings_from_environment();

// Reads what `ssh -G HOST` printed: whether the user's configuration already shares connections or sets a time limit.
struct SshConfig {
  bool shares_connections = false;
  bool has_connect_timeout = false;
};
SshConfig parse_ssh_config(const std::string& printed);

// PROGRAM OPTIONS HOST WALDO ARGUMENTS…
std::vector<std::string> ssh_command(const SshSettings& settings, const std::string& host,
                                     const std::vector<std::string>& waldo_arguments, bool home_install = false);

// The same without our options, for a person to try.
std::string ssh_command_to_try(const SshSettings& settings, const std::string& host, const std::string& command);

// ssh ended before the bridge answered. `said` is its standard error.
LinkFailure explain_ssh_failure(const SshSettings& settings, const std::string& host, int exit_code,
                                const std::string& said);
LinkFailure explain_missing_ssh(const SshSettings& settings);

}  // namespace waldo::apps
