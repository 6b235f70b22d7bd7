// The client's reconnector by itself, under simulated time: when it dials, when it gives up, what the user sees.
#include "client/reconnect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "channel/channel.h"
#include "sim/stage.h"

namespace waldo::client {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

const Status kRefused(StatusKind::kDisconnected, "connection refused");

class Reconnect : public testing::Test {
 protected:
  struct Attempt {
    TimePoint when;
    bool hangs;
    uint64_t link_number;
  };

  class ScriptedDialer final : public Dialer {
   public:
    explicit ScriptedDialer(Reconnect& test) : test_(test) {}
    Result<Dialed> dial(const wire::Hello& hello, bool hangs, const std::function<bool()>& stop) override {
      test_.attempts_.push_back({test_.stage_.now(), hangs, hello.link_number});
      test_.stage_.sleep(test_.dialing_takes_, stop);
      if (Status status = test_.script_(test_.attempts_.size()); !status.ok()) return status;
      return Dialed{nullptr, FrameNumber{0}};
    }
    void session_is_over() override { test_.over_ = true; }

   private:
    Reconnect& test_;
  };

  Reconnect() {
    ReconnectSettings settings;
    settings.target = "lab";
    settings.grace = 30s;
    settings.clock = &stage_.clock();
    settings.seed = 1;
    Reconnector::Session session;
    session.received = [this] { return FrameNumber{received_}; };
    session.heard_at = [this] { return heard_at_; };
    session.attach = [this](std::unique_ptr<channel::Link>, FrameNumber) {
      attached_at_ = heard_at_ = stage_.now();
      ++attached_;
      return Status();
    };
    session.give_up = [this](const Status& why) { gave_up_ = why; };
    ContactBanner::Sink sink{[this](std::string_view text) { said_.emplace_back(text); }, false};
    heard_at_ = stage_.now();
    reconnector_ = std::make_unique<Reconnector>(std::move(session), std::make_unique<ScriptedDialer>(*this),
                                                 std::move(settings), std::move(sink));
  }
  ~Reconnect() override { reconnector_->stop(); }

  void lose(const Status& why = kRefused) { reconnector_->on_link_lost(why); }

