#include "apps/waldo/link_source.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "apps/waldo/child.h"
#include "apps/waldo/exit_code.h"
#include "base/os/process.h"
#include "base/os/socket.h"
#include "server/daemon_client.h"
#include "server/state_dir.h"

namespace waldo::apps {

namespace {

using namespace std::chrono_literals;

constexpr auto kSshAnswerMax = 30s;  // from start to BANNER when nobody can be typing a password
constexpr auto kSshAnswerAgainMax = 12s;

os::UniqueFd open_null() { return os::UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }

LinkFailure internal(const Status& why) { return {kExitOther, StatusKind::kInternal, why.text()}; }

void say(int fd, std::string_view line) {
  // A dead peer shows as the end of its stream; nothing to do here.
  (void)os::write_all(fd, as_bytes(line), std::chrono::steady_clock::now() + 5s);
}

}  // namespace

// One ssh between its start and its link: reads the BANNER, measures the round trip, says go.
class LinkSource::SshOpening {
 public:
  SshOpening(LinkSource& source, Done done, bool home_install, Purpose purpose)
      : source_(source), done_(std::move(done)), home_install_(home_install), purpose_(purpose) {}

  ~SshOpening() {
    source_.loop_.cancel(timer_);
    if (link_.valid()) source_.loop_.unwatch(link_.get());
    if (errors_.valid()) source_.loop_.unwatch(errors_.get());
  }

  Status start(bool may_prompt) {
    auto pair = os::make_socketpair();
    auto errors = os::make_pipe();
    if (!pair.ok()) return pair.status();
    if (!errors.ok()) return errors.status();
    ChildOptions child;
    SshSettings settings = source_.ssh_;
    settings.may_prompt = may_prompt;
    std::vector<std::string> words = {"bridge"};
    if (source_.settings_.likely != "torch") words.insert(words.end(), {"--likely", source_.settings_.likely});
    if (purpose_ == Purpose::kAgain) {
      words.emplace_back("--resume");
      source_.own_way_ = !source_.own_way_;
      settings.own_connection = source_.own_way_ && settings.program_is_ours;
    }
    child.command = ssh_command(settings, source_.settings_.target.where, words, home_install_);
    child.fds = {{0, pair->second.get()}, {1, pair->second.get()}, {2, errors->second.get()}};
    Result<pid_t> pid = Status(StatusKind::kInternal, "not started");
    if (may_prompt) {  // in the terminal's foreground group, but deaf to its keys and its end
      child.ignored_signals = {SIGINT, SIGQUIT, SIGTSTP, SIGHUP};
      pid = fork_child(child);
    } else {
      os::SpawnOptions options;
      options.command = child.command;
      options.fds = child.fds;
      options.group = os::ProcessGroup::kNewSession;
      pid = os::spawn(options);
    }
    if (!pid.ok()) return pid.status();
    pid_ = *pid;
    source_.children_[pid_] = this;
    link_ = std::move(pair->first);
    errors_ = std::move(errors->first);
    source_.loop_.watch(link_.get(), POLLIN, [this](short) { on_readable(); });
    source_.loop_.watch(errors_.get(), POLLIN, [this](short) { on_error_text(); });
    if (!may_prompt) {
      timer_ = source_.loop_.after(purpose_ == Purpose::kAgain ? kSshAnswerAgainMax : kSshAnswerMax, [this] {
        timed_out_ = true;
        ::kill(pid_, purpose_ == Purpose::kAgain ? SIGKILL : SIGTERM);
      });
    }
    return {};
  }

  void child_ended(int code) {
    exit_code_ = code;
    ended_ = true;
    if (!errors_.valid()) return fail();
    drain_timer();
  }

  pid_t pid() const { return pid_; }

 private:
  enum class State : uint8_t { kBanner, kPong };

