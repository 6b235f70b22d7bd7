#include "apps/waldo/child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/os/socket.h"

namespace waldo::apps {

namespace {

// In the child, until exec. Returns the error that stopped it.
int become(const ChildOptions& options, std::vector<char*>& words, [[maybe_unused]] pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE}) ::signal(signal, SIG_DFL);
  for (const int signal : options.ignored_signals) ::signal(signal, SIG_IGN);
  if (options.own_group) ::setpgid(0, 0);
#ifdef __linux__
  if (options.ends_with_us) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(128 + SIGKILL);  // it died before we could ask
  }
#endif
  int target_max = 2;
  for (const auto& [target, source] : options.fds) target_max = std::max(target_max, target);
  std::vector<std::pair<int, int>> moved;
  for (const auto& [target, source] : options.fds) {
    const int high = ::fcntl(source, F_DUPFD_CLOEXEC, target_max + 1);
    if (high < 0) return errno;
    moved.emplace_back(target, high);
  }
  for (const auto& [target, source] : moved) {
    if (::dup2(source, target) < 0) return errno;
  }
  for (const auto& [name, value] : options.setenv) ::setenv(name.c_str(), value.c_str(), 1);
  ::execvp(words[0], words.data());
  return errno;
}

}  // namespace

Result<pid_t> fork_child(const ChildOptions& options) {
  WALDO_CHECK(!options.command.empty());
  auto failure_pipe = os::make_pipe();  // closed by a successful exec
  if (!failure_pipe.ok()) return failure_pipe.status();
  std::vector<std::string> command = options.command;
  std::vector<char*> words;
  for (auto& word : command) words.push_back(word.data());
  words.push_back(nullptr);

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return Status(StatusKind::kInternal, "fork: " + os::error_text(errno));
  if (pid == 0) {
    const int error = become(options, words, parent);
    [[maybe_unused]] const ssize_t put = ::write(failure_pipe->second.get(), &error, sizeof(error));
    ::_exit(127);
  }
  failure_pipe->second.reset();
  int error = 0;
  ssize_t got;
  do got = ::read(failure_pipe->first.get(), &error, sizeof(error));
  while (got < 0 && errno == EINTR);
  if (got != sizeof(error)) return pid;
  int ignored = 0;
  ::waitpid(pid, &ignored, 0);
  const bool theirs = error == ENOENT || error == EACCES || error == ENOTDIR || error == ENOEXEC;
  return Status(theirs ? StatusKind::kInvalid : StatusKind::kInternal,
                options.command[0] + ": " + os::error_text(error));
}

int exit_code_of(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace waldo::apps
