// Lends links to the processes of one program. They ask with one line of JSON and get one back, with a descriptor:
//
//   {"want": "link", "target": "lab", "gpus": 2}       target and gpus may be missing: the broker's own
//   {"ok": true}                                        the link comes with it (SCM_RIGHTS)
//   {"ok": false, "exit": 3, "kind": "kDisconnected", "text": "lab: …"}
//
// The first link may be opened before anybody asks, so that its worker loads while the program does.
// Threads: the loop's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "apps/waldo/link_source.h"
#include "base/os/unique_fd.h"
#include "server/poll_loop.h"

namespace waldo::apps {

class LinkBroker {
 public:
  LinkBroker(server::PollLoop& loop, LinkSettings settings);
  ~LinkBroker();

  // Opens the first link ahead. `done` gets what is known of the far side, or the failure; perhaps at once.
  void open_ahead(std::function<void(const OpenedLink*, const LinkFailure*)> done);

  void listen(os::UniqueFd listener);  // everybody of this user who connects
  void serve(os::UniqueFd asker);      // one connection
  bool busy() const { return !askers_.empty() || pending_ > 0; }

  void reap();  // after SIGCHLD
  bool has_children() const;
  void drop_spare() { spare_.reset(); }

 private:
  struct Asker {
    os::UniqueFd fd;
    std::string line;
  };

  void on_readable(int fd);
  void on_request(int fd, const std::string& line);
  void answer(int fd, LinkSource::Opened opened);
  LinkSource& source_for(const Target& target, int gpus);

  server::PollLoop& loop_;
  const LinkSettings settings_;
  os::UniqueFd listener_;
  std::map<int, Asker> askers_;
  std::map<std::pair<std::string, int>, std::unique_ptr<LinkSource>> sources_;
  std::optional<os::UniqueFd> spare_;
  int pending_ = 0;
};

}  // namespace waldo::apps
