#include "server/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "base/os/socket.h"

namespace waldo::server {

namespace fs = std::filesystem;

namespace {

constexpr size_t kSocketPathMax = 100;
constexpr const char* kRunPrefix = "waldo-run-";

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id.empty() ? "boot" : id;
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0 || name[0] == 0) return "localhost";
  std::string text = name;
  for (char& letter : text) {
    if (letter == '/') letter = '_';
  }
  return text;
}

std::string state_home() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && state[0] == '/') return state;
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/')
    return std::string(home) + "/.local/state";
  return "";
}

// A socket on a network file system works on one host only, and its lock on none.
bool on_network([[maybe_unused]] fs::path path) {
#ifdef __linux__
  std::error_code error;
  while (!fs::exists(path, error) && path.has_parent_path() && path != path.parent_path()) path = path.parent_path();
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return false;
  switch (static_cast<unsigned long>(info.f_type)) {
    case 0x6969:      // nfs
    case 0x517b:      // smb
    case 0xff534d42:  // cifs
    case 0xfe534d42:  // smb2
    case 0x5346414f:  // afs
    case 0x0bd00bd0:  // lustre
    case 0x00c36400:  // ceph
    case 0x47504653:  // gpfs
    case 0x19830326:  // beegfs
      return true;
    default:
      return false;
  }
#else
  return false;
#endif
}

// Folders of this host's earlier boots.
void remove_older(const fs::path& parent, const std::string& current) {
  std::error_code error;
  const std::string prefix = host_name() + "-";
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename().string();
    const bool shaped = name.size() == current.size() && name.starts_with(prefix);
    if (shaped && name != current) fs::remove_all(entry.path(), error);
  }
}

std::string temporary_home() {
  const char* given = std::getenv("TMPDIR");
  std::error_code error;
  if (given != nullptr && given[0] == '/' && std::string(given).size() <= 60 && fs::is_directory(given, error))
    return given;
  return "/tmp";
}

void remove_abandoned_runs(const fs::path& parent) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    if (!entry.path().filename().string().starts_with(kRunPrefix)) continue;
    struct stat info {};
    if (::lstat(entry.path().c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) continue;
    const os::UniqueFd lock(::open((entry.path() / "lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;  // being made, or alive
    fs::remove_all(entry.path(), error);
  }
}

std::string short_private_path() { return "/tmp/waldo-" + std::to_string(::geteuid()); }

}  // namespace

Status make_private_dir(const std::string& path) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Status(StatusKind::kInvalid, "make " + path + ": " + os::error_text(errno));
  }
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Status(StatusKind::kInvalid, path + " is not a folder");
  }
  if (info.st_uid != ::geteuid()) return Status(StatusKind::kInvalid, path + " belongs to another user");
  if ((info.st_mode & 077) != 0 && ::chmod(path.c_str(), 0700) != 0) {
    return Status(StatusKind::kInvalid, path + " is open to others");
  }
  return {};
}

std::string daemon_socket_path(const std::string& dir) { return dir + "/daemon.sock"; }

Result<std::string> make_daemon_dir() {
  const std::string home = state_home();
  const std::string name = host_name() + "-" + boot_id();
  const std::string wanted = home + "/waldo/" + name;
  if (!home.empty() && daemon_socket_path(wanted).size() <= kSocketPathMax && !on_network(wanted)) {
    if (make_private_dir(wanted).ok()) {
      remove_older(fs::path(wanted).parent_path(), name);
      return wanted;
    }
  }
  const std::string fallback = short_private_path();
  WALDO_TRY(make_private_dir(fallback));
  return fallback;
}

std::string short_private_dir() {
  const std::string path = short_private_path();
  return make_private_dir(path).ok() ? path : "";
}

Result<RunDir> RunDir::make() {
  const std::string parent = temporary_home();
  remove_abandoned_runs(parent);
  std::string path = parent + "/" + kRunPrefix + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return Status(StatusKind::kInternal, "make a folder in " + parent + ": " + os::error_text(errno));
  }
  const int lock = ::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock >= 0) ::flock(lock, LOCK_EX | LOCK_NB);
  return RunDir(path, lock);
}

RunDir::~RunDir() {
  std::error_code error;
  if (!path_.empty()) fs::remove_all(path_, error);
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

}  // namespace waldo::server
