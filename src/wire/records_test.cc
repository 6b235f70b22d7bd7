#include "wire/records.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace waldo::wire {
namespace {

constexpr QueueId kQueue{2};
Slot slot(uint32_t index) { return Slot::make(kQueue, index); }
std::vector<Slot> slots_of_queue() { return {slot(1), slot(2)}; }

Buffer one_of_each(RecordsBuilder& builder) {
  const Buffer body(13, std::byte{9});
  const Slot slots[] = {slot(1), Slot::make(QueueId{3}, 7), slot(2)};
  builder.define_plan(PlanId{0}, 2, 1, body);
  builder.create(slot(1), 64);
  builder.upload(slot(1), 0, 64, UploadId{5});
  builder.after(QueueId{3}, CallNumber{41});
  builder.call(PlanId{0}, slots, {});
  builder.call(PlanId{0}, slots, body, Answer::kReport);
  builder.resize(slot(1), 128);
  builder.read(slot(2), 8, 16);
  builder.sync();
  builder.time();
  builder.command(body, Answer::kReport);
  builder.resume_at(CallNumber{9});
  builder.free(slots_of_queue());
  return builder.take();
}

TEST(Records, EveryKindComesOutAsItWentIn) {
  RecordsBuilder builder(kQueue, CallNumber{100});
  const Buffer payload = one_of_each(builder);
  EXPECT_TRUE(builder.empty());
  EXPECT_EQ(builder.next_call().raw, 109u);
  auto reader = RecordReader::open(payload);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->header().queue, kQueue);
  EXPECT_EQ(reader->header().first_call.raw, 100u);
  EXPECT_EQ(reader->header().count, 13u);

  std::vector<Record> records;
  for (Record record; reader->next(record);) records.push_back(record);
  ASSERT_TRUE(reader->status().ok()) << reader->status().to_string();
  ASSERT_EQ(records.size(), 13u);
  EXPECT_EQ(records[0].kind, RecordKind::kDefinePlan);
  EXPECT_EQ(records[0].reads, 2);
  EXPECT_EQ(records[0].creates, 1);
  EXPECT_EQ(records[0].body.size(), 13u);
  EXPECT_EQ(records[0].call.raw, 0u);
  EXPECT_EQ(records[1].call.raw, 100u);
  EXPECT_EQ(records[1].bytes, 64u);
  EXPECT_EQ(records[2].upload.raw, 5u);
  EXPECT_EQ(records[3].other_queue.raw, 3);
  EXPECT_EQ(records[3].target.raw, 41u);
  EXPECT_EQ(records[4].call.raw, 102u);
  EXPECT_EQ(records[4].slots.size(), 3u);
  EXPECT_EQ(records[4].slots[1].queue().raw, 3);
  EXPECT_TRUE(records[4].body.empty());
  EXPECT_FALSE(records[4].report_wanted);
  EXPECT_EQ(records[5].body.size(), 13u);
  EXPECT_EQ(records[5].body[12], std::byte{9});
  EXPECT_TRUE(records[5].report_wanted);
  EXPECT_EQ(records[6].bytes, 128u);
  EXPECT_EQ(records[7].offset, 8u);
  EXPECT_EQ(records[8].kind, RecordKind::kSync);
  EXPECT_EQ(records[9].kind, RecordKind::kTime);
  EXPECT_TRUE(records[10].report_wanted);
  EXPECT_EQ(records[10].call.raw, 108u);
  EXPECT_EQ(records[11].target.raw, 9u);
  EXPECT_EQ(records[12].slots.size(), 2u);
}

TEST(Records, ASmallCallIsTwentyBytes) {
  RecordsBuilder builder(kQueue);
  const Slot slots[] = {slot(1), slot(2), slot(3)};
  builder.call(PlanId{0}, slots, {});
  EXPECT_EQ(builder.bytes(), records_header_bytes + 20);
}

