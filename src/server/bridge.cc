#include "server/bridge.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <vector>

#include "base/os/socket.h"
#include "server/banner.h"
#include "server/daemon_client.h"

namespace waldo::server {

namespace {

constexpr size_t kRoomBytes = 256u << 10;

os::Deadline far_sides_deadline() { return std::chrono::steady_clock::now() + std::chrono::seconds(10); }

int fail(const std::string& text) {
  std::fprintf(stderr, "waldo: bridge: %s\n", text.c_str());
  return 1;
}

// A line of the caller; false at its end. One byte at a time: what follows "go" is not ours to read.
bool read_line(std::string* line) {
  line->clear();
  for (char byte;;) {
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || line->size() > 64) return false;
    if (byte == '\n') return true;
    line->push_back(byte);
  }
}

// One direction: a buffer between two descriptors.
struct Flow {
  int from, to;
  std::vector<char> room = std::vector<char>(kRoomBytes);
  size_t begin = 0, end = 0;

  bool empty() const { return begin == end; }
  bool pull() {  // false: the end
    const ssize_t got = ::read(from, room.data(), room.size());
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    begin = 0;
    end = static_cast<size_t>(got);
    return got > 0;
  }
  bool push() {
    const ssize_t put = ::write(to, room.data() + begin, end - begin);
    if (put < 0) return errno == EAGAIN || errno == EINTR;
    begin += static_cast<size_t>(put);
    return true;
  }
};

void carry(int socket) {
  Flow up{STDIN_FILENO, socket}, down{socket, STDOUT_FILENO};
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, socket}) {
    if (!os::set_nonblocking(fd).ok()) return;
  }
  for (;;) {
    // A closed far side is seen even while it has nothing to say: poll reports errors without being asked.
    pollfd items[3] = {{up.empty() ? STDIN_FILENO : -1, POLLIN, 0},
                       {STDOUT_FILENO, static_cast<short>(down.empty() ? 0 : POLLOUT), 0},
                       {socket, static_cast<short>((down.empty() ? POLLIN : 0) | (up.empty() ? 0 : POLLOUT)), 0}};
    if (::poll(items, 3, -1) < 0 && errno != EINTR) return;
    constexpr short kGone = POLLHUP | POLLERR | POLLNVAL;
    if (up.empty() && (items[0].revents & (POLLIN | kGone)) != 0 && !up.pull()) return;
    if (!up.empty() && !up.push()) return;
    if (down.empty() && (items[2].revents & (POLLIN | kGone)) != 0 && !down.pull()) return;
    if (!down.empty() && !down.push()) return;
    if ((items[1].revents & kGone) != 0) return;
  }
}

}  // namespace

int run_bridge(const std::string& package_dir, bool resumes, const std::string& likely) {
  ::signal(SIGPIPE, SIG_IGN);
  auto path = ensure_daemon();
  if (!path.ok()) return fail(path.status().text());
  auto link = os::connect_unix(*path);
  if (!link.ok()) return fail(link.status().text());
  auto banner = ask_info(*path);
  if (!banner.ok()) banner = make_banner(package_dir);
  if (!resumes) {  // it loads while the caller's program does
    const char* wish =
        likely == "tensorflow" ? R"({"want": "prestart", "likely": "tensorflow"})" : R"({"want": "prestart"})";
    (void)ask_daemon(*path, wish);
  }
  const std::string hello = kBannerMark + to_json(*banner) + "\n";
  if (!os::write_all(STDOUT_FILENO, as_bytes(hello), far_sides_deadline()).ok()) return 1;
  for (std::string line; line != "go";) {
    if (!read_line(&line)) return 0;
    if (line == "ping" && !os::write_all(STDOUT_FILENO, as_bytes("pong\n"), far_sides_deadline()).ok()) return 1;
    if (line != "ping" && line != "go") return fail("expected ping or go. This command is for `waldo run --on HOST`");
  }
  carry(link->get());
  return 0;
}

}  // namespace waldo::server
