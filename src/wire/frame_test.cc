#include "wire/frame.h"

#include <gtest/gtest.h>

#include "wire/limits.h"

namespace waldo::wire {
namespace {

Buffer sample() { return encode_frame(FrameKind::kDone, Lane::kRecords, FrameNumber{7}, as_bytes("payload!")); }

Status judge(const Buffer& frame) {
  const auto bytes = std::span<const std::byte>(frame);
  const auto header = decode_header(bytes.first(frame_header_bytes));
  return header.ok() ? check_payload(bytes.first(frame_header_bytes), bytes.subspan(frame_header_bytes))
                     : header.status();
}

TEST(Frame, HeaderSaysWhatWasPutIn) {
  const Buffer frame = sample();
  const auto header = decode_header(std::span(frame).first(frame_header_bytes));
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->kind, FrameKind::kDone);
  EXPECT_EQ(header->lane, Lane::kRecords);
  EXPECT_EQ(header->number.raw, 7u);
  EXPECT_EQ(header->payload_bytes, 8u);
  EXPECT_TRUE(judge(frame).ok());
}

// Goal: no single flipped bit anywhere in a frame goes unnoticed.
TEST(Frame, EveryFlippedBitIsNoticed) {
  for (size_t bit = 0; bit < sample().size() * 8; ++bit) {
    Buffer frame = sample();
    frame[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_EQ(judge(frame).kind(), StatusKind::kInvalid) << "bit " << bit;
  }
}

TEST(Frame, EachFieldIsCheckedAndNamed) {
  const auto with = [](size_t at, uint8_t value) {
    Buffer frame = sample();
    frame[at] = static_cast<std::byte>(value);
    return decode_header(std::span(frame).first(frame_header_bytes)).status().text();
  };
  EXPECT_EQ(with(0, 'X'), "not a Waldo frame (wrong magic)");
  EXPECT_EQ(with(7, 1), "DONE of 16777224 bytes is over the limit");
  EXPECT_EQ(with(8, 0), "DONE with number 0");
  EXPECT_EQ(with(16, 0x77), "unknown frame kind 0x77");
  EXPECT_EQ(with(16, 0x05), "PING with number 7");
  EXPECT_EQ(with(17, 1), "DONE on lane 1");
  EXPECT_EQ(with(17, 9), "DONE on lane 9");
  EXPECT_EQ(with(18, 1), "reserved header bytes are not zero");
}

TEST(Frame, EmptyAndLargestPayloadsPass) {
  EXPECT_TRUE(judge(encode_frame(FrameKind::kPing, Lane::kRecords, FrameNumber{}, {})).ok());
  EXPECT_TRUE(judge(encode_frame(FrameKind::kUploadData, Lane::kBulk, FrameNumber{1},
                                 Buffer(limits::frame_payload_bytes_max, std::byte{3})))
                  .ok());
}

}  // namespace
}  // namespace waldo::wire
