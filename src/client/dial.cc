#include "client/dial.h"

namespace waldo::client {
namespace {

constexpr int kFirstLinksMax = 8;

}  // namespace

Result<BrokerDialer::First> BrokerDialer::dial_first(wire::Hello& hello, const std::function<bool()>& stop) {
  for (int link = 1;; ++link) {
    auto fd = broker_.lend(link == 1 ? Broker::For::kNew : Broker::For::kAgain, stop);
    if (!fd.ok()) return fd.status();
    auto greeting = greet(fd->get(), hello, target_, stop);
    if (greeting.ok()) return First{channel::make_socket_link(std::move(*fd)), std::move(*greeting)};
    const Status& why = greeting.status();
    if (why.kind() != StatusKind::kDisconnected) return why;
    if (target_ == "local" || link == kFirstLinksMax) return Status(StatusKind::kLost, why.text(), why.detail());
    ++hello.link_number;
  }
}

Result<Dialer::Dialed> BrokerDialer::dial(const wire::Hello& hello, bool hangs, const std::function<bool()>& stop) {
  const bool hung = hangs || std::exchange(last_hung_, false);
  auto fd = broker_.lend(hung ? Broker::For::kAgainHung : Broker::For::kAgain, stop);
  if (!fd.ok()) {
    // A broker's "no" is about the way there; the session may well be waiting at its end.
    if (fd.status().kind() == StatusKind::kUnsupported) return fd.status();
    return Status(StatusKind::kDisconnected, fd.status().text(), fd.status().detail());
  }
  auto greeting = greet(fd->get(), hello, target_, stop);
  if (!greeting.ok()) {
    last_hung_ = greeting.status().kind() == StatusKind::kDisconnected;
    return greeting.status();
  }
  return Dialed{channel::make_socket_link(std::move(*fd)), greeting->welcome.received};
}

void BrokerDialer::remember(SessionId session, const wire::Secret& secret) {
  session_ = session;
  broker_.remember(session, secret);
}

}  // namespace waldo::client
