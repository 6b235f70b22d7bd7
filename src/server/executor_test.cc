#include "server/executor.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>

#include "server/fake_backend.h"
#include "wire/messages.h"
#include "wire/plan_body.h"

namespace waldo::server {
namespace {

// Keeps what executors say, in words: "failed 0:3 oom", "done 0:7", "report 0:4", "conformed 0:2", "data 0:9 0+4/4".
class RecordingHost final : public ExecutorHost {
 public:
  Status send(wire::Lane, wire::FrameKind kind, Buffer payload) override {
    std::lock_guard lock(mutex_);
    said_.push_back(describe(kind, payload));
    changed_.notify_all();
    return {};
  }
  void consumed_records(uint64_t bytes) override {
    std::lock_guard lock(mutex_);
    consumed_ += bytes;
    changed_.notify_all();
  }
  void fault(const Status& why) override {
    std::lock_guard lock(mutex_);
    fault_ = why;
    changed_.notify_all();
  }

  void wait_consumed(uint64_t bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return consumed_ >= bytes || !fault_.ok(); });
  }
  std::vector<std::string> said() {
    std::lock_guard lock(mutex_);
    return said_;
  }
  Status fault_now() {
    std::lock_guard lock(mutex_);
    return fault_;
  }
  // The answers, once there are so many.
  std::vector<std::string> wait_said(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return said_.size() >= count; });
    return said_;
  }
  std::vector<std::byte> data(uint64_t call) {
    std::lock_guard lock(mutex_);
    return data_[call];
  }

 private:
  std::string describe(wire::FrameKind kind, const Buffer& payload) {
    const auto name = [](const char* what, const auto& message) {
      return std::string(what) + " " + std::to_string(message.queue.raw) + ":" + std::to_string(message.call.raw);
    };
    switch (kind) {
      case wire::FrameKind::kFailed: {
        auto message = wire::decode_call_failed(payload);
        return name("failed", *message) + " " + message->op;
      }
      case wire::FrameKind::kDone:
        return name("done", *wire::decode_call_done(payload));
      case wire::FrameKind::kConformed:
        return name("conformed", *wire::decode_call_conformed(payload));
      case wire::FrameKind::kReport:
        return name("report", *wire::decode_call_report(payload));
      case wire::FrameKind::kReadData: {
        auto message = wire::decode_read_data(payload);
        auto& bytes = data_[message->call.raw];
        EXPECT_EQ(message->offset, bytes.size());
        bytes.insert(bytes.end(), message->bytes.begin(), message->bytes.end());
        return name("data", *message);
      }
      default:
        return "?";
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> said_;
  std::map<uint64_t, std::vector<std::byte>> data_;
  uint64_t consumed_ = 0;
  Status fault_;
};

class ExecutorTest : public ::testing::Test {
 protected:
  static constexpr size_t kQueues = 2;

  ExecutorTest() { open_executors(); }
  void open_executors() {
    executors_.clear();
    for (uint16_t i = 0; i < kQueues; ++i) {
      executors_.push_back(std::make_unique<Executor>(QueueId{i}, open(i), shared_));
      if (builders_.size() < kQueues) builders_.emplace_back(std::make_unique<wire::RecordsBuilder>(QueueId{i}));
    }
  }
  ~ExecutorTest() override {
    backend_.gate().open();
    uploads_.stop();
    progress_.stop();
  }

  std::unique_ptr<QueueBackend> open(uint16_t queue) { return backend_.open_queue(QueueId{queue}).value(); }
  wire::RecordsBuilder& q(size_t queue = 0) { return *builders_[queue]; }
  PlanId define(const char* op, uint16_t reads, uint16_t creates, size_t queue = 0) {
    const PlanId plan{next_plan_[queue]++};
    q(queue).define_plan(plan, reads, creates, as_bytes(op));
    return plan;
  }
  static Slot slot(uint32_t index, uint16_t queue = 0) { return Slot::make(QueueId{queue}, index); }
  static Buffer u64s(std::initializer_list<uint64_t> values) {
    Buffer bytes;
    Writer out(bytes);
    for (const uint64_t value : values) out.put(value);
    return bytes;
  }
  CallNumber full(uint32_t index, uint64_t size, uint64_t value) {
    if (!full_plan_) full_plan_ = define("full_u8", 0, 1);
    const Slot made[] = {slot(index)};
    return q().call(*full_plan_, made, u64s({size, value}));
  }
  void push(size_t queue = 0) {
    Buffer payload = q(queue).take();
    sent_ += payload.size();
    executors_[queue]->push(std::move(payload));
  }
  void run(size_t queue = 0) {
    push(queue);
    host_.wait_consumed(sent_);
  }
  using Words = std::vector<std::string>;

  FakeBackend backend_{kQueues};
  RecordingHost host_;
  Uploads uploads_{[](const Credit&) {}};
  Progress progress_{kQueues};
  ExecutorShared shared_{host_, uploads_, progress_, {}};
  std::vector<std::unique_ptr<wire::RecordsBuilder>> builders_;
  std::vector<std::unique_ptr<Executor>> executors_;
  std::map<size_t, uint32_t> next_plan_;
  std::optional<PlanId> full_plan_;
  uint64_t sent_ = 0;
};

// Goal: calls run in order and a read gives the bytes they made.
TEST_F(ExecutorTest, RunsCallsAndReads) {
  full(1, 5, 3);
  full(2, 5, 4);
  const Slot operands[] = {slot(1), slot(2), slot(3)};
  q().call(define("add_u8", 2, 1), operands, {});
  const CallNumber read = q().read(slot(3), 1, 4);
  run();
  EXPECT_EQ(host_.said(), Words{"data 0:4"});
  EXPECT_EQ(host_.data(read.raw), std::vector<std::byte>(4, std::byte{7}));
}

TEST_F(ExecutorTest, LongReadsComeInChunksAndEmptyOnesInOne) {
  full(1, 3 * limits::chunk_bytes + 1, 9);
  const CallNumber read = q().read(slot(1), 0, 3 * limits::chunk_bytes + 1);
  q().read(slot(1), 0, 0);
  run();
  EXPECT_EQ(host_.said(), (Words{"data 0:2", "data 0:2", "data 0:2", "data 0:2", "data 0:3"}));
  EXPECT_EQ(host_.data(read.raw).size(), 3 * limits::chunk_bytes + 1);
}

TEST_F(ExecutorTest, AnswersReportsSyncsTimesAndCommands) {
  const Slot made[] = {slot(1)};
  q().call(define("nop", 0, 1), made, {}, wire::Answer::kReport);
  q().sync();
  q().time();
  q().command(as_bytes("hi"), wire::Answer::kReport);
  q().command(as_bytes("hi"), wire::Answer::kNone);
  const Slot conform[] = {slot(1), slot(2)};
  q().call(define("conform_u8", 1, 1), conform, {});
  run();
  EXPECT_EQ(host_.said(), (Words{"report 0:1", "done 0:2", "done 0:3", "report 0:4", "conformed 0:6"}));
}

// Goal: design.md §4, "stop at the first failure". After call n fails nothing recorded behind it runs, one FAILED is
// said, in-place targets keep their values, FREE still acts, numbers go on, and RESUME_AT starts it again.
TEST_F(ExecutorTest, StopsAtTheFirstFailureUntilResume) {
  full(1, 2, 1);
  const Slot failing_made[] = {slot(2)};
  const PlanId oom = define("oom", 0, 1), fill = define("fill_u8", 1, 0), copy = define("copy_u8", 1, 1);
  const CallNumber failed = q().call(oom, failing_made, {});
  const Slot target[] = {slot(1)};
  q().call(fill, target, u64s({99}));  // in place: must not happen
  const Slot copied[] = {slot(1), slot(3)};
  q().call(copy, copied, {});  // would create slot 3
  q().create(slot(4), 8);
  q().call(oom, failing_made, {});  // a second failure is not said
  q().sync();
  q().read(slot(1), 0, 2);
  full(5, 1, 1);
  const Slot freed[] = {slot(5)};
  q().free(freed);  // acts even now: nothing is left in slot 5
  run();
  EXPECT_EQ(failed.raw, 2u);
  EXPECT_EQ(host_.said(), Words{"failed 0:2 oom"});
  EXPECT_EQ(backend_.live_slots(), 4u);  // 1 a value; 2, 3 and 4 poisoned

  q().resume_at(q().next_call());
  const CallNumber read = q().read(slot(1), 0, 2);
  run();
  EXPECT_EQ(host_.data(read.raw), std::vector<std::byte>(2, std::byte{1}));

  const Slot from_poison[] = {slot(3), slot(6)};
  q().call(copy, from_poison, {});
  run();
  EXPECT_EQ(host_.said().back(), "failed 0:" + std::to_string(read.raw + 1) + " oom");  // names the original op
}

// Goal: a plan defined while calls are dropped is known afterwards.
TEST_F(ExecutorTest, PlansDefinedWhileDroppingStay) {
  const Slot made[] = {slot(1)};
  q().call(define("fail", 0, 1), made, {});
  const PlanId nop = define("nop", 0, 1);
  q().resume_at(q().next_call());
  q().call(nop, made, {});
  q().sync();
  run();
  EXPECT_EQ(host_.said(), (Words{"failed 0:1 fail", "done 0:3"}));
}

TEST_F(ExecutorTest, UnknownOperatorsFailWhenCalledAndAreNamed) {
  const PlanId plan = define("aten::frobnicate", 0, 0);
  q().sync();
  q().call(plan, {}, {});
  run();
  EXPECT_EQ(host_.said(), (Words{"done 0:1", "failed 0:2 aten::frobnicate"}));
}

// Goal: a call on one queue waits for another queue's call, even while that queue drops.
TEST_F(ExecutorTest, AfterWaitsForTheOtherQueue) {
  backend_.gate().shut();
  q(0).call(define("slow", 0, 0), {}, {});
  q(0).call(define("fail", 0, 0), {}, {});
  const CallNumber dropped = q(0).call(define("nop", 0, 0), {}, {});
  q(1).after(QueueId{0}, dropped);
  const PlanId nop = define("nop", 0, 0, 1);
  q(1).call(nop, {}, {});
  q(1).sync();
  push(1);
  push(0);
  backend_.gate().wait_until_waiters(1);
  EXPECT_TRUE(backend_.log().empty());
  backend_.gate().open();
  host_.wait_consumed(sent_);
  EXPECT_EQ(backend_.log(), (Words{"0:slow", "0:fail", "1:nop"}));
}

TEST_F(ExecutorTest, UploadsWaitForTheirBytes) {
  q().upload(slot(1), 0, 4, UploadId{7});
  const CallNumber read = q().read(slot(1), 0, 4);
  push();
  const std::vector<std::byte> bytes(4, std::byte{5});
  ASSERT_TRUE(uploads_.add(UploadId{7}, 4, 0, std::span(bytes).first(2), {.window_bytes = 2, .shared = {}}).ok());
  ASSERT_TRUE(uploads_.add(UploadId{7}, 4, 2, std::span(bytes).last(2), {.window_bytes = 2, .shared = {}}).ok());
  host_.wait_consumed(sent_);
  EXPECT_EQ(host_.data(read.raw), bytes);
}

// Goal: an upload that is dropped leaves an existing storage as it was, poisons a new one, and takes no memory.
TEST_F(ExecutorTest, DroppedUploadsKeepWhatIsThere) {
  full(1, 4, 1);
  q().call(define("fail", 0, 0), {}, {});
  q().upload(slot(1), 0, 4, UploadId{1});
  q().upload(slot(2), 0, 4, UploadId{2});
  q().resume_at(q().next_call());
  const CallNumber read = q().read(slot(1), 0, 4);
  q().read(slot(2), 0, 4);
  run();
  EXPECT_EQ(host_.data(read.raw), std::vector<std::byte>(4, std::byte{1}));
  EXPECT_EQ(host_.said().back(), "failed 0:6 fail");
  const std::vector<std::byte> bytes(4);
  ASSERT_TRUE(uploads_.add(UploadId{1}, 4, 0, bytes, {.window_bytes = 4, .shared = {}}).ok());
  EXPECT_EQ(uploads_.staged_bytes_for_test(), 0u);
}

TEST_F(ExecutorTest, AnInterruptedUploadFailsItsCall) {
  const std::vector<std::byte> bytes(2);
  ASSERT_TRUE(uploads_.add(UploadId{1}, 4, 0, bytes, {.window_bytes = 2, .shared = {}}).ok());
  ASSERT_TRUE(uploads_.add(UploadId{1}, 4, 2, {}, {.window_bytes = 0, .shared = {}}).ok());
  q().upload(slot(1), 0, 4, UploadId{1});
  run();
  EXPECT_EQ(host_.said(), Words{"failed 0:1 "});
  EXPECT_TRUE(host_.fault_now().ok());
}

TEST_F(ExecutorTest, MadeFaultsHitTheirCall) {
  shared_.faults = FaultPlan({Fault{Fault::Kind::kOutOfMemory, QueueId{0}, CallNumber{2}}});
  q().sync();
  q().sync();
  q().sync();
  run();
  EXPECT_EQ(host_.said(), (Words{"done 0:1", "failed 0:2 "}));
}

// Goal: each way of breaking the protocol is noticed and ends the session, not the process.
TEST_F(ExecutorTest, BrokenProtocolIsAFault) {
  const auto faults = [&](auto make) {
    RecordingHost host;
    ExecutorShared shared{host, uploads_, progress_, {}};
    Executor executor(QueueId{0}, open(0), shared);
    wire::RecordsBuilder builder(QueueId{0});
    make(builder);
    executor.push(builder.take());
    host.wait_consumed(1);
    return host.fault_now().kind() == StatusKind::kInvalid;
  };
  const Slot one[] = {slot(1)}, foreign[] = {slot(1, 9)};
  EXPECT_TRUE(faults([&](auto& b) { b.call(PlanId{0}, {}, {}); }));                        // never defined
  EXPECT_TRUE(faults([&](auto& b) { b.define_plan(PlanId{1}, 0, 0, as_bytes("nop")); }));  // a gap
  EXPECT_TRUE(faults([&](auto& b) { b.define_plan(PlanId{0}, 0, 0, {}); }));               // malformed for the backend
  EXPECT_TRUE(faults([&](auto& b) {
    b.define_plan(PlanId{0}, 0, 0, as_bytes("nop"));
    b.call(PlanId{0}, one, {});  // too many slots
  }));
  EXPECT_TRUE(faults([&](auto& b) {
    b.define_plan(PlanId{0}, 1, 0, as_bytes("nop"));
    b.call(PlanId{0}, foreign, {});  // no such queue
  }));
  EXPECT_TRUE(faults([&](auto& b) { b.after(QueueId{9}, CallNumber{1}); }));
  EXPECT_TRUE(faults([&](auto& b) { b.resume_at(CallNumber{4}); }));
  EXPECT_FALSE(faults([&](auto& b) { b.sync(); }));
}

// Goal: the end of a session releases executors that wait for uploads and for other queues.
TEST_F(ExecutorTest, StopsWhileWaiting) {
  q(0).upload(slot(1), 0, 4, UploadId{1});
  q(1).after(QueueId{0}, CallNumber{1});
  push(0);
  push(1);
  for (auto& executor : executors_) executor->stop();
  uploads_.stop();
  progress_.stop();
  executors_.clear();
  EXPECT_TRUE(host_.fault_now().ok());
}

// A device that works behind its queue, as CUDA does: its answers come when the gate is open.
class LateExecutorTest : public ExecutorTest {
 protected:
  LateExecutorTest() {
    backend_.answer_later();
    backend_.gate().shut();
    open_executors();
  }
};

// Goal: reads, syncs and times hold up nothing; later calls run, and a read is of the moment it was recorded in.
TEST_F(LateExecutorTest, GoesOnWhileTheDeviceWorks) {
  full(1, 250, 3);
  const CallNumber read = q().read(slot(1), 0, 250);
  q().sync();
  q().time();
  const Slot target[] = {slot(1)};
  q().call(define("fill_u8", 1, 0), target, u64s({9}));
  const CallNumber empty = q().read(slot(1), 0, 0);
  run();
  EXPECT_EQ(host_.said(), Words{"data 0:" + std::to_string(empty.raw)});  // nothing to wait for
  EXPECT_EQ(backend_.log().back(), "0:fill_u8");
  backend_.gate().open();
  EXPECT_EQ(host_.wait_said(6), (Words{"data 0:6", "data 0:2", "data 0:2", "data 0:2", "done 0:3", "done 0:4"}));
  EXPECT_EQ(host_.data(read.raw), std::vector<std::byte>(250, std::byte{3}));
}

// Goal: a device that fails behind its queue is told by the call that waits for it; the queue stops there until
// resumed.
TEST_F(LateExecutorTest, ALateFailureStopsTheQueue) {
  full(1, 4, 3);
  q().sync();
  run();
  backend_.break_device();
  backend_.gate().open();
  EXPECT_EQ(host_.wait_said(1), Words{"failed 0:2 "});
  q().call(define("fail", 0, 0), {}, {});  // dropped: it would say so
  q().resume_at(q().next_call());
  const Slot target[] = {slot(1)};
  q().call(define("fill_u8", 1, 0), target, u64s({9}));
  run();
  EXPECT_EQ(host_.said(), Words{"failed 0:2 "});
  EXPECT_EQ(backend_.log(), (Words{"0:full_u8", "0:fill_u8"}));
}

// Goal: whoever waits for an answer is told, also when a later call has failed before.
TEST_F(LateExecutorTest, IsToldOfBehindAnotherFailure) {
  q().sync();
  q().call(define("fail", 0, 0), {}, {});
  run();
  EXPECT_EQ(host_.said(), Words{"failed 0:2 fail"});
  backend_.break_device();
  backend_.gate().open();
  EXPECT_EQ(host_.wait_said(2).back(), "failed 0:1 ");
}

TEST_F(LateExecutorTest, EndsWithAnswersUntold) {
  full(1, 250, 3);
  q().read(slot(1), 0, 250);
  q().sync();
  run();
  executors_.clear();
  EXPECT_TRUE(host_.said().empty());
}

}  // namespace
}  // namespace waldo::server
