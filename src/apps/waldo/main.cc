// The command `waldo`. Parses; the work is in one file per subcommand.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "apps/waldo/commands.h"
#include "apps/waldo/exit_code.h"
#include "apps/waldo/program.h"
#include "base/log.h"
#include "server/bridge.h"
#include "server/collectives/net.h"
#include "server/daemon.h"
#include "server/package_dir.h"
#include "server/worker.h"
#include "wire/limits.h"

namespace waldo::apps {

namespace {

// `run`'s own options end where the program begins: at the first word that is not one, or at -m, -c or --. Everything
// from there on is the program's, whatever it looks like. Splits `words` and returns the program's part.
std::vector<std::string> take_program(std::vector<std::string>& words) {
  const auto run = std::ranges::find_if(words, [](const std::string& word) { return !word.starts_with("-"); });
  if (run == words.end() || *run != "run") return {};
  const std::vector<std::string> with_value = {"--on", "--gpus", "--grace", "--memory"};
  auto at = run + 1;
  while (at != words.end() && at->starts_with("-") && *at != "-m" && *at != "-c" && *at != "--" && *at != "-") {
    const bool takes_next = std::ranges::find(with_value, *at) != with_value.end() && at + 1 != words.end();
    at += takes_next ? 2 : 1;
  }
  std::vector<std::string> program(at, words.end());
  words.erase(at, words.end());
  return program;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct Verbosity {
  bool verbose = false, quiet = false;
  void add_to(CLI::App& app) {
    app.add_flag("-v,--verbose", verbose, "say more (as WALDO_LOG=debug)");
    app.add_flag("-q,--quiet", quiet, "say only what went wrong");
  }
  void apply() const {
    if (verbose) {
      set_log_level(LogLevel::kDebug);
      ::setenv("WALDO_LOG", "debug", 1);  // for the processes we start
    }
    if (quiet) set_log_level(LogLevel::kError);
  }
};

// An unknown subcommand, with what may have been meant. True when that was the mistake.
bool complain_about_subcommand(const std::vector<std::string>& words, const std::vector<std::string>& known) {
  const auto first = std::ranges::find_if(words, [](const std::string& word) { return !word.starts_with("-"); });
  if (first == words.end() || std::ranges::find(known, *first) != known.end()) return false;
  const std::string meant = nearest(*first, known);
  const bool is_script = first->ends_with(".py");
  complain("\"" + *first + "\" is not a command" +
           (is_script        ? ". Did you mean: waldo run " + *first
            : !meant.empty() ? ". Did you mean: waldo " + meant
                             : ". Try: waldo --help"));
  return true;
}

// An unknown option, with the one that may have been meant.
std::string explain(const CLI::ParseError& error, CLI::App& app) {
  std::string text = error.what();
  std::ranges::replace(text, '\n', ' ');
  for (CLI::App* part : app.get_subcommands()) {
    for (const std::string& extra : part->remaining()) {
      std::vector<std::string> names;
      for (const CLI::Option* option : part->get_options()) {
        for (const auto& name : option->get_lnames()) names.push_back("--" + name);
      }
      const std::string meant = nearest(extra, names);
      text = part->get_name() + ": unknown option " + extra + (meant.empty() ? "" : ". Did you mean " + meant + "?");
    }
    text += text.ends_with("?") ? "" : ". Try: waldo " + part->get_name() + " --help";
  }
  return text;
}

int run_main(std::vector<std::string> words) {
  CLI::App app("Runs programs that say `cuda` on a machine without a GPU; the GPU is somewhere else.", "waldo");
  app.set_version_flag("--version", "waldo " WALDO_VERSION);
  app.footer(
      "Examples:\n"
      "  waldo run train.py                 this machine's CPU poses as cuda:0\n"
      "  waldo run --on lab train.py        the GPU of `ssh lab`\n"
      "  waldo run --gpus 2 -- pytest -m gpu\n"
      "  waldo ls --on lab\n"
      "\n"
      "Exit codes: 0 ok, 1 other, 2 usage, 3 unreachable, 4 log-in or host key, 5 version, 9 device lost;\n"
      "`run` returns the program's own.");
  app.require_subcommand(0, 1);
  Verbosity verbosity;

  RunOptions run;
  // As `--on "$HOST"` gives it where HOST is not set: better said than run somewhere else.
  const auto not_empty = [](const std::string& target) {
    return target.empty() ? std::string("the target is empty. A target is local, an ssh host or unix:PATH") : "";
  };
  CLI::App* run_app = app.add_subcommand("run", "run a program whose cuda devices are somewhere else");
  run_app->add_option("--on", run.on, "where: local, an ssh host, or unix:PATH (default: $WALDO_ON, else local)")
      ->type_name("TARGET")
      ->check(not_empty);
  run_app->add_option("--gpus", run.gpus, "how many devices (default: $WALDO_GPUS, else as many as there are)")
      ->type_name("N")
      ->check(CLI::Range(1, static_cast<int>(limits::queue_count_max)));
  run_app
      ->add_option("--memory", run.memory_bytes,
                   "how much memory each device has, such as 4GiB (default: $WALDO_MEMORY, else all of it)")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  run_app
      ->add_option("--grace", run.grace_seconds,
                   "how long the host keeps the session when the connection is lost (default: $WALDO_GRACE, else 15m)")
      ->type_name("TIME")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, int64_t>{{"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}},
                                        CLI::AsNumberWithUnit::CASE_INSENSITIVE))
      ->check(CLI::Range(int64_t{1}, limits::grace_seconds_max));
  CLI::Option* stats =
      run_app->add_option("--stats", run.stats_file, "at the end, print what was sent and waited for; =FILE: as JSON")
          ->type_name("[=FILE]")
          ->expected(0, 1);
  verbosity.add_to(*run_app);
  run_app->footer(
      "What to run: SCRIPT [ARGS…], -m MODULE [ARGS…], -c CODE [ARGS…], or -- COMMAND…\n"
      "Everything after SCRIPT, MODULE, CODE or -- belongs to the program.\n\nExamples:\n"
      "  waldo run train.py --epochs 3\n"
      "  waldo run --on lab --stats train.py\n"
      "  waldo run --gpus 2 -- pytest -m gpu\n"
      "  waldo run -c \"import torch; print(torch.ones(2, device='cuda'))\"\n"
      "\n"
      "Environment: WALDO_ON, WALDO_GPUS, WALDO_PYTHON (interpreter), WALDO_SSH (a program called as ssh is),\n"
      "WALDO_REMOTE (waldo's path on the host), WALDO_LOG=debug|info|warning|error|off");

  AdminOptions admin;
  const auto add_admin = [&](const char* name, const char* what, const char* examples) {
    CLI::App* part = app.add_subcommand(name, what);
    part->add_option("--on", admin.on, "where: an ssh host or unix:PATH (default: this machine)")
        ->type_name("TARGET")
        ->check(not_empty);
    part->add_flag("--json", admin.json, "print JSON");
    verbosity.add_to(*part);
    part->footer(std::string("Examples:\n") + examples);
    return part;
  };
  CLI::App* ls_app = add_admin("ls", "list the sessions of a daemon", "  waldo ls\n  waldo ls --on lab --json");
  CLI::App* down_app = add_admin("down", "end a daemon and its sessions", "  waldo down\n  waldo down --on lab");

  // Hidden: what the parts start each other with.
  server::WorkerOptions worker;
  CLI::App* worker_app = app.add_subcommand("worker")->group("");
  worker_app->add_option("--fd", worker.link_fd);
  worker_app->add_option("--control-fd", worker.control_fd);
  worker_app->add_option("--backend", worker.backend);
  worker_app->add_option("--likely", worker.likely);
  worker_app->add_option("--gpus", worker.gpus);
  server::DaemonOptions daemon;
  int64_t idle_seconds = daemon.idle.count();
  CLI::App* daemon_app = app.add_subcommand("daemon")->group("");
  daemon_app->add_option("--idle", idle_seconds)->check(CLI::Range(1, 1'000'000));
  daemon_app->add_option("--ready-fd", daemon.ready_fd);
  daemon_app->add_option("--backend", daemon.backend);
  std::string collective_net;
  daemon_app->add_option("--collective-net", collective_net);
  CLI::App* bridge_app = app.add_subcommand("bridge")->group("");
  bool resumes = false;
  bridge_app->add_flag("--resume", resumes);
  std::string likely = "torch";
  bridge_app->add_option("--likely", likely);
  BrokerOptions broker;
  CLI::App* broker_app = app.add_subcommand("broker")->group("");
  broker_app->add_option("--target", broker.target);
  broker_app->add_option("--fd", broker.fd)->required();

  run.program = take_program(words);
  try {
    std::vector<std::string> reversed(words.rbegin(), words.rend());  // as CLI11 wants it
    app.parse(reversed);
  } catch (const CLI::Success& asked) {  // --help, --version
    std::ostringstream text;
    const int code = app.exit(asked, text, std::cerr);
    std::printf("%s", text.str().c_str());
    return code;
  } catch (const CLI::ParseError& error) {
    if (!complain_about_subcommand(words, {"run", "ls", "down"})) complain(explain(error, app));
    return kExitUsage;
  }
  verbosity.apply();

  if (run_app->parsed()) {
    run.stats = stats->count() > 0;
    run.quiet = verbosity.quiet;
    return run_program(run);
  }
  admin.quiet = verbosity.quiet;
  if (ls_app->parsed()) return list_sessions(admin);
  if (down_app->parsed()) return stop_sessions(admin);
  const std::string package_dir = server::find_package_dir();
  if (worker_app->parsed()) {
    if ((worker.link_fd < 0) == (worker.control_fd < 0)) {
      complain("worker needs --fd or --control-fd; it is started by others");
      return kExitUsage;
    }
    worker.package_dir = package_dir;
    worker.faults = environment("WALDO_WORKER_FAULT");
    if (const std::string backend = environment("WALDO_WORKER_BACKEND"); !backend.empty()) worker.backend = backend;
    return server::run_worker(worker);
  }
  if (daemon_app->parsed()) {
    if (!collective_net.empty()) {
      if (const auto net = server::CollectiveNet::parse(collective_net); !net.ok()) {
        complain(net.status().text());
        return kExitUsage;
      }
      ::setenv("WALDO_COLLECTIVE_NET", collective_net.c_str(), 1);  // its workers have it too
    }
    daemon.package_dir = package_dir;
    daemon.idle = std::chrono::seconds(idle_seconds);
    return server::run_daemon(daemon);
  }
  if (bridge_app->parsed()) return server::run_bridge(package_dir, resumes, likely);
  if (broker_app->parsed()) return run_broker(broker);
  std::printf("%s", app.help().c_str());
  return words.empty() ? kExitUsage : kExitOk;
}

}  // namespace
}  // namespace waldo::apps

int main(int argc, char** argv) {
  const int code = waldo::apps::run_main(std::vector<std::string>(argv + 1, argv + argc));
  // Printed is what has arrived: with a full disk, a script that reads --json would take nothing for an answer.
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  waldo::apps::complain(std::string("could not write to stdout: ") + std::strerror(errno != 0 ? errno : EIO));
  return code == waldo::apps::kExitOk ? waldo::apps::kExitOther : code;
}
