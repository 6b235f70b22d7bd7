#include "apps/waldo/link_broker.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>

#include "apps/waldo/exit_code.h"
#include "apps/waldo/farewell.h"
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

std::string text_of(const nlohmann::json& request, const char* name) {
  return request.contains(name) && request[name].is_string() ? request[name].get<std::string>() : std::string();
}

int number_of(const nlohmann::json& request, const char* name, int otherwise) {
  return request.contains(name) && request[name].is_number_integer() ? request[name].get<int>() : otherwise;
}

SessionId session_of(const nlohmann::json& request) {  // 0, which is no session's, when it names none
  const bool named = request.contains("session") && request["session"].is_number_unsigned();
  return SessionId{named ? request["session"].get<uint64_t>() : 0};
}

}  // namespace

LinkBroker::LinkBroker(server::PollLoop& loop, LinkSettings settings) : loop_(loop), settings_(std::move(settings)) {}

LinkBroker::~LinkBroker() {
  if (listener_.valid()) loop_.unwatch(listener_.get());
  for (const auto& [fd, asker] : askers_) loop_.unwatch(fd);
}

void LinkBroker::open_ahead(std::function<void(const OpenedLink*, const LinkFailure*)> done) {
  source_for(settings_.target, settings_.gpus, settings_.likely)
      .open([this, done = std::move(done)](LinkSource::Opened opened) {
        if (const auto* failure = std::get_if<LinkFailure>(&opened)) return done(nullptr, failure);
        auto& link = std::get<OpenedLink>(opened);
        done(&link, nullptr);
        spare_ = std::move(link);
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
  char bytes[512];
  const ssize_t got = ::recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) askers_[fd].line.append(bytes, static_cast<size_t>(got));
  for (auto asker = askers_.find(fd); asker != askers_.end(); asker = askers_.find(fd)) {
    const size_t end = asker->second.line.find('\n');
    if (end == std::string::npos) {
      if (got <= 0 || asker->second.line.size() > kRequestBytesMax) end_asker(fd);
      return;
    }
    const std::string line = asker->second.line.substr(0, end);
    asker->second.line.erase(0, end + 1);
    on_wish(fd, line);
  }
}

void LinkBroker::on_wish(int fd, const std::string& line) {
  const auto request = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const std::string want =
      request.is_object() && request.contains("want") && request["want"].is_string() ? request["want"] : "";
  if (want == "link") return lend(fd, request);
  if (want == "remember") return remember(askers_[fd], request);
  if (want == "forget") {
    std::erase_if(askers_[fd].remembered, [&](const auto& item) { return item.session == session_of(request); });
    return;
  }
  answer(fd, LinkFailure{kExitOther, StatusKind::kInvalid, "the broker lends links and nothing else"});
}

void LinkBroker::remember(Asker& asker, const nlohmann::json& request) {
  Remembered session;
  session.session = session_of(request);
  const std::string target = text_of(request, "target"), secret = text_of(request, "secret");
  auto parsed = parse_target(target.empty() ? settings_.target.text : target);
  if (!parsed.ok() || secret.size() != 2 * session.secret.size() || session.session.raw == 0) return;
  session.target = *parsed;
  session.gpus = number_of(request, "gpus", settings_.gpus);
  for (size_t i = 0; i < session.secret.size(); ++i) {
    unsigned byte = 0;
    std::from_chars(secret.data() + 2 * i, secret.data() + 2 * i + 2, byte, 16);
    session.secret[i] = static_cast<std::byte>(byte);
  }
  std::erase_if(asker.remembered, [&](const auto& item) { return item.session == session.session; });
  asker.remembered.push_back(std::move(session));
}

void LinkBroker::lend(int fd, const nlohmann::json& request) {
  Target target = settings_.target;
  if (const std::string wanted = text_of(request, "target"); !wanted.empty()) {
    auto parsed = parse_target(wanted);
    if (!parsed.ok()) return answer(fd, LinkFailure{kExitUsage, parsed.status().kind(), parsed.status().text()});
    target = parsed.value();
  }
  const int gpus = number_of(request, "gpus", settings_.gpus);
  const bool again = request.contains("again");
  std::string likely = text_of(request, "frontend");
  if (likely != "torch" && likely != "tensorflow") likely = settings_.likely;
  if (const auto hung = links_.find(number_of(request, "hung", 0)); hung != links_.end()) {
    hung->second.first->kill_hung(hung->second.second);
    links_.erase(hung);
  }
  const bool is_ours = target.text == settings_.target.text;
  // Over a socket or ssh the worker is chosen when it hears who it is for.
  const bool fits = likely == settings_.likely || target.kind != Target::Kind::kLocal;
  if (is_ours && !again && fits && spare_ && is_alive(spare_->fd.get())) {
    OpenedLink opened = std::move(*spare_);
    spare_.reset();
    return answer(fd, std::move(opened), &source_for(target, gpus, settings_.likely));
  }
  if (is_ours && !again) spare_.reset();
  ++pending_;
  LinkSource& source = source_for(target, gpus, likely);
  source.open(
      [this, fd, &source](LinkSource::Opened opened) {
        --pending_;
        answer(fd, std::move(opened), &source);
      },
      again ? Purpose::kAgain : Purpose::kNew);
}

void LinkBroker::answer(int fd, LinkSource::Opened opened, LinkSource* source) {
  const auto asker = askers_.find(fd);
  if (asker == askers_.end()) return;  // it went away; so does its link
  if (const auto* link = std::get_if<OpenedLink>(&opened)) {
    const int64_t number = next_link_++;
    if (link->pid > 0 && source != nullptr) links_[number] = {source, link->pid};
    (void)os::send_fd(fd, as_bytes("{\"ok\": true, \"link\": " + std::to_string(number) + "}\n"), link->fd.get());
    return;
  }
  const auto& failure = std::get<LinkFailure>(opened);
  nlohmann::ordered_json json = {
      {"ok", false}, {"exit", failure.exit_code}, {"kind", name_of(failure.kind)}, {"text", failure.text}};
  const std::string line = json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  (void)os::write_all(fd, as_bytes(line), std::chrono::steady_clock::now() + std::chrono::seconds(5));
}

void LinkBroker::end_asker(int fd) {
  loop_.unwatch(fd);
  const auto ended = askers_.extract(fd);
  for (const auto& session : ended.mapped().remembered) say_farewell(session);
}

void LinkBroker::program_ended() {
  while (!askers_.empty()) {
    const int fd = askers_.begin()->first;
    on_readable(fd);  // its last words
    if (askers_.contains(fd)) end_asker(fd);
  }
}

void LinkBroker::say_farewell(const Remembered& session) {
  ++farewells_;
  source_for(session.target, session.gpus, settings_.likely)
      .open(
          [this, session](LinkSource::Opened opened) {
            --farewells_;
            if (const auto* link = std::get_if<OpenedLink>(&opened)) {
              end_session(link->fd.get(), session.session, session.secret);
            }
          },
          Purpose::kAgain);
}

LinkSource& LinkBroker::source_for(const Target& target, int gpus, const std::string& likely) {
  auto& source = sources_[{target.text, gpus, likely}];
  if (source == nullptr) {
    LinkSettings settings = settings_;
    settings.target = target;
    settings.gpus = gpus;
    settings.likely = likely;
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
