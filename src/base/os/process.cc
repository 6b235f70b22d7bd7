#include "base/os/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string_view>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

#include "base/os/socket.h"
#include "base/os/unique_fd.h"

extern char** environ;

namespace waldo::os {
namespace {

std::vector<std::string> make_environment(const SpawnOptions& options) {
  const auto replaced = [&](std::string_view name) {
    const auto same = [&](const auto& item) { return item.first == name; };
    return std::any_of(options.setenv.begin(), options.setenv.end(), same) ||
           std::find(options.unsetenv.begin(), options.unsetenv.end(), name) != options.unsetenv.end();
  };
  std::vector<std::string> result;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!replaced(text.substr(0, text.find('=')))) result.emplace_back(text);
  }
  for (const auto& [name, value] : options.setenv) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (auto& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

Result<pid_t> spawn(const SpawnOptions& options) {
  WALDO_CHECK(!options.command.empty());
  auto command = options.command;
  auto environment = make_environment(options);

  // The sources are first moved above every target number, so that no dup2 overwrites one that is still needed and none
  // is onto itself (which would keep close-on-exec).
  int target_max = 2;
  for (const auto& [target, source] : options.fds) target_max = std::max(target_max, target);
  std::vector<UniqueFd> sources;
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  int error = 0;
  for (const auto& [target, source] : options.fds) {
    sources.emplace_back(::fcntl(source, F_DUPFD_CLOEXEC, target_max + 1));
    if (!sources.back().valid()) error = errno;
    if (error == 0) error = ::posix_spawn_file_actions_adddup2(&actions, sources.back().get(), target);
  }

  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  if (options.group == ProcessGroup::kNew) flags |= POSIX_SPAWN_SETPGROUP;
  if (options.group == ProcessGroup::kNewSession) flags |= POSIX_SPAWN_SETSID;
  ::posix_spawnattr_setflags(&attributes, flags);

  pid_t pid = -1;
  if (error == 0) {
    error = ::posix_spawnp(&pid, command[0].c_str(), &actions, &attributes, pointers_to(command).data(),
                           pointers_to(environment).data());
  }
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return pid;
  const bool missing = error == ENOENT || error == EACCES || error == ENOTDIR || error == ENOEXEC;
  return Status(missing ? StatusKind::kInvalid : StatusKind::kInternal,
                "start " + options.command[0] + ": " + error_text(error));
}

Result<int> wait_process(pid_t pid) {
  int state = 0;
  pid_t got;
  do got = ::waitpid(pid, &state, 0);
  while (got < 0 && errno == EINTR);
  if (got < 0) return Status(StatusKind::kInternal, "wait for process: " + error_text(errno));
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

std::string executable_path() {
#ifdef __APPLE__
  char path[4096];
  uint32_t size = sizeof(path);
  return ::_NSGetExecutablePath(path, &size) == 0 ? std::string(path) : std::string();
#else
  char path[4096];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof(path));
  return size > 0 ? std::string(path, static_cast<size_t>(size)) : std::string();
#endif
}

}  // namespace waldo::os