  // Takes one line without taking a byte behind it: what follows `go` belongs to the link's user.
  bool take_line(std::string* line) {
    char bytes[4096];
    const ssize_t seen = ::recv(link_.get(), bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
    if (seen == 0 || (seen < 0 && errno != EAGAIN && errno != EINTR)) {
      source_.loop_.unwatch(link_.get());  // the end; child_ended() tells why
      return false;
    }
    if (seen < 0) return false;
    const std::string_view text(bytes, static_cast<size_t>(seen));
    const size_t end = text.find('\n');
    const size_t take = end == std::string_view::npos ? text.size() : end + 1;
    const ssize_t taken = ::recv(link_.get(), bytes, take, 0);
    partial_.append(bytes, taken > 0 ? static_cast<size_t>(taken) : 0);
    noise_bytes_ += take;
    if (end == std::string_view::npos) return false;
    *line = std::move(partial_);
    partial_.clear();
    line->pop_back();
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return true;
  }

  void on_readable() {
    std::string line;
    if (!take_line(&line)) {
      if (noise_bytes_ > server::kBannerNoiseBytesMax) refuse(noise());
      return;
    }
    if (state_ == State::kBanner) {
      const size_t mark = line.find(server::kBannerMark);
      if (mark == std::string::npos) {
        if (noise_bytes_ > server::kBannerNoiseBytesMax) refuse(noise());
        return;
      }
      auto banner = server::parse_banner(line.substr(mark + std::string_view(server::kBannerMark).size()));
      if (!banner.ok()) return refuse({kExitVersion, StatusKind::kUnsupported, host() + ": " + banner.status().text()});
      if (Status version = server::check_version(*banner, host()); !version.ok()) {
        return refuse({kExitVersion, StatusKind::kUnsupported, version.text()});
      }
      banner_ = std::move(*banner);
      state_ = State::kPong;
      pinged_ = std::chrono::steady_clock::now();
      say(link_.get(), "ping\n");
      return;
    }
    if (line != "pong") return refuse(noise());
    const auto round_trip = std::chrono::steady_clock::now() - pinged_;
    say(link_.get(), "go\n");
    succeed(std::chrono::duration_cast<std::chrono::microseconds>(round_trip));
  }

  void on_error_text() {
    char bytes[4096];
    const ssize_t got = ::read(errors_.get(), bytes, sizeof(bytes));
    if (got > 0) {
      said_.append(bytes, static_cast<size_t>(got));
      if (said_.size() > (64u << 10)) said_.erase(0, said_.size() - (32u << 10));
      return;
    }
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    source_.loop_.unwatch(errors_.get());
    errors_.reset();
    if (ended_) fail();
  }

  // Something else may hold its stderr; what it said before it ended is here by then.
  void drain_timer() {
    source_.loop_.cancel(timer_);
    timer_ = source_.loop_.after(200ms, [this] { fail(); });
  }

  std::string host() const { return source_.settings_.target.where; }

  LinkFailure noise() const {
    return {kExitUnreachable, StatusKind::kDisconnected,
            host() + ": its log-in prints text where waldo should answer. Try: ssh " + host() +
                " true, which must print nothing"};
  }

  void succeed(std::chrono::microseconds round_trip) {
    source_.loop_.unwatch(link_.get());
    OpenedLink opened;
    opened.fd = std::move(link_);
    opened.pid = pid_;
    opened.banner = std::move(banner_);
    opened.round_trip = round_trip;
    source_.home_install_ = home_install_;
    if (errors_.valid()) {  // what ssh says from now on is news for the user
      const int fd = errors_.get();
      source_.loop_.unwatch(fd);
      auto shared = std::make_shared<os::UniqueFd>(std::move(errors_));
      server::PollLoop& loop = source_.loop_;
      loop.watch(fd, POLLIN, [&loop, shared, name = host()](short) {
        char bytes[4096];
        const ssize_t got = ::read(shared->get(), bytes, sizeof(bytes));
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
        if (got <= 0) return loop.unwatch(shared->get());
        std::fprintf(stderr, "waldo: %s: %.*s", name.c_str(), static_cast<int>(got), bytes);
      });
    }
    source_.finish(this, std::move(opened));
  }

  void refuse(LinkFailure failure) {
    ::kill(pid_, SIGTERM);
    source_.finish(this, std::move(failure));
  }

  void fail() {
    if (timed_out_) {
      return source_.finish(
          this, LinkFailure{kExitUnreachable, StatusKind::kDisconnected,
                            host() + ": no answer from waldo there in 30 s. Try: ssh " + host() + " waldo --version"});
    }
    const bool missing = exit_code_ == 127 || exit_code_ == 126;
    if (missing && !home_install_ && source_.ssh_.remote_waldo.empty()) {
      Done done = std::move(done_);
      LinkSource& source = source_;
      const Purpose purpose = purpose_;
      source.forget(this);
      return source.open_ssh(std::move(done), /*home_install=*/true, purpose);
    }
    source_.finish(this, explain_ssh_failure(source_.ssh_, host(), exit_code_, said_));
  }

  friend class LinkSource;
  LinkSource& source_;
  Done done_;
  const bool home_install_;
  const Purpose purpose_;
  pid_t pid_ = -1;
  os::UniqueFd link_, errors_;
  server::PollLoop::TimerId timer_ = 0;
  State state_ = State::kBanner;
  std::string partial_, said_;
  size_t noise_bytes_ = 0;
  server::Banner banner_;
  std::chrono::steady_clock::time_point pinged_;
  int exit_code_ = 0;
  bool ended_ = false, timed_out_ = false;
};

LinkSource::LinkSource(server::PollLoop& loop, LinkSettings settings) : loop_(loop), settings_(std::move(settings)) {}

LinkSource::~LinkSource() {
  for (const auto& opening : openings_) ::kill(opening->pid(), SIGTERM);
}

void LinkSource::open(Done done, Purpose purpose) {
  switch (settings_.target.kind) {
    case Target::Kind::kLocal:
      return done(open_local());
    case Target::Kind::kUnix:
      return done(open_unix());
    case Target::Kind::kSsh:
      return open_ssh(std::move(done), home_install_, purpose);
  }
}

LinkSource::Opened LinkSource::open_local() {
  auto pair = os::make_socketpair();
  if (!pair.ok()) return internal(pair.status());
  const os::UniqueFd null = open_null();
  os::SpawnOptions worker;
  worker.command = {
      os::executable_path(), "worker", "--fd", "3", "--gpus", std::to_string(std::max(1, settings_.gpus)), "--likely",
      settings_.likely};
  worker.fds = {{0, null.get()}, {1, null.get()}, {3, pair->second.get()}};
  worker.setenv = {{"WALDO_PACKAGE_DIR", settings_.package_dir}};
  worker.group = os::ProcessGroup::kNewSession;  // the terminal's Ctrl-C is for the program
  auto pid = os::spawn(worker);
  if (!pid.ok()) return internal(pid.status());
  children_[*pid] = nullptr;
  OpenedLink opened;
  opened.fd = std::move(pair->first);
  return opened;
}

LinkSource::Opened LinkSource::open_unix() {
  const std::string& path = settings_.target.where;
  auto fd = os::connect_unix(path);
  if (!fd.ok()) {
    return LinkFailure{kExitUnreachable, StatusKind::kDisconnected,
                       settings_.target.text + ": no daemon listens there (" + fd.status().text() + ")"};
  }
  OpenedLink opened;
  if (first_) {
    first_ = false;
    const auto asked = std::chrono::steady_clock::now();
    auto banner = server::ask_info(path);
    opened.round_trip = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - asked);
    if (!banner.ok()) {
      return LinkFailure{kExitUnreachable, StatusKind::kDisconnected,
                         settings_.target.text + ": " + banner.status().text()};
    }
    if (Status version = server::check_version(*banner, settings_.target.text); !version.ok()) {
      return LinkFailure{kExitVersion, StatusKind::kUnsupported, version.text()};
    }
    opened.banner = std::move(*banner);
  }
  opened.fd = std::move(*fd);
  return opened;
}

void LinkSource::open_ssh(Done done, bool home_install, Purpose purpose) {
  if (!ssh_ready_) read_ssh_config();
  openings_.push_back(std::make_unique<SshOpening>(*this, std::move(done), home_install, purpose));
  SshOpening* opening = openings_.back().get();
  const bool may_prompt = settings_.may_prompt && first_ && purpose == Purpose::kNew;
  const Status started = opening->start(may_prompt);
  if (started.ok()) return;
  if (started.kind() == StatusKind::kInvalid) return finish(opening, explain_missing_ssh(ssh_));
  finish(opening, internal(started));
}

// Asks ssh itself what the user's configuration says about this host; purely local and quick. Not when WALDO_SSH names
// another program: it need not know -G.
void LinkSource::read_ssh_config() {
  ssh_ready_ = true;
  ssh_ = ssh_settings_from_environment();
  if (!ssh_.program_is_ours) return;
  auto out = os::make_pipe();
  if (!out.ok()) return;
  const os::UniqueFd null = open_null();
  os::SpawnOptions ask;
  ask.command = {ssh_.program, "-G", settings_.target.where};
  ask.fds = {{0, null.get()}, {1, out->second.get()}, {2, null.get()}};
  auto pid = os::spawn(ask);
  if (!pid.ok()) return;  // start() will say that ssh is missing
  out->second.reset();
  std::string printed;
  char bytes[4096];
  for (ssize_t got; (got = ::read(out->first.get(), bytes, sizeof(bytes))) != 0;) {
    if (got < 0 && errno != EINTR) break;
    if (got > 0) printed.append(bytes, static_cast<size_t>(got));
  }
  (void)os::wait_process(*pid);
  const SshConfig config = parse_ssh_config(printed);
  ssh_.has_connect_timeout = config.has_connect_timeout;
  // One connection per host for all sessions of this user. %C is 40 letters and ssh adds 17 while it makes the socket,
  // so the folder must be short.
  if (const std::string dir = server::short_private_dir(); !config.shares_connections && !dir.empty()) {
    ssh_.control_path = dir + "/ssh-%C";
  }
}

void LinkSource::finish(SshOpening* opening, Opened opened) {
  if (std::holds_alternative<OpenedLink>(opened)) first_ = false;
  const Done done = std::move(opening->done_);
  forget(opening);
  done(std::move(opened));
}

void LinkSource::forget(SshOpening* opening) {
  const auto child = children_.find(opening->pid());
  if (child != children_.end()) child->second = nullptr;
  openings_.remove_if([&](const auto& item) { return item.get() == opening; });
}

void LinkSource::reap() {
  std::vector<std::pair<SshOpening*, int>> ended;
  for (auto child = children_.begin(); child != children_.end();) {
    int status = 0;
    if (::waitpid(child->first, &status, WNOHANG) != child->first) {
      ++child;
      continue;
    }
    if (child->second != nullptr) ended.emplace_back(child->second, exit_code_of(status));
    child = children_.erase(child);
  }
  for (const auto& [opening, code] : ended) opening->child_ended(code);
}

void LinkSource::kill_hung(pid_t pid) {
  if (children_.contains(pid)) ::kill(pid, SIGKILL);
}

void LinkSource::terminate_children() {
  for (const auto& [pid, opening] : children_) ::kill(pid, SIGTERM);
}

}  // namespace waldo::apps
