#include "client/lend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "base/os/socket.h"

namespace waldo::client {
namespace {

using testing::HasSubstr;

os::Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(20); }

// Goal of all: what a broker says becomes a link or a Status; nothing it says hangs or throws.
// Method: a broker of one answer on a unix socket.
class Lend : public testing::Test {
 protected:
  Lend() {
    char name[] = "/tmp/waldo-lend-XXXXXX";
    folder_ = mkdtemp(name);
    request_.broker = folder_ + "/broker";
    request_.target = "lab";
    auto listener = os::listen_unix(request_.broker);
    EXPECT_TRUE(listener.ok());
    listener_ = std::move(*listener);
  }
  ~Lend() override {
    if (broker_.joinable()) broker_.join();
    std::filesystem::remove_all(folder_);
  }

  void serve(std::function<void(int socket)> answer) {
    broker_ = std::thread([this, answer = std::move(answer)] {
      auto socket = os::accept_unix(listener_.get());
      ASSERT_TRUE(socket.ok());
      std::byte byte;
      do {
        ASSERT_TRUE(os::read_exactly(socket->get(), {&byte, 1}, soon()).ok());
        asked_ += static_cast<char>(byte);
      } while (byte != std::byte{'\n'});
      answer(socket->get());
    });
  }
  void serve_text(std::string text) {
    serve([text](int socket) { EXPECT_TRUE(os::write_all(socket, as_bytes(text), soon()).ok()); });
  }

  std::string folder_, asked_;
  LendRequest request_;
  os::UniqueFd listener_;
  std::thread broker_;
};

TEST_F(Lend, GivesTheDescriptorThatCameWithTheAnswer) {
  auto ends = os::make_socketpair();
  ASSERT_TRUE(ends.ok());
  serve([&](int socket) { EXPECT_TRUE(os::send_fd(socket, as_bytes("{\"ok\":true}\n"), ends->first.get()).ok()); });
  auto link = Broker(request_).lend(Broker::For::kNew, {});
  ASSERT_TRUE(link.ok()) << link.status().text();
  broker_.join();
  EXPECT_THAT(asked_, HasSubstr("\"want\":\"link\""));
  EXPECT_THAT(asked_, HasSubstr("\"target\":\"lab\""));
  std::byte byte{42};
  ASSERT_TRUE(os::write_all(ends->second.get(), {&byte, 1}, soon()).ok());
  byte = std::byte{0};
  ASSERT_TRUE(os::read_exactly(link->get(), {&byte, 1}, soon()).ok());
  EXPECT_EQ(byte, std::byte{42});
}

TEST_F(Lend, ARefusalKeepsKindTextAndExitCode) {
  serve_text("{\"ok\":false,\"exit\":4,\"kind\":\"kDisconnected\",\"text\":\"lab: ssh could not log in\"}\n");
  const Status status = Broker(request_).lend(Broker::For::kNew, {}).status();
  EXPECT_EQ(status.kind(), StatusKind::kDisconnected);
  EXPECT_EQ(status.text(), "lab: ssh could not log in");
  EXPECT_EQ(status.detail().exit_code, 4);
}

TEST_F(Lend, NonsenseIsAnErrorAndNotACrash) {
  for (const char* answer : {"{\"ok\":\"yes\"}\n", "[]\n", "hello\n",
                             "{\"ok\":false,\"exit\":\"x\",\"kind\":3,\"text\":[]}\n", "{\"ok\":true}\n"}) {
    asked_.clear();
    serve_text(answer);
    EXPECT_FALSE(Broker(request_).lend(Broker::For::kNew, {}).ok()) << answer;
    broker_.join();
  }
}

TEST_F(Lend, ABrokerThatEndsIsUnreachable) {
  serve([](int) {});
  const Status status = Broker(request_).lend(Broker::For::kNew, {}).status();
  EXPECT_EQ(status.kind(), StatusKind::kDisconnected);
  EXPECT_EQ(status.detail().exit_code, 3);
}

TEST_F(Lend, NobodyListeningIsUnreachable) {
  request_.broker = folder_ + "/nobody";
  EXPECT_EQ(Broker(request_).lend(Broker::For::kNew, {}).status().detail().exit_code, 3);
}

TEST_F(Lend, ABrokerProgramThatIsNotThereIsUnreachable) {
  request_.broker = "";
  request_.package_dir = folder_;
  const Status status = Broker(request_).lend(Broker::For::kNew, {}).status();
  EXPECT_EQ(status.kind(), StatusKind::kDisconnected);
  EXPECT_THAT(status.text(), HasSubstr(folder_ + "/bin/waldo"));
}

TEST_F(Lend, EndsWhenTheUserAsksTo) {
  std::atomic<bool> done{false};
  serve([&](int) { done.wait(false); });
  EXPECT_EQ(Broker(request_).lend(Broker::For::kNew, [] { return true; }).status().kind(), StatusKind::kCancelled);
  done = true;
  done.notify_all();
  broker_.join();  // it looks at `done` again
}

}  // namespace
}  // namespace waldo::client
