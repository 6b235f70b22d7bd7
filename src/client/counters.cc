#include "client/counters.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

namespace waldo::client {
namespace {

constexpr size_t kPlacesShown = 12;

std::string human_bytes(uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  if (bytes < 10'000'000'000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
  return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

std::vector<WaitPlace> longest_first(std::vector<WaitPlace> places) {
  std::stable_sort(places.begin(), places.end(),
                   [](const WaitPlace& a, const WaitPlace& b) { return a.seconds > b.seconds; });
  return places;
}

bool write_all(int fd, const std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t written = ::write(fd, text.data() + at, text.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      if (written == 0) errno = EIO;
      return false;
    }
    at += static_cast<size_t>(written);
  }
  return true;
}

// Errno of the first step that failed, or 0. Close is a step: network file systems and quotas report there.
int write_file(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return errno;
  int error = write_all(fd, text) ? 0 : errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  return error;
}

// Whole or not at all, where that is possible: a device, a pipe or a link must not be replaced by a file.
int replace_file(const std::string& path, const std::string& text) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) return write_file(path, text);
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  int error = write_file(temporary, text);
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) ::unlink(temporary.c_str());
  return error;
}

}  // namespace

std::string stats_json(const Counters& counters) {
  nlohmann::ordered_json places = nlohmann::ordered_json::array();
  for (const WaitPlace& place : longest_first(counters.waits_at)) {
    places.push_back({{"file", place.file}, {"line", place.line}, {"count", place.count}, {"seconds", place.seconds}});
  }
  const nlohmann::ordered_json json = {
      {"calls", counters.calls},       {"messages", counters.messages},     {"waits", counters.waits},
      {"bytes_up", counters.bytes_up}, {"bytes_down", counters.bytes_down}, {"plans", counters.plans},
      {"asks", counters.asks},         {"conforms", counters.conforms},     {"frees", counters.frees},
      {"waits_at", std::move(places)}};
  // File names need not be UTF-8; a name that is not must not throw at exit.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string stats_table(const Counters& counters) {
  double seconds = 0;
  for (const WaitPlace& place : counters.waits_at) seconds += place.seconds;
  std::string text =
      fmt::format("waldo: {} calls · {} messages · {} waits", counters.calls, counters.messages, counters.waits);
  if (counters.waits != 0)
    text += fmt::format(" ({:.1f} ms each)", 1e3 * seconds / static_cast<double>(counters.waits));
  text += fmt::format(" · {} up · {} down\n", human_bytes(counters.bytes_up), human_bytes(counters.bytes_down));

  const auto places = longest_first(counters.waits_at);
  if (places.empty()) return text;
  text += fmt::format("{:>9} {:>10} {:>10}  {}\n", "waits", "seconds", "ms each", "at");
  for (size_t i = 0; i < std::min(places.size(), kPlacesShown); ++i) {
    const WaitPlace& place = places[i];
    const double each = place.count == 0 ? 0 : 1e3 * place.seconds / static_cast<double>(place.count);
    text += fmt::format("{:>9} {:>10.3f} {:>10.1f}  {}\n", place.count, place.seconds, each,
                        place.file.empty() ? "(no Python line)" : fmt::format("{}:{}", place.file, place.line));
  }
  if (places.size() > kPlacesShown) text += fmt::format("          and {} more places\n", places.size() - kPlacesShown);
  return text;
}

void write_stats(const Counters& counters, bool connected) {
  const char* where = std::getenv("WALDO_STATS");
  if (where == nullptr || *where == '\0') return;
  const std::string path = where;
  if (path == "-") {
    if (connected) write_all(STDERR_FILENO, stats_table(counters));
    return;
  }
  if (!connected && ::access(path.c_str(), F_OK) == 0) return;
  if (const int error = replace_file(path, stats_json(counters)); error != 0) {
    write_all(STDERR_FILENO,
              fmt::format("waldo: the statistics could not be written to {}: {}\n", path, std::strerror(error)));
  }
}

}  // namespace waldo::client
