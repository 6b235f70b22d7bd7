#include "apps/waldo/link_broker.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "apps/waldo/exit_code.h"
#include "base/os/socket.h"

namespace waldo::apps {

namespace {

constexpr size_t kRequestBytesMax = 4096;

// Its worker may have died while nobody had asked for it yet.
bool is_alive(int link) {
  char byte;
  const ssize_t got = ::recv(link, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace

LinkBroker::LinkBroker(server::PollLoop& loop, LinkSettings settings) : loop_(loop), settings_(std::move(settings)) {}

LinkBroker::~LinkBroker() {
  if (listener_.valid()) loop_.unwatch(listener_.get());
  for (const auto& [fd, asker] : askers_) loop_.unwatch(fd);
}

void LinkBroker::open_ahead(std::function<void(const OpenedLink*, const LinkFailure*)> done) {
  source_for(settings_.target, settings_.gpus).open([this, done = std::move(done)](LinkSource::Opened opened) {
    if (const auto* failure = std::get_if<LinkFailure>(&opened)) return done(nullptr, failure);
    auto& link = std::get<OpenedLink>(opened);
    spare_ = std::move(link.fd);
    done(&link, nullptr);
  });
}

void LinkBroker::listen(os::UniqueFd listener) {
  listener_ = std::move(listener);
  loop_.watch(listener_.get(), POLLIN, [this](short) {
    auto asker = os::accept_unix(listener_.get());
    if (!asker.ok()) return;
    auto peer = os::peer_credentials(asker->get());
    if (peer.ok() && peer->uid == ::geteuid()) serve(std::move(asker.value()));
  });
}

void LinkBroker::serve(os::UniqueFd asker) {
  const int fd = asker.get();
  askers_[fd].fd = std::move(asker);
  loop_.watch(fd, POLLIN, [this, fd](short) { on_readable(fd); });
}

void LinkBroker::on_readable(int fd) {
  Asker& asker = askers_[fd];
  char bytes[512];
  const ssize_t got = ::recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) asker.line.append(bytes, static_cast<size_t>(got));
  const size_t end = asker.line.find('\n');
  if (end != std::string::npos) {
    const std::string line = asker.line.substr(0, end);
    asker.line.erase(0, end + 1);
    return on_request(fd, line);
  }
  if (got <= 0 || asker.line.size() > kRequestBytesMax) {
    loop_.unwatch(fd);
    askers_.erase(fd);
  }
}

void LinkBroker::on_request(int fd, const std::string& line) {
  const auto request = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const bool shaped = request.is_object() && request.contains("want") && request["want"] == "link";
  if (!shaped)
    return answer(fd, LinkFailure{kExitOther, StatusKind::kInvalid, "the broker lends links and nothing else"});
  Target target = settings_.target;
  int gpus = settings_.gpus;
  if (request.contains("target") && request["target"].is_string()) {
    auto parsed = parse_target(request["target"].get<std::string>());
    if (!parsed.ok()) return answer(fd, LinkFailure{kExitUsage, parsed.status().kind(), parsed.status().text()});
    target = parsed.value();
  }
  if (request.contains("gpus") && request["gpus"].is_number_integer()) gpus = request["gpus"].get<int>();
  const bool is_ours = target.text == settings_.target.text;
  if (is_ours && spare_ && is_alive(spare_->get())) {
    OpenedLink opened;
    opened.fd = std::move(*spare_);
    spare_.reset();
    return answer(fd, std::move(opened));
  }
  if (is_ours) spare_.reset();
  ++pending_;
  source_for(target, gpus).open([this, fd](LinkSource::Opened opened) {
    --pending_;
    answer(fd, std::move(opened));
  });
}

void LinkBroker::answer(int fd, LinkSource::Opened opened) {
  const auto asker = askers_.find(fd);
  if (asker == askers_.end()) return;  // it went away; so does its link
  if (const auto* link = std::get_if<OpenedLink>(&opened)) {
    (void)os::send_fd(fd, as_bytes("{\"ok\": true}\n"), link->fd.get());
    return;
  }
  const auto& failure = std::get<LinkFailure>(opened);
  nlohmann::ordered_json json = {
      {"ok", false}, {"exit", failure.exit_code}, {"kind", name_of(failure.kind)}, {"text", failure.text}};
  const std::string line = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  (void)os::write_all(fd, as_bytes(line), std::chrono::steady_clock::now() + std::chrono::seconds(5));
}

LinkSource& LinkBroker::source_for(const Target& target, int gpus) {
  auto& source = sources_[{target.text, gpus}];
  if (source == nullptr) {
    LinkSettings settings = settings_;
    settings.target = target;
    settings.gpus = gpus;
    settings.may_prompt = settings_.may_prompt && target.text == settings_.target.text;
    source = std::make_unique<LinkSource>(loop_, settings);
  }
  return *source;
}

void LinkBroker::reap() {
  for (auto& [key, source] : sources_) source->reap();
}

bool LinkBroker::has_children() const {
  return std::ranges::any_of(sources_, [](const auto& item) { return item.second->has_children(); });
}

}  // namespace waldo::apps
