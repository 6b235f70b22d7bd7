// The wire's bytes, as they are today. A change here is a change of the protocol: document, version and these files
// change in one commit. WALDO_UPDATE_GOLDEN=1 in the environment writes the files anew.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "wire/dump.h"
#include "wire/messages.h"
#include "wire/plan_body.h"
#include "wire/records.h"

namespace waldo::wire {
namespace {

constexpr QueueId kQueue{0};
constexpr Slot kA = Slot::make(kQueue, 0), kB = Slot::make(kQueue, 1);

class Transcript {
 public:
  enum Direction { kUp, kDown };

  template <typename Message>
  void link(Direction direction, FrameKind kind, const Message& message) {
    add(direction, encode_frame(kind, Lane::kRecords, FrameNumber{}, encode(message)));
  }
  void numbered(Direction direction, FrameKind kind, const Buffer& payload, Lane lane = Lane::kRecords) {
    add(direction, encode_frame(kind, lane, FrameNumber{++last_[direction]}, payload));
  }
  const std::string& text() const { return text_; }

 private:
  void add(Direction direction, const Buffer& frame) {
    text_ += fmt::format("{} {}\n", direction == kUp ? "client:" : "worker:", dump_frame(frame));
    for (size_t at = 0; at < frame.size(); at += 16) {
      const auto line = std::span(frame).subspan(at, std::min<size_t>(16, frame.size() - at));
      text_ += fmt::format("    {:04x}  {}\n", at, to_hex(line));
    }
  }

