// The process-wide table of devices. It can be used once per process, so each test is a child process of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "base/os/socket.h"
#include "channel/handshake.h"
#include "channel/link.h"
#include "client/session.h"
#include "server/fake_backend.h"
#include "server/session.h"

namespace waldo::client {
namespace {

using testing::HasSubstr;

os::Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

// A broker with a worker of its own, in this process: what `waldo run` is to its program.
class FakeBroker {
 public:
  explicit FakeBroker(int devices) : backend_(devices) {
    char name[] = "/tmp/waldo-runtime-XXXXXX";
    folder_ = mkdtemp(name);
    auto listener = os::listen_unix(folder_ + "/broker");
    EXPECT_TRUE(listener.ok());
    listener_ = std::move(*listener);
    setenv("WALDO_BROKER", (folder_ + "/broker").c_str(), 1);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeBroker() {
    thread_.join();
    session_.reset();
    std::filesystem::remove_all(folder_);
  }
  const std::string& folder() const { return folder_; }
  bool asked() const { return asked_; }
  Status end() { return ended_.get_future().get(); }

 private:
  void serve() {
    auto guest = os::accept_unix(listener_.get());
    if (!guest.ok()) return;
    asked_ = true;
    auto ends = os::make_socketpair();
    ASSERT_TRUE(os::send_fd(guest->get(), as_bytes("{\"ok\":true}\n"), ends->first.get()).ok());
    ends->first.reset();
    ASSERT_TRUE(channel::read_hello(ends->second.get(), soon()).ok());
    auto made = server::Session::make(loop_, backend_, server::FaultPlan(),
                                      [this](const Status& why) { ended_.set_value(why); });
    ASSERT_TRUE(made.ok());
    session_ = std::move(*made);
    wire::Welcome welcome;
    welcome.session = SessionId{1};
    welcome.info_json = backend_.info_json();
    ASSERT_TRUE(channel::write_welcome(ends->second.get(), welcome, soon()).ok());
    ASSERT_TRUE(session_->attach(channel::make_socket_link(std::move(ends->second)), FrameNumber{0}).ok());
  }

  server::FakeBackend backend_;
  std::string folder_;
  os::UniqueFd listener_;
  channel::Loop loop_;
  std::unique_ptr<server::Session> session_;
  std::promise<Status> ended_;
  std::atomic<bool> asked_{false};
  std::thread thread_;
};

// Runs `body` in a process that has never had a runtime; its failures are the test's.
void in_fresh_process(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "see above; wait status " << status;
}

TEST(Runtime, TheNumberOfDevicesNeedsNoConnection) {
  in_fresh_process([] {
    setenv("WALDO_BROKER", "/no/such/broker", 1);
    setenv("WALDO_GPUS", "3", 1);
    EXPECT_EQ(Runtime::instance().device_count(), 3);
    EXPECT_FALSE(Runtime::instance().connected());
  });
  in_fresh_process([] {
    unsetenv("WALDO_GPUS");
    EXPECT_EQ(Runtime::instance().device_count(), 1);  // local
  });
  in_fresh_process([] {
    setenv("WALDO_GPUS", "3", 1);
    setenv("CUDA_VISIBLE_DEVICES", "2,0", 1);
    EXPECT_EQ(Runtime::instance().device_count(), 2);
  });
  in_fresh_process([] {
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    EXPECT_EQ(Runtime::instance().device_count(), 0);
  });
}

// Goal: from the first question to the goodbye, with the devices in the order the user wants.
TEST(Runtime, ConnectsAtFirstUseAndEndsWithStatistics) {
  in_fresh_process([] {
    setenv("WALDO_GPUS", "3", 1);
    setenv("CUDA_VISIBLE_DEVICES", "2,0", 1);
    FakeBroker broker(3);
    const std::string stats = broker.folder() + "/stats.json";
    setenv("WALDO_STATS", stats.c_str(), 1);
    Runtime& runtime = Runtime::instance();
    EXPECT_FALSE(broker.asked());
    std::vector<std::thread> threads;  // several at once: one connection
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        auto queue = runtime.queue(i % 2);
        ASSERT_TRUE(queue.ok()) << queue.status().text();
        EXPECT_EQ((*queue)->id(), QueueId{static_cast<uint16_t>(i % 2 == 0 ? 2 : 0)});
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_TRUE(runtime.connected());
    EXPECT_THAT(runtime.queue(2).status().text(), HasSubstr("invalid device ordinal"));
    Queue& queue = **runtime.queue(0);
    EXPECT_EQ(queue.session().worker().devices.size(), 3u);
    ASSERT_TRUE(queue.synchronize().ok());
    EXPECT_EQ(runtime.counters().waits, 1u);
    EXPECT_EQ(runtime.counters().calls, 1u);

    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      const bool right = runtime.in_forked_child() && queue.synchronize().kind() == StatusKind::kInvalid &&
                         runtime.queue(0).ok() && !(*runtime.queue(0))->create(Slot::make(queue.id(), 0), 4).ok() &&
                         runtime.counters().calls == 0;
      runtime.shutdown();
      _exit(right ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_FALSE(std::filesystem::exists(stats));  // the child wrote none

    ASSERT_TRUE(queue.synchronize().ok());
    runtime.shutdown();
    EXPECT_TRUE(broker.end().ok());
    std::ifstream file(stats);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    ASSERT_TRUE(json.is_object());
    EXPECT_EQ(json["waits"], 2);
    EXPECT_EQ(json["calls"], 2);
    EXPECT_TRUE(queue.create(queue.new_slot(), 4).ok());  // a no-op
    EXPECT_EQ(queue.synchronize().kind(), StatusKind::kLost);
    runtime.shutdown();
  });
}

TEST(Runtime, NothingReachableIsNoDeviceAndOneLine) {
  in_fresh_process([] {
    unsetenv("WALDO_GPUS");
    setenv("WALDO_ON", "lab", 1);
    setenv("WALDO_BROKER", "/no/such/broker", 1);
    testing::internal::CaptureStderr();
    EXPECT_EQ(Runtime::instance().device_count(), 0);
    EXPECT_EQ(Runtime::instance().device_count(), 0);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, HasSubstr("/no/such/broker"));
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
    EXPECT_EQ(Runtime::instance().connect_error().detail().exit_code, 3);
    EXPECT_FALSE(Runtime::instance().queue(0).ok());
  });
  in_fresh_process([] {
    setenv("WALDO_ON", "lab", 1);
    setenv("WALDO_STRICT", "1", 1);
    setenv("WALDO_BROKER", "/no/such/broker", 1);
    testing::internal::CaptureStderr();
    EXPECT_TRUE(Runtime::instance().strict());
    EXPECT_EQ(Runtime::instance().device_count(), 0);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  });
}

}  // namespace
}  // namespace waldo::client
