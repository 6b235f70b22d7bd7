// Brings a session's link back: dials until the far side answers, says that there is nothing to come back to, or the
// time that a worker keeps a lost client's session is over. The program's threads meanwhile just wait longer.
//
// Threads: one of its own, which dials and may wait; it starts at the first loss. on_link_lost() and on_silence() come
// from the loop and never wait. stop() joins, at most as long as a Dialer takes to ask `stop` (50 ms).
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/blocking.h"
#include "base/prng.h"
#include "base/status.h"
#include "channel/link.h"
#include "client/contact.h"
#include "wire/messages.h"

namespace waldo::client {

class Dialer {
 public:
  virtual ~Dialer() = default;
  struct Dialed {
    std::unique_ptr<channel::Link> link;
    FrameNumber peer_received;
  };
  // One attempt; blocks, asks `stop` about every 50 ms. `hello` names the session. `hangs`: the link before was silent,
  // not closed, so what carries it may hang. kLost and kUnsupported are the far side's last word; every other failure
  // is a reason to try again.
  virtual Result<Dialed> dial(const wire::Hello& hello, bool hangs, const std::function<bool()>& stop) = 0;
  virtual void session_is_over() {}  // both sides know: nobody needs to be told
};

struct ReconnectSettings {
  std::string target;
  std::chrono::seconds grace{0};  // how long the worker keeps the session
  wire::Hello hello;              // of the first link: session, secret, info
  const Clock* clock = &Clock::real();
  uint64_t seed = 0;  // of the jitter
};

// How long to wait before attempt n (from 0): at once, then 0.1 s doubling to 10 s, half of it by chance.
Duration retry_delay(int attempt, Prng& prng);

class Reconnector {
 public:
  // What it needs of its session. attach() as Channel's; give_up() ends the session with the reason.
  struct Session {
    std::function<FrameNumber()> received;
    std::function<TimePoint()> heard_at;
    std::function<Status(std::unique_ptr<channel::Link>, FrameNumber)> attach;
    std::function<void(const Status&)> give_up;
  };

  Reconnector(Session session, std::unique_ptr<Dialer> dialer, ReconnectSettings settings, ContactBanner::Sink banner);
  ~Reconnector() { stop(); }

  void on_link_lost(const Status& why);
  void on_silence();
  void finish();  // no more attempts; does not wait
  void stop();
  void session_is_over() { dialer_->session_is_over(); }
  uint64_t attempts() const;

 private:
  void wake();
  void run();
  void come_back(std::unique_lock<std::mutex>& lock);
  bool wait(std::unique_lock<std::mutex>& lock, Duration time);  // false: stopped
  void show_contact();

  const Session session_;
  const std::unique_ptr<Dialer> dialer_;
  const ReconnectSettings settings_;

  // The thread's.
  ContactBanner banner_;
  Prng prng_;
  uint64_t link_number_ = 1;
  FrameNumber progress_;  // what we had when the last attempt began

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // mutex_
  bool started_ = false, stopped_ = false;
  bool lost_ = false, hangs_ = false, silent_ = false;
  TimePoint lost_at_;
  int failures_ = 0;  // attempts since the last one that brought us further
  uint64_t attempts_ = 0;
  Thread thread_;
};

}  // namespace waldo::client
