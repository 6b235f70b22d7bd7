// Folders for sockets and logs: private to the user, on this host's own disk, and gone with the boot they belong to.
#pragma once

#include <string>

#include "base/status.h"

namespace waldo::server {

// Where the user's daemon of this host keeps its socket, lock and log; made when missing (0700, owner checked).
// $XDG_STATE_HOME/waldo/<hostname>-<boot id>, or /tmp/waldo-<uid> on a network file system or past 100 bytes of path.
Result<std::string> make_daemon_dir();
std::string daemon_socket_path(const std::string& dir);  // dir + "/daemon.sock"

// /tmp/waldo-<uid>: for sockets whose path must be short. "": it cannot be had.
std::string short_private_dir();

// Makes `path` for this user alone. kInvalid: it is somebody else's, or open to others.
Status make_private_dir(const std::string& path);

// A new folder for one run, removed with its content by the destructor. What a killed run left is removed by the next
// one: a live run holds a lock on a file in its folder.
class RunDir {
 public:
  static Result<RunDir> make();
  RunDir(RunDir&& other) noexcept : path_(std::move(other.path_)), lock_fd_(other.lock_fd_) {
    other.path_.clear();
    other.lock_fd_ = -1;
  }
  RunDir& operator=(RunDir&&) = delete;
  ~RunDir();

  const std::string& path() const { return path_; }
  void forget() { path_.clear(); }  // in a forked process that does not own it

 private:
  RunDir(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
  std::string path_;
  int lock_fd_ = -1;
};

}  // namespace waldo::server
