// `waldo run`: opens the first link, starts the program with our environment, lends further links to its processes, and
// returns the program's exit code.
//
// One thread, one loop. Whoever dies, the others end: the program is killed when we are (PDEATHSIG), a worker and an
// ssh end with their link, and we end with the program.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "apps/waldo/child.h"
#include "apps/waldo/commands.h"
#include "apps/waldo/exit_code.h"
#include "apps/waldo/link_broker.h"
#include "apps/waldo/program.h"
#include "base/os/entropy.h"
#include "base/os/socket.h"
#include "server/package_dir.h"
#include "server/state_dir.h"
#include "wire/limits.h"

namespace waldo::apps {

namespace {

using namespace std::chrono_literals;

constexpr auto kFarewellMax = 5s;     // to tell the far side that the program died without a word
constexpr auto kChildrenEndMax = 1s;  // how long we wait for workers and ssh after the program's end

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// "cuda:0", "cuda:0 and cuda:1", "cuda:0 to cuda:3"; TensorFlow says /GPU:0
std::string device_names(const LinkSettings& settings, size_t count) {
  const std::string kind = settings.likely == "tensorflow" ? "/GPU:" : "cuda:";
  if (count <= 1) return kind + "0";
  const std::string last = kind + std::to_string(count - 1);
  return kind + (count == 2 ? "0 and " : "0 to ") + last;
}

std::string gigabytes(uint64_t bytes) { return std::to_string((bytes + (1ull << 29)) >> 30) + " GB"; }

std::string milliseconds(std::chrono::microseconds time) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f ms", static_cast<double>(time.count()) / 1000.0);
  return text;
}

std::string last_word(const std::vector<std::string>& program) {
  return program[0] == "-m" || program[0] == "-c" || program[0] == "--" ? "…" : program[0];
}

bool has_terminal() { return os::UniqueFd(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)).valid(); }

// One line that says what `cuda` is.
std::string describe(const LinkSettings& settings, const OpenedLink& link, const std::vector<std::string>& program) {
  if (settings.target.kind == Target::Kind::kLocal) {
    const auto devices = server::probe_devices(settings.package_dir);
    if (devices.empty() || devices[0].kind == "cpu") {
      const size_t count = static_cast<size_t>(std::max(1, settings.gpus));
      return device_names(settings, count) + (count == 1 ? " is" : " are") +
             " this machine's CPU (embedded worker). For a GPU: waldo run --on HOST " + last_word(program);
    }
    return device_names(settings, 1) + " " + devices[0].name + " " + gigabytes(devices[0].total_memory) +
           " (embedded worker)";
  }
  const auto& devices = link.banner.devices;
  std::string what = "no device";
  if (!devices.empty()) {
    const bool poses = devices[0].kind == "cpu";
    const size_t there = poses ? static_cast<size_t>(std::max(1, settings.gpus)) : devices.size();
    const size_t count = settings.gpus > 0 ? std::min<size_t>(there, static_cast<size_t>(settings.gpus)) : there;
    what = device_names(settings, count) + " " + devices[0].name + (poses ? " (its CPU) " : " ") +
           gigabytes(devices[0].total_memory);
  }
  return settings.target.text + " · " + what + " · " + milliseconds(link.round_trip);
}

class Run {
 public:
  Run(const RunOptions& options, LinkSettings settings, std::vector<std::string> command)
      : options_(options), settings_(std::move(settings)), command_(std::move(command)) {}

  int run() {
    loop_.watch(signals_.fd(), POLLIN, [this](short) { on_signals(); });
    if (Status ready = listen(); !ready.ok()) return give_up(kExitOther, ready.text());
    if (int code = open_first_link(); code != kExitOk) return code;
    if (Status started = start_program(); !started.ok()) {
      return give_up(started.kind() == StatusKind::kInvalid ? kExitUsage : kExitOther, started.text());
    }
    loop_.run([this] { return program_code_.has_value(); });
    const int code = *program_code_ != 0 && device_was_lost() ? static_cast<int>(kExitDeviceLost) : *program_code_;
    wait_for_children();
    return code;
  }

 private:
  int give_up(int code, const std::string& text) {
    complain(text);
    return code;
  }

  Status listen() {
    if (os::names_without_file) {  // nothing to remove, even after kill -9
      socket_path_ = "@waldo-run-" + os::random_name();
    } else {
      auto dir = server::RunDir::make();
      if (!dir.ok()) return dir.status();
      dir_.emplace(std::move(*dir));
      socket_path_ = dir_->path() + "/broker.sock";
    }
    auto listener = os::listen_unix(socket_path_);
    if (!listener.ok()) return listener.status();
    broker_.listen(std::move(listener.value()));
    return {};
  }

  int open_first_link() {
    std::optional<int> code;
    broker_.open_ahead([&](const OpenedLink* link, const LinkFailure* failure) {
      if (failure != nullptr) {
        code = give_up(failure->exit_code, failure->text);
        return;
      }
      code = kExitOk;
      if (!options_.quiet) std::fprintf(stderr, "waldo: %s\n", describe(settings_, *link, options_.program).c_str());
    });
    if (!code) loop_.run([&] { return code.has_value() || interrupted_ != 0; });
    return code ? *code : 128 + interrupted_;
  }

