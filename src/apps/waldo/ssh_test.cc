#include "apps/waldo/ssh.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "apps/waldo/exit_code.h"

namespace waldo::apps {
namespace {

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::ranges::find(words, word) != words.end();
}

// Goal: a program that is called as ssh is finds options, then the host, then the command, and each option is one word.
TEST(Ssh, CommandIsOptionsHostCommand) {
  const auto command = ssh_command({.program = "/my/ssh", .program_is_ours = false}, "lab", {"bridge"});
  EXPECT_EQ(command.front(), "/my/ssh");
  const auto host = std::ranges::find(command, "lab");
  EXPECT_TRUE(std::all_of(command.begin() + 1, host, [](const std::string& word) { return word.starts_with("-"); }));
  EXPECT_EQ(std::vector<std::string>(host + 1, command.end()), (std::vector<std::string>{"waldo", "bridge"}));
  EXPECT_TRUE(has(command, "-oBatchMode=yes"));
  EXPECT_FALSE(
      std::ranges::any_of(command, [](const auto& word) { return word.find("Control") != std::string::npos; }));
}

TEST(Ssh, CommandFollowsItsSettings) {
  SshSettings settings;
  settings.may_prompt = settings.has_connect_timeout = true;
  settings.control_path = "/tmp/c";
  settings.remote_waldo = "/opt/waldo";
  const auto command = ssh_command(settings, "lab", {"ls", "--json"});
  EXPECT_FALSE(has(command, "-oBatchMode=yes"));
  EXPECT_FALSE(has(command, "-oConnectTimeout=10"));
  EXPECT_TRUE(has(command, "-oControlPath=/tmp/c"));
  EXPECT_EQ(command[command.size() - 3], "/opt/waldo");
  EXPECT_TRUE(has(ssh_command({}, "lab", {"bridge"}, /*home_install=*/true), "~/.local/bin/waldo"));
}

TEST(Ssh, ReadsTheUsersConfiguration) {
  EXPECT_FALSE(
      parse_ssh_config("host lab\ncontrolmaster false\ncontrolpersist no\nconnecttimeout none\n").shares_connections);
  EXPECT_TRUE(parse_ssh_config("controlmaster auto\n").shares_connections);
  EXPECT_TRUE(parse_ssh_config("controlpath /home/me/.ssh/c\n").shares_connections);
  EXPECT_TRUE(parse_ssh_config("connecttimeout 60\n").has_connect_timeout);
  EXPECT_FALSE(parse_ssh_config("").shares_connections);
}

struct Case {
  int exit_code;
  const char* said;
  int expected_code;
  const char* expected_text;
};

// Goal: each failure has its own message, exit code and command to try. Method: what OpenSSH 9 really prints.
TEST(Ssh, ExplainsFailures) {
  const Case cases[] = {
      {255, "me@lab: Permission denied (publickey,password).\r\n", kExitAuthentication, "(publickey,password)"},
      {255, "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n", kExitAuthentication,
       "log in"},
      {255,
       "No ED25519 host key is known for lab and you have requested strict checking.\nHost key verification failed.\n",
       kExitAuthentication, "not known here"},
      {255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
       kExitAuthentication, "ssh-keygen -R lab"},
      {255, "ssh: Could not resolve hostname lab: Name or service not known\n", kExitUnreachable,
       "no host of that name"},
      {255, "ssh: connect to host lab port 22: Connection refused\n", kExitUnreachable, "refuses"},
      {255, "ssh: connect to host lab port 22: Connection timed out\n", kExitUnreachable, "no answer"},
      {255, "ssh: connect to host lab port 22: No route to host\n", kExitUnreachable, "no way"},
      {255, "kex_exchange_identification: read: Connection reset by peer\n", kExitUnreachable,
       "Connection reset by peer"},
      {255, "", kExitUnreachable, "did not say why"},
      {127, "bash: line 1: waldo: command not found\n", kExitUnreachable, "pip install waldo-gpu"},
      {126, "bash: waldo: Permission denied\n", kExitUnreachable, "not installed there"},
      {1, "waldo: bridge: the daemon did not start; see /x/daemon.log\n", kExitUnreachable, "see /x/daemon.log"},
      {2, "waldo: \"bridge\" is not a command\n", kExitVersion, "bridge"},
  };
  for (const Case& one : cases) {
    const LinkFailure failure = explain_ssh_failure({}, "lab", one.exit_code, one.said);
    EXPECT_EQ(failure.exit_code, one.expected_code) << one.said << failure.text;
    EXPECT_NE(failure.text.find(one.expected_text), std::string::npos) << failure.text;
    EXPECT_EQ(failure.text.find('\n'), std::string::npos) << failure.text;
  }
}

TEST(Ssh, SaysWhenSshItselfIsMissing) {
  EXPECT_NE(explain_missing_ssh({}).text.find("openssh-client"), std::string::npos);
  EXPECT_NE(explain_missing_ssh({.program = "/x", .program_is_ours = false}).text.find("WALDO_SSH"), std::string::npos);
}

}  // namespace
}  // namespace waldo::apps