  uint64_t last_[2] = {0, 0};
  std::string text_;
};

Argument tensor_argument() {
  Argument argument;
  argument.kind = ArgumentKind::kTensor;
  argument.slots = {0};
  argument.tensors.resize(1);
  argument.tensors[0].sizes = {2};
  argument.tensors[0].strides = {1};
  return argument;
}

Buffer add_plan() {
  PlanBody body;
  body.op = "aten::add";
  body.overload = "Tensor";
  Argument alpha;
  alpha.kind = ArgumentKind::kScalar;
  alpha.scalar_tags = {ScalarTag::kInt};
  alpha.ints = {1};
  body.arguments = {tensor_argument(), tensor_argument(), alpha};
  Output output;
  output.kind = OutputKind::kNew;
  output.slot = 1;
  output.storage_bytes = 8;
  output.tensor = body.arguments[0].tensors[0];
  body.outputs = {output};
  return encode(body);
}

// `a + a` for a = [1.0, 2.0], read; then a call that fails; then goodbye.
std::string worked_session() {
  using enum Transcript::Direction;
  Transcript t;
  Hello hello;
  for (uint8_t i = 0; i < 16; ++i) hello.secret[i] = static_cast<std::byte>(i);
  hello.info_json = R"({"frontend":"torch"})";
  t.link(kUp, FrameKind::kHello, hello);
  Welcome welcome;
  welcome.session = SessionId{1};
  welcome.info_json = R"({"kind":"torch"})";
  t.link(kDown, FrameKind::kWelcome, welcome);

  RecordsBuilder queue(kQueue);
  const float a[] = {1.0f, 2.0f}, sum[] = {2.0f, 4.0f};
  const Slot slots[] = {kA, kB};
  queue.upload(kA, 0, 8, UploadId{1});
  queue.define_plan(PlanId{0}, 1, 1, add_plan());
  queue.call(PlanId{0}, slots, {});
  queue.read(kB, 0, 8);
  t.numbered(kUp, FrameKind::kRecords, queue.take());
  t.numbered(kUp, FrameKind::kUploadData,
             encode(UploadData{UploadId{1}, PayloadKind::kInline, 8, 0, std::as_bytes(std::span(a))}), Lane::kBulk);
  t.numbered(kDown, FrameKind::kReadData,
             encode(ReadData{CallNumber{3}, kQueue, 0, PayloadKind::kInline, 8, 0, std::as_bytes(std::span(sum))}),
             Lane::kBulk);
  t.link(kDown, FrameKind::kAck, Ack{FrameNumber{2}, 300, 40});

  const Slot missing[] = {Slot::make(kQueue, 9), Slot::make(kQueue, 2)};
  queue.call(PlanId{0}, missing, {});
  queue.free(std::span(&kB, 1));
  queue.sync();
  t.numbered(kUp, FrameKind::kRecords, queue.take());
  t.numbered(
      kDown, FrameKind::kFailed,
      encode(CallFailed{kQueue, CallNumber{4}, StatusKind::kDevice, 0, "aten::add.Tensor", "no value in slot 0:9"}));
  queue.resume_at(queue.next_call());
  queue.sync();
  t.numbered(kUp, FrameKind::kRecords, queue.take());
  t.numbered(kDown, FrameKind::kDone, encode(CallDone{kQueue, CallNumber{6}, 0}));
  t.numbered(kUp, FrameKind::kGoodbye, encode(Goodbye{}));
  t.link(kDown, FrameKind::kAck, Ack{FrameNumber{5}, 392, 40});
  return t.text();
}

// Every kind of frame and record that the session above does not have.
std::string other_kinds() {
  using enum Transcript::Direction;
  Transcript t;
  t.link(kDown, FrameKind::kRefuse, Refuse{1, StatusKind::kUnsupported, 5, "another version"});
  t.link(kUp, FrameKind::kPing, Ping{});
  RecordsBuilder queue(QueueId{1}, CallNumber{1000});
  const Slot slot = Slot::make(QueueId{1}, 5), other = Slot::make(kQueue, 6);
  const Slot slots[] = {slot, other};
  const double scalar[] = {0.5};
  queue.create(slot, 4096);
  queue.after(kQueue, CallNumber{77});
  queue.call(PlanId{3}, slots, std::as_bytes(std::span(scalar)), Answer::kReport);
  queue.resize(slot, 8192);
  queue.time();
  Command seed;
  seed.value = 42;
  queue.command(encode(seed), Answer::kReport);
  t.numbered(kUp, FrameKind::kRecords, queue.take());
  Report report;
  report.outputs.resize(1);
  const Buffer body = encode(report);
  t.numbered(kDown, FrameKind::kReport, encode(CallReport{QueueId{1}, CallNumber{1001}, body}));
  t.numbered(kDown, FrameKind::kConformed, encode(CallConformed{QueueId{1}, CallNumber{1001}, PlanId{3}}));
  t.numbered(kDown, FrameKind::kDone, encode(CallDone{QueueId{1}, CallNumber{1003}, 123456789}));
  t.numbered(kDown, FrameKind::kReadData, encode(ReadData{CallNumber{1004}, QueueId{1}}));
  t.numbered(kDown, FrameKind::kGoodbye, encode(Goodbye{StatusKind::kInvalid, "malformed RECORDS: count"}));
  return t.text();
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void compare(const char* name, const std::string& text) {
  const std::string path = std::string(WALDO_SOURCE_DIR) + "/tests/golden/" + name;
  if (std::getenv("WALDO_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
  EXPECT_EQ(read_file(path), text) << "the wire changed: see the top of golden_test.cc";
}

TEST(Golden, WorkedSession) { compare("session.txt", worked_session()); }
TEST(Golden, OtherKinds) { compare("other_kinds.txt", other_kinds()); }

// Goal: the session in the document is the one the code speaks.
TEST(Golden, TheDocumentShowsTheWorkedSession) {
  const std::string document = read_file(std::string(WALDO_SOURCE_DIR) + "/docs/protocol.md");
  EXPECT_NE(document.find("```\n" + worked_session() + "```"), std::string::npos)
      << "put tests/golden/session.txt into docs/protocol.md, section 13";
}

}  // namespace
}  // namespace waldo::wire
