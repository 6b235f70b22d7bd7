// The product's Dialer: a link from the broker, then HELLO on it. Also how a session gets its first link.
//
// Threads: one at a time.
#pragma once

#include <memory>

#include "client/connect.h"
#include "client/lend.h"
#include "client/reconnect.h"

namespace waldo::client {

class BrokerDialer final : public Dialer {
 public:
  explicit BrokerDialer(LendRequest request) : target_(request.target), broker_(std::move(request)) {}

  struct First {
    std::unique_ptr<channel::Link> link;
    Greeting greeting;
  };
  // Makes the session. A link that breaks before the answer is replaced, a few times: HELLO says the same secret, so
  // that no second session is made. `hello`: session 0; its link number rises with each link.
  Result<First> dial_first(wire::Hello& hello, const std::function<bool()>& stop);

  Result<Dialed> dial(const wire::Hello& hello, bool hangs, const std::function<bool()>& stop) override;
  void session_is_over() override { broker_.forget(session_); }

  // The broker is to end this session should we not.
  void remember(SessionId session, const wire::Secret& secret);

 private:
  const std::string target_;
  Broker broker_;
  SessionId session_;
  bool last_hung_ = false;  // the last attempt got a link that never answered
};

}  // namespace waldo::client