  Status start_program() {
    auto status_pipe = os::make_pipe();
    if (!status_pipe.ok()) return status_pipe.status();
    ChildOptions child;
    child.command = command_;
    child.ends_with_us = true;
    child.own_group = !has_terminal_;
    // A number no shell script uses; the hook takes it off the environment's children by close-on-exec.
    constexpr int kStatusFd = 19;
    child.fds = {{kStatusFd, status_pipe->second.get()}};
    child.setenv = {{"WALDO_ON", settings_.target.text},
                    {"WALDO_BROKER", socket_path_},
                    {"WALDO_PACKAGE_DIR", settings_.package_dir},
                    {"WALDO_STATUS_FD", std::to_string(kStatusFd)}};
    if (options_.grace_seconds > 0) child.setenv.emplace_back("WALDO_GRACE", std::to_string(options_.grace_seconds));
    if (options_.memory_bytes > 0) child.setenv.emplace_back("WALDO_MEMORY", std::to_string(options_.memory_bytes));
    if (settings_.gpus > 0) child.setenv.emplace_back("WALDO_GPUS", std::to_string(settings_.gpus));
    if (options_.stats) {
      // Absolute, because the program may change its folder.
      std::error_code error;
      const std::string file = options_.stats_file;
      const bool is_table = file.empty() || file == "-";
      child.setenv.emplace_back("WALDO_STATS", is_table ? "-" : std::filesystem::absolute(file, error).string());
    }
    auto pid = fork_child(child);
    if (!pid.ok()) return pid.status();
    program_ = *pid;
    status_fd_ = std::move(status_pipe->first);
    return {};
  }

  void on_signals() {
    for (server::SignalPipe::Caught caught; signals_.take(&caught);) {
      if (caught.signal == SIGCHLD) {
        reap();
      } else if (program_ < 0) {
        interrupted_ = caught.signal;
      } else {
        forward(caught);
      }
    }
  }

  // Each signal reaches the program once. In a terminal it is in our process group, so that the keys reach it without
  // us and a pipeline stays one job: only what kill() sent to us goes on. Without a terminal it has a group of its own,
  // so that a signal to our whole group does not come twice; what a key would have sent goes to all of its processes.
  void forward(const server::SignalPipe::Caught& caught) {
    const bool is_key = caught.signal == SIGINT || caught.signal == SIGQUIT;
    if (has_terminal_) {
      if (caught.from_process) ::kill(program_, caught.signal);
    } else {
      ::kill(is_key ? -program_ : program_, caught.signal);
    }
  }

  void reap() {
    int status = 0;
    if (program_ > 0 && !program_code_ && ::waitpid(program_, &status, WNOHANG) == program_) {
      program_code_ = exit_code_of(status);
    }
    broker_.reap();
  }

  bool device_was_lost() {
    char said[16] = {};
    (void)os::set_nonblocking(status_fd_.get());
    const ssize_t got = ::read(status_fd_.get(), said, sizeof(said) - 1);
    return got > 0 && std::strncmp(said, "lost", 4) == 0;
  }

  // Their links ended with the program; a moment later nothing of ours is left. A process the program left behind may
  // still use a link: that one keeps its worker.
  void wait_for_children() {
    broker_.drop_spare();
    bool late = false;
    broker_.program_ended();
    const auto farewell_timer = loop_.after(kFarewellMax, [&] { late = true; });
    loop_.run([&] { return late || !broker_.says_farewell(); });
    loop_.cancel(farewell_timer);
    late = false;
    const auto timer = loop_.after(kChildrenEndMax, [&] { late = true; });
    loop_.run([&] { return late || !broker_.has_children(); });
    loop_.cancel(timer);
  }

  const RunOptions& options_;
  const LinkSettings settings_;
  const std::vector<std::string> command_;
  std::optional<server::RunDir> dir_;
  std::string socket_path_;
  server::PollLoop loop_;
  server::SignalPipe signals_{{SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}};
  LinkBroker broker_{loop_, settings_};
  os::UniqueFd status_fd_;
  const bool has_terminal_ = has_terminal();
  pid_t program_ = -1;
  std::optional<int> program_code_;
  int interrupted_ = 0;
};

// ssh(1): it asks a program of the user's for passwords, terminal or not.
bool asks_elsewhere() {
  const std::string require = from_environment("SSH_ASKPASS_REQUIRE");
  return (require == "force" || require == "prefer") && !from_environment("SSH_ASKPASS").empty();
}

Result<int> gpus_of(const RunOptions& options) {
  if (options.gpus > 0) return options.gpus;
  const std::string text = from_environment("WALDO_GPUS");
  if (text.empty()) return 0;
  int gpus = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), gpus);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || gpus < 0 || gpus > static_cast<int>(limits::queue_count_max)) {
    return Status(StatusKind::kInvalid,
                  "WALDO_GPUS is \"" + text + "\". Try a number from 1 to " + std::to_string(limits::queue_count_max));
  }
  return gpus;
}

}  // namespace

int run_program(const RunOptions& options) {
  const auto usage = [](const Status& why) {
    complain(why.text());
    return static_cast<int>(kExitUsage);
  };
  std::string on = options.on.empty() ? from_environment("WALDO_ON") : options.on;
  if (on.empty()) on = "local";
  auto target = parse_target(on);
  if (!target.ok()) return usage(target.status());
  auto gpus = gpus_of(options);
  if (!gpus.ok()) return usage(gpus.status());
  auto command = program_command(options.program);
  if (!command.ok()) return usage(command.status());

  LinkSettings settings;
  settings.target = target.value();
  settings.gpus = *gpus;
  settings.likely = likely_frontend(options.program);
  settings.package_dir = server::find_package_dir();
  settings.may_prompt = ::isatty(STDIN_FILENO) == 1 || asks_elsewhere();
  if (settings.package_dir.empty()) {
    complain("this installation has no libwaldo.so beside it. Try: pip install --force-reinstall waldo-gpu");
    return kExitOther;
  }
  ::signal(SIGPIPE, SIG_IGN);
  return Run(options, std::move(settings), std::move(command.value())).run();
}

}  // namespace waldo::apps
