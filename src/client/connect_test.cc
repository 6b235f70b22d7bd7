#include "client/connect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/os/socket.h"
#include "channel/handshake.h"

namespace waldo::client {
namespace {

using testing::HasSubstr;

os::Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

// The worker's side of one greeting.
class Greet : public testing::Test {
 protected:
  Greet() {
    auto ends = os::make_socketpair();
    EXPECT_TRUE(ends.ok());
    ours_ = std::move(ends->first);
    theirs_ = std::move(ends->second);
  }
  ~Greet() override {
    if (worker_.joinable()) worker_.join();
  }
  template <typename Answer>
  void serve(Answer answer) {
    worker_ = std::thread([this, answer] {
      auto hello = channel::read_hello(theirs_.get(), soon());
      ASSERT_TRUE(hello.ok());
      info_ = hello->hello.info_json;
      answer(theirs_.get());
      theirs_.reset();
    });
  }
  Result<Greeting> greeting(const std::function<bool()>& interrupted = {}) {
    wire::Hello hello;
    hello.info_json = hello_info({"lab", 2, "torch", "2.13.0", ""});
    return greet(ours_.get(), hello, "lab", interrupted);
  }

  os::UniqueFd ours_, theirs_;
  std::string info_;
  std::thread worker_;
};

TEST_F(Greet, GivesWhatWelcomeSays) {
  serve([](int fd) {
    wire::Welcome welcome;
    welcome.session = SessionId{5};
    welcome.info_json = R"({"kind": "torch"})";
    EXPECT_TRUE(channel::write_welcome(fd, welcome, soon()).ok());
  });
  auto greeted = greeting();
  ASSERT_TRUE(greeted.ok()) << greeted.status().text();
  EXPECT_EQ(greeted->welcome.session, SessionId{5});
  EXPECT_GT(greeted->bytes_sent, 50u);
  EXPECT_GT(greeted->bytes_received, 50u);
  worker_.join();
  EXPECT_THAT(info_, HasSubstr("\"gpus\":2"));
  EXPECT_THAT(info_, HasSubstr("\"frontend\":\"torch\""));
}

TEST_F(Greet, ARefusalKeepsItsWordsAndExitCode) {
  serve([](int fd) {
    wire::Refuse refuse;
    refuse.kind = StatusKind::kOverloaded;
    refuse.exit_code = 6;
    refuse.text = "no device is free";
    EXPECT_TRUE(channel::write_refuse(fd, refuse, soon()).ok());
  });
  const Status status = greeting().status();
  EXPECT_EQ(status.kind(), StatusKind::kOverloaded);
  EXPECT_EQ(status.text(), "no device is free");
  EXPECT_EQ(status.detail().exit_code, 6);
}

TEST_F(Greet, AnotherVersionIsExitCode5) {
  serve([](int fd) {
    wire::Welcome welcome;
    welcome.version = wire::protocol_version + 7;
    EXPECT_TRUE(channel::write_welcome(fd, welcome, soon()).ok());
  });
  const Status status = greeting().status();
  EXPECT_EQ(status.kind(), StatusKind::kUnsupported);
  EXPECT_EQ(status.detail().exit_code, 5);
}

TEST_F(Greet, AWorkerThatEndsInsteadIsLost) {
  serve([](int) {});
  const Status status = greeting().status();
  EXPECT_EQ(status.kind(), StatusKind::kDisconnected);
  EXPECT_THAT(status.text(), HasSubstr("the worker of `lab` ended before it answered"));
}

TEST_F(Greet, SomebodyElseThereIsSaidSo) {
  serve([](int fd) {
    EXPECT_TRUE(os::write_all(fd, as_bytes("Welcome to Ubuntu 22.04.3 LTS (GNU/Linux)\n"), soon()).ok());
  });
  EXPECT_THAT(greeting().status().text(), HasSubstr("`lab` does not speak Waldo's protocol"));
}

TEST_F(Greet, EndsWhenTheUserAsksTo) {
  std::atomic<bool> done{false};
  serve([&done](int) { done.wait(false); });
  EXPECT_EQ(greeting([] { return true; }).status().kind(), StatusKind::kCancelled);
  done = true;
  done.notify_all();
}

TEST(WorkerInfo, IsParsed) {
  const auto welcome = parse_welcome_info(
      R"({"kind": "torch", "version": "2.13.0", "grace_s": 900, "shared_memory": true, "devices": [{"name": "H200", "kind": "cuda",
          "total_memory": 141000000000, "capability": [9, 0], "multi_processor_count": 132}]})",
      "lab");
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(welcome->grace.count(), 900);
  EXPECT_TRUE(welcome->shares_memory);
  const WorkerInfo* const worker = &welcome->worker;
  EXPECT_EQ(worker->target, "lab");
  EXPECT_EQ(worker->backend, "torch");
  EXPECT_EQ(worker->version, "2.13.0");
  ASSERT_EQ(worker->devices.size(), 1u);
  EXPECT_EQ(worker->devices[0].name, "H200");
  EXPECT_EQ(worker->devices[0].total_memory, 141'000'000'000u);
  EXPECT_EQ(worker->devices[0].capability_major, 9);
  EXPECT_EQ(worker->devices[0].multi_processor_count, 132);
}

TEST(WorkerInfo, NonsenseIsRefused) {
  for (const char* info : {"", "[]", "{}", R"({"devices": 3})", R"({"devices": ["x"]})"}) {
    EXPECT_EQ(parse_welcome_info(info, "lab").status().kind(), StatusKind::kInvalid) << info;
  }
  const auto odd = parse_welcome_info(
      R"({"devices": [{"name": 3, "capability": ["a"], "total_memory": "big"}], "grace_s": "long", "shared_memory": 1})",
      "lab");
  ASSERT_TRUE(odd.ok());
  EXPECT_EQ(odd->grace.count(), 0);
  EXPECT_FALSE(odd->shares_memory);
}

}  // namespace
}  // namespace waldo::client
