// Lends links to the processes of one program. They ask with one line of JSON and get one back, with a descriptor:
//
//   {"want": "link", "target": "lab", "gpus": 2}       target and gpus may be missing: the broker's own; "frontend":
//   for
//                                                      whom a worker here is to be ready
//   {"ok": true, "link": 1}                             the link comes with it (SCM_RIGHTS)
//   {"ok": false, "exit": 3, "kind": "kDisconnected", "text": "lab: …"}
//   {"want": "link", …, "again": true, "hung": 1}      for a session that lost its link; link 1 is silent: kill its ssh
//   {"want": "remember", "target", "gpus", "session": 7, "secret": "0f…"}   no answer: should this connection end
//   {"want": "forget", "session": 7}                    without this, the broker ends that session (farewell.h)
//
// The first link may be opened before anybody asks, so that its worker loads while the program does.
// Threads: the loop's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "apps/waldo/link_source.h"
#include "base/os/unique_fd.h"
#include "server/poll_loop.h"
#include "wire/messages.h"

namespace waldo::apps {

class LinkBroker {
 public:
  LinkBroker(server::PollLoop& loop, LinkSettings settings);
  ~LinkBroker();

  // Opens the first link ahead. `done` gets what is known of the far side, or the failure; perhaps at once.
  void open_ahead(std::function<void(const OpenedLink*, const LinkFailure*)> done);

  void listen(os::UniqueFd listener);  // everybody of this user who connects
  void serve(os::UniqueFd asker);      // one connection
  bool busy() const { return !askers_.empty() || pending_ > 0 || farewells_ > 0; }
  bool says_farewell() const { return farewells_ > 0; }
  // The program is gone: whoever was still connected will not say forget any more.
  void program_ended();

  void reap();  // after SIGCHLD
  bool has_children() const;
  void drop_spare() { spare_.reset(); }

 private:
  struct Remembered {
    Target target;
    int gpus = 0;
    SessionId session;
    wire::Secret secret{};
  };
  struct Asker {
    os::UniqueFd fd;
    std::string line;
    std::vector<Remembered> remembered;
  };

  void on_readable(int fd);
  void on_wish(int fd, const std::string& line);
  void remember(Asker& asker, const nlohmann::json& request);
  void lend(int fd, const nlohmann::json& request);
  void end_asker(int fd);
  void say_farewell(const Remembered& session);
  void answer(int fd, LinkSource::Opened opened, LinkSource* source = nullptr);
  LinkSource& source_for(const Target& target, int gpus, const std::string& likely);

  server::PollLoop& loop_;
  const LinkSettings settings_;
  os::UniqueFd listener_;
  std::map<int, Asker> askers_;
  std::map<std::tuple<std::string, int, std::string>, std::unique_ptr<LinkSource>> sources_;
  std::optional<OpenedLink> spare_;
  std::map<int64_t, std::pair<LinkSource*, pid_t>> links_;  // lent, by their number
  int64_t next_link_ = 1;
  int pending_ = 0, farewells_ = 0;
};

}  // namespace waldo::apps
