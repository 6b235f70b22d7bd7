#include "apps/waldo/target.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace waldo::apps {

namespace {

constexpr size_t kHostBytesMax = 400;  // a name has 255 at most, and there is a user before it

bool names_a_host(std::string_view text) {
  const bool shaped =
      !text.empty() && text.size() <= kHostBytesMax && text.front() != '-' && text.front() != '@' && text.back() != '@';
  return shaped && std::ranges::all_of(text, [](unsigned char letter) {
           return std::isalnum(letter) ||
                  std::string_view("._-@%+").find(static_cast<char>(letter)) != std::string_view::npos;
         });
}

bool looks_like_ipv6(std::string_view text) {
  return std::ranges::count(text, ':') >= 2 && std::ranges::all_of(text, [](unsigned char letter) {
           return std::isxdigit(letter) || letter == ':' || letter == '.' || letter == '%' || std::isalnum(letter) ||
                  letter == '@';
         });
}

}  // namespace

Result<Target> parse_target(const std::string& text) {
  constexpr const char* kForms = "A target is `local`, an ssh host (lab, me@lab, ssh://me@lab:2222) or unix:PATH";
  const auto invalid = [](const std::string& what) { return Status(StatusKind::kInvalid, what); };
  if (text.empty()) return invalid(std::string("the target is empty. ") + kForms);
  if (text == "local") return Target{};
  if (text.starts_with("unix:")) {
    const std::string path = text.substr(5);
    if (path.empty()) return invalid("\"unix:\" names no path. Try: unix:/path/to/daemon.sock");
    return Target{Target::Kind::kUnix, text, path};
  }
  if (text.starts_with("tcp:")) {
    return Status(StatusKind::kUnsupported, "tcp: targets are not in this version. Use ssh: --on HOST");
  }
  if (text.starts_with("ssh://")) {
    const std::string rest = text.substr(6);
    const size_t colon = rest.find(':');
    const std::string port = colon == std::string::npos ? "22" : rest.substr(colon + 1);
    const bool port_ok = !port.empty() && port.size() <= 5 &&
                         std::ranges::all_of(port, [](unsigned char c) { return std::isdigit(c); }) &&
                         std::stoi(port) <= 65535;
    if (names_a_host(rest.substr(0, colon)) && port_ok) return Target{Target::Kind::kSsh, text, text};
  }
  if (names_a_host(text) || looks_like_ipv6(text)) return Target{Target::Kind::kSsh, text, text};
  const size_t colon = text.find(':');
  if (colon != std::string::npos && names_a_host(text.substr(0, colon)) && colon + 1 < text.size() &&
      std::ranges::all_of(text.substr(colon + 1), [](unsigned char c) { return std::isdigit(c); })) {
    return invalid("\"" + text + "\" is not a target. With a port, write: ssh://" + text);
  }
  return invalid("\"" + text + "\" is not a target. " + kForms);
}

}  // namespace waldo::apps
