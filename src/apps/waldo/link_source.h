// Opens links to one target: starts a worker (local), runs ssh, or connects to a daemon's socket.
//
// What it starts lives as long as its link, not as long as this object; nothing of a lent link stays open here.
// Threads: the loop's. The owner calls reap() when a child may have ended (SIGCHLD).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "apps/waldo/ssh.h"
#include "apps/waldo/target.h"
#include "base/os/unique_fd.h"
#include "server/banner.h"
#include "server/poll_loop.h"

namespace waldo::apps {

struct LinkSettings {
  Target target;
  int gpus = 0;                  // 0: as many as there are; 1 for `local`
  std::string package_dir;       // where the embedded worker's parts are
  bool may_prompt = false;       // ssh may use the terminal for the first link
  std::string likely = "torch";  // the front end that a worker gets ready for
};

// kAgain: for a session that lost its link. The way there may be a hung connection that others share: every other
// attempt goes its own way, and none waits long.
enum class Purpose : uint8_t { kNew, kAgain };

struct OpenedLink {
  os::UniqueFd fd;
  pid_t pid = 0;          // of the ssh that carries it; 0: none
  server::Banner banner;  // empty for `local`
  std::chrono::microseconds round_trip{0};
};

class LinkSource {
 public:
  using Opened = std::variant<OpenedLink, LinkFailure>;
  using Done = std::function<void(Opened)>;

  LinkSource(server::PollLoop& loop, LinkSettings settings);
  ~LinkSource();  // ends what has not become a link yet

  // Calls `done` once, perhaps at once. Several may be under way.
  void open(Done done, Purpose purpose = Purpose::kNew);

  // What carries this link is said to hang. Only if it is still ours and runs.
  void kill_hung(pid_t pid);
  void reap();
  bool has_children() const { return !children_.empty(); }
  void terminate_children();  // those that have not ended with their link

 private:
  class SshOpening;
  friend class SshOpening;

  Opened open_local();
  Opened open_unix();
  void open_ssh(Done done, bool home_install, Purpose purpose);
  void read_ssh_config();
  void finish(SshOpening* opening, Opened opened);
  void forget(SshOpening* opening);

  server::PollLoop& loop_;
  const LinkSettings settings_;
  SshSettings ssh_;
  bool ssh_ready_ = false;     // ssh_ has the user's configuration in it
  bool home_install_ = false;  // found waldo in ~/.local/bin there
  bool first_ = true;
  bool own_way_ = false;                   // the next attempt of kAgain
  std::map<pid_t, SshOpening*> children_;  // null: a worker, or an opening that is over
  std::list<std::unique_ptr<SshOpening>> openings_;
};

}  // namespace waldo::apps
