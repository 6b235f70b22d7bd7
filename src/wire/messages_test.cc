#include "wire/messages.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace waldo::wire {
namespace {

// Goal: what goes in comes out; every shorter payload is refused, and so is a longer one.
template <typename Message, typename Decode>
Message round_trip(const Message& message, Decode decode, size_t shortest_valid = SIZE_MAX) {
  const Buffer payload = encode(message);
  for (size_t size = 0; size < std::min(payload.size(), shortest_valid); ++size) {
    EXPECT_EQ(decode(std::span<const std::byte>(payload).first(size)).status().kind(), StatusKind::kInvalid) << size;
  }
  if (shortest_valid == SIZE_MAX) {
    Buffer longer = payload;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decode(longer).ok());
  }
  auto decoded = decode(payload);
  EXPECT_TRUE(decoded.ok()) << decoded.status().to_string();
  EXPECT_EQ(encode(*decoded), payload);
  return *decoded;
}

Status flipped(Buffer payload, size_t at, uint8_t value, auto decode) {
  payload[at] = static_cast<std::byte>(value);
  return decode(payload).status();
}

TEST(Messages, Hello) {
  Hello hello;
  hello.session = SessionId{5};
  hello.secret.fill(std::byte{0xab});
  hello.received = FrameNumber{9};
  hello.link_number = 4;
  hello.info_json = "{}";
  const Hello got = round_trip(hello, decode_hello);
  EXPECT_EQ(got.secret, hello.secret);
  EXPECT_EQ(got.link_number, 4u);
  EXPECT_EQ(flipped(encode(hello), 4, 1, decode_hello).text(), "malformed HELLO: reserved bytes");
  hello.link_number = 0;
  EXPECT_EQ(decode_hello(encode(hello)).status().text(), "malformed HELLO: link number");
}

TEST(Messages, WelcomeAndRefuse) {
  Welcome welcome;
  welcome.info_json = std::string(1000, 'x');
  EXPECT_EQ(round_trip(welcome, decode_welcome).info_json, welcome.info_json);
  const Refuse refuse{1, StatusKind::kUnsupported, 5, "another version"};
  EXPECT_EQ(round_trip(refuse, decode_refuse).exit_code, 5);
  EXPECT_EQ(flipped(encode(refuse), 4, 0, decode_refuse).text(), "malformed REFUSE: status kind");
  EXPECT_EQ(flipped(encode(refuse), 4, 9, decode_refuse).text(), "malformed REFUSE: status kind");
}

TEST(Messages, AckPingGoodbye) {
  EXPECT_EQ(round_trip(Ack{FrameNumber{3}, 1, 2}, decode_ack).consumed_bulk, 2u);
  round_trip(Ping{}, decode_ping);
  EXPECT_EQ(round_trip(Goodbye{StatusKind::kInvalid, "why"}, decode_goodbye).text, "why");
}

TEST(Messages, AnswersToCalls) {
  const Buffer body(10, std::byte{1});
  EXPECT_EQ(round_trip(CallReport{QueueId{1}, CallNumber{2}, body}, decode_call_report).body.size(), 10u);
  EXPECT_EQ(round_trip(CallDone{QueueId{1}, CallNumber{2}, 77}, decode_call_done).time_ns, 77u);
  EXPECT_EQ(round_trip(CallConformed{QueueId{1}, CallNumber{2}, PlanId{3}}, decode_call_conformed).plan.raw, 3u);
  const CallDone done{QueueId{1}, CallNumber{2}, 0};
  EXPECT_EQ(flipped(encode(done), 8, 64, decode_call_done).text(), "malformed DONE: queue");
  EXPECT_EQ(flipped(encode(done), 0, 0, decode_call_done).text(), "malformed DONE: call");
}

// Goal: a failure arrives as the status the worker had, with operator, class, queue and call.
TEST(Messages, AFailureKeepsItsDetail) {
  const Status why(StatusKind::kDevice, "out of memory", {1, 0, 0, "aten::mm"});
  const Status got = to_status(round_trip(to_call_failed(QueueId{2}, CallNumber{99}, why), decode_call_failed));
  EXPECT_EQ(got.to_string(), why.to_string());
  EXPECT_EQ(got.detail().op, "aten::mm");
  EXPECT_EQ(got.detail().error_class, 1);
  EXPECT_EQ(got.detail().queue, 2);
  EXPECT_EQ(got.detail().call, 99u);
}

TEST(Messages, TextsAreCutToTheirLimit) {
  const Goodbye goodbye{StatusKind::kInternal, std::string(2 * limits::text_bytes_max, 'x')};
  EXPECT_EQ(decode_goodbye(encode(goodbye))->text.size(), limits::text_bytes_max);
}

TEST(Messages, PiecesOfContents) {
  const Buffer bytes(100, std::byte{5});
  ReadData read{CallNumber{1}, QueueId{0}, 0, PayloadKind::kInline, 300, 200, bytes};
  EXPECT_EQ(round_trip(read, decode_read_data, bulk_header_bytes + 1).offset, 200u);
  UploadData upload{UploadId{4}, PayloadKind::kInline, 300, 0, bytes};
  EXPECT_EQ(round_trip(upload, decode_upload_data, bulk_header_bytes).upload.raw, 4u);
  EXPECT_EQ(encode(upload).size(), bulk_header_bytes + 100);

  read.offset = 201;
  EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: more bytes than the total");
  read.offset = 301;
  EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: offset");
  read.total = limits::storage_bytes_max + 1;
  EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: total");
  EXPECT_TRUE(decode_read_data(encode(ReadData{CallNumber{1}})).ok());  // a read of nothing

  read = ReadData{CallNumber{1}, QueueId{0}, 0, PayloadKind::kSharedMemory, 300, 200, {}, SharedPiece{3, 100}};
  EXPECT_EQ(round_trip(read, decode_read_data, bulk_header_bytes + 8).shared.chunk, 3u);
  EXPECT_EQ(encode(read).size(), bulk_header_bytes + 8);
  read.shared.bytes = 101;
  EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: more bytes than the total");
  read.shared = {limits::shared_chunk_count, 1};
  EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: chunk");
  for (const uint32_t bytes : {0u, limits::chunk_bytes + 1}) {
    read.total = 2 * limits::chunk_bytes;
    read.shared = {0, bytes};
    EXPECT_EQ(decode_read_data(encode(read)).status().text(), "malformed READ_DATA: bytes");
  }

  upload.payload_kind = PayloadKind::kByHash;
  EXPECT_EQ(decode_upload_data(encode(upload)).status().kind(), StatusKind::kUnsupported);
  EXPECT_EQ(flipped(encode(upload), 12, 4, decode_upload_data).text(), "malformed UPLOAD_DATA: payload kind");
}

}  // namespace
}  // namespace waldo::wire