TEST(Records, ABuilderGrowsAndGoesOnCounting) {
  RecordsBuilder builder(kQueue);
  const Slot slots[] = {slot(1), slot(2), slot(3)};
  uint64_t read = 0;
  for (uint64_t i = 1; i <= 50'000; ++i) {
    EXPECT_EQ(builder.call(PlanId{1}, slots, {}).raw, i);
    if (!builder.full() && i != 50'000) continue;
    const Buffer payload = builder.take();
    auto reader = RecordReader::open(payload);
    for (Record record; reader->next(record);) EXPECT_EQ(record.call.raw, ++read);
    EXPECT_TRUE(reader->status().ok());
  }
  EXPECT_EQ(read, 50'000u);
}

// Goal: a payload cut anywhere is refused, and everything before the cut was shown correctly.
TEST(Records, EveryCutIsNoticed) {
  RecordsBuilder builder(kQueue);
  const Buffer payload = one_of_each(builder);
  for (size_t size = 0; size < payload.size(); ++size) {
    const Buffer part(std::span<const std::byte>(payload.data(), size));
    auto reader = RecordReader::open(part);
    if (!reader.ok()) continue;
    Record record;
    while (reader->next(record)) {
    }
    EXPECT_EQ(reader->status().kind(), StatusKind::kInvalid) << size;
  }
}

Status first_error(const Buffer& payload) {
  auto reader = RecordReader::open(payload);
  if (!reader.ok()) return reader.status();
  Record record;
  while (reader->next(record)) {
  }
  return reader->status();
}

TEST(Records, WhatIsWrongIsNamed) {
  const auto broken = [](auto&& build, size_t at, uint8_t value) {
    RecordsBuilder builder(kQueue);
    build(builder);
    Buffer payload = builder.take();
    payload[at] = static_cast<std::byte>(value);
    return first_error(payload).text();
  };
  const auto sync = [](RecordsBuilder& b) { b.sync(); };
  const size_t record = records_header_bytes;
  EXPECT_EQ(broken(sync, 0, 64), "malformed RECORDS: queue");
  EXPECT_EQ(broken(sync, 2, 1), "malformed RECORDS: reserved bytes");
  EXPECT_EQ(broken(sync, 4, 0), "malformed RECORDS: count");
  EXPECT_EQ(broken(sync, 4, 2), "malformed RECORDS: count");
  EXPECT_EQ(broken(sync, 8, 0), "malformed RECORDS: first call");
  EXPECT_EQ(broken(sync, 16, 1), "malformed RECORDS: trace cursor");
  EXPECT_EQ(broken(sync, record, 0), "malformed record 1 of 1 (unknown): kind");
  EXPECT_EQ(broken(sync, record, 13), "malformed record 1 of 1 (unknown): kind");
  EXPECT_EQ(broken(sync, record + 1, 1), "malformed record 1 of 1 (SYNC): flags");
  EXPECT_EQ(broken(sync, record + 2, 1), "malformed record 1 of 1 (SYNC): reserved bytes");
  const auto create = [](RecordsBuilder& b) { b.create(slot(1), 8); };
  EXPECT_EQ(broken(create, record + 7, 0), "malformed record 1 of 1 (CREATE): slot");  // another queue's
  EXPECT_EQ(broken(create, record + 15, 1), "malformed record 1 of 1 (CREATE): bytes");
  const auto free = [](RecordsBuilder& b) { b.free(slots_of_queue()); };
  EXPECT_EQ(broken(free, record + 2, 0), "malformed record 1 of 1 (FREE): count");
  EXPECT_EQ(broken(free, record + 3, 0xff), "malformed record 1 of 1 (FREE): too many slots");
  const auto after = [](RecordsBuilder& b) { b.after(QueueId{1}, CallNumber{1}); };
  EXPECT_EQ(broken(after, record + 2, 2), "malformed record 1 of 1 (AFTER): queue");  // itself
  const auto command = [](RecordsBuilder& b) { b.command(Buffer(5, std::byte{1}), Answer::kNone); };
  EXPECT_EQ(broken(command, record + 4, 9), "malformed record 1 of 1 (COMMAND): body");
  EXPECT_EQ(broken(command, record + 13, 1), "malformed record 1 of 1 (COMMAND): padding");
  const auto two = [](RecordsBuilder& b) { b.sync(), b.sync(); };
  EXPECT_EQ(broken(two, 4, 1), "malformed record 2 of 1 (CALL): bytes after the last record");
}

// Goal: whatever bytes come, the reader ends, says why, and never reads outside (run under ASan).
TEST(Records, RandomDamageNeverGoesUnseenByTheSanitizers) {
  Prng prng(1);
  for (int i = 0; i < 20'000; ++i) {
    RecordsBuilder builder(kQueue);
    Buffer payload = one_of_each(builder);
    for (uint64_t n = prng.between(1, 4); n > 0; --n) {
      payload[prng.below(payload.size())] = static_cast<std::byte>(prng.next());
    }
    payload.resize(prng.between(payload.size() / 2, payload.size()));
    payload.shrink_to_fit();
    static_cast<void>(first_error(payload));
  }
}

}  // namespace
}  // namespace waldo::wire