  sim::Stage stage_{7};
  std::function<Status(size_t attempt)> script_ = [](size_t) { return kRefused; };
  Duration dialing_takes_{0};
  std::vector<Attempt> attempts_;
  std::vector<std::string> said_;
  uint64_t received_ = 0;
  TimePoint heard_at_, attached_at_;
  int attached_ = 0;
  bool over_ = false;
  std::optional<Status> gave_up_;
  std::unique_ptr<Reconnector> reconnector_;
};

// Goal: at once, then 0.1 s doubling to 10 s, each between half of it and all; link numbers rise.
TEST_F(Reconnect, BacksOff) {
  const TimePoint began = stage_.now();
  lose();
  stage_.run_until([&] { return attempts_.size() == 12; });
  EXPECT_EQ(attempts_[0].when, began);
  Duration full = 100ms;
  for (size_t i = 1; i < attempts_.size(); ++i) {
    const Duration gap = attempts_[i].when - attempts_[i - 1].when;
    EXPECT_GE(gap, full / 2) << i;
    EXPECT_LE(gap, full) << i;
    EXPECT_EQ(attempts_[i].link_number, attempts_[i - 1].link_number + 1);
    full = std::min<Duration>(2 * full, 10s);
  }
}

TEST_F(Reconnect, NoTwoClientsKeepInStep) {
  Prng a(1), b(2);
  EXPECT_NE(retry_delay(5, a), retry_delay(5, b));
}

TEST_F(Reconnect, ALinkThatBringsUsFurtherBeginsAnew) {
  script_ = [](size_t attempt) { return attempt % 6 == 0 ? Status() : kRefused; };
  lose();
  stage_.run_until([&] { return attached_ == 1; });
  ++received_;
  lose();
  stage_.run_until([&] { return attached_ == 2; });
  const TimePoint lost_at = stage_.now();
  ++received_;
  lose();
  stage_.run_until([&] { return attempts_.size() == 13; });
  EXPECT_LE(attempts_[12].when - lost_at, 800ms);
}

// Goal: links that break before a single frame came through are not dialled in a loop without a pause.
TEST_F(Reconnect, LinksThatBringNothingAreNotDialledWithoutAPause) {
  script_ = [](size_t) { return Status(); };
  const TimePoint began = stage_.now();
  for (int i = 1; i <= 20; ++i) {
    lose();
    stage_.run_until([&] { return attached_ == i; });
  }
  EXPECT_GT(stage_.now() - began, 5s);
}

TEST_F(Reconnect, AHungLinkIsNamedSoThatItIsKilled) {
  script_ = [](size_t) { return Status(); };
  lose(Status(StatusKind::kDisconnected, channel::silent_peer_text));
  stage_.run_until([&] { return attached_ == 1; });
  lose();
  stage_.run_until([&] { return attached_ == 2; });
  EXPECT_TRUE(attempts_[0].hangs);
  EXPECT_FALSE(attempts_[1].hangs);
}

TEST_F(Reconnect, AfterTheGraceItSaysWhatToDo) {
  const TimePoint began = stage_.now();
  lose();
  stage_.run_until([&] { return gave_up_.has_value(); });
  EXPECT_GT(stage_.now() - began, 50s);  // the worker may have begun to count 19 s later
  EXPECT_LT(stage_.now() - began, 61s);
  EXPECT_EQ(gave_up_->kind(), StatusKind::kLost);
  EXPECT_THAT(gave_up_->text(), HasSubstr("start the program again, from its last checkpoint"));
  EXPECT_THAT(gave_up_->text(), HasSubstr("`waldo run --grace`"));
  EXPECT_FALSE(over_) << "the worker may still be there: somebody should tell it";
}

TEST_F(Reconnect, TheFarSidesLastWordIsFinal) {
  script_ = [](size_t attempt) { return attempt < 3 ? kRefused : Status(StatusKind::kLost, "the session is gone"); };
  lose();
  stage_.run_until([&] { return gave_up_.has_value(); });
  EXPECT_EQ(attempts_.size(), 3u);
  EXPECT_THAT(gave_up_->text(), HasSubstr("the session is gone"));
  EXPECT_TRUE(over_);
}

TEST_F(Reconnect, StoppingDoesNotWaitForTheDialer) {
  dialing_takes_ = 1h;
  lose();
  stage_.run_until([&] { return attempts_.size() == 1; });
  const TimePoint stopping = stage_.now();
  reconnector_->stop();
  EXPECT_LE(stage_.now() - stopping, 100ms);
}

// Goal: nothing for 2 s, then one line, and one when it is over.
TEST_F(Reconnect, ShortOutagesAreNotSaidLongOnesTwice) {
  script_ = [](size_t attempt) { return attempt == 3 || attempt >= 12 ? Status() : kRefused; };
  lose();
  stage_.run_until([&] { return attached_ == 1; });
  EXPECT_THAT(said_, ElementsAre());
  ++received_;
  lose();
  stage_.run_until([&] { return attached_ == 2; });
  stage_.run_until([&] { return said_.size() == 2; });
  EXPECT_EQ(said_[0], "waldo: lab: no contact for 2 s, retrying\n");
  EXPECT_THAT(said_[1], HasSubstr("waldo: lab: contact again after "));
}

TEST(ContactBanner, OnATerminalCountsAndGoesAway) {
  std::vector<std::string> said;
  ContactBanner banner("lab", {[&](std::string_view text) { said.emplace_back(text); }, true});
  banner.no_contact(1900ms);
  banner.no_contact(2100ms);
  banner.no_contact(2900ms);
  banner.no_contact(3000ms);
  banner.back();
  banner.back();
  EXPECT_THAT(said, ElementsAre("\r\033[Kwaldo: lab: no contact for 2 s, retrying",
                                "\r\033[Kwaldo: lab: no contact for 3 s, retrying", "\r\033[K"));
}

}  // namespace
}  // namespace waldo::client
