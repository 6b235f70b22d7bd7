#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/ids.h"

namespace waldo {
namespace {

// Goal: what a Writer wrote, a Reader gives back, and the end is where it should be.
TEST(Bytes, RoundTrip) {
  Buffer buffer;
  Writer writer(buffer);
  writer.put<uint8_t>(7);
  writer.pad_to(4);
  writer.put<uint64_t>(1ull << 60);
  writer.put(2.5);
  writer.put_sized("text");
  Reader reader(buffer);
  EXPECT_EQ(reader.get<uint8_t>("a"), 7);
  EXPECT_EQ(as_text(reader.get_bytes(3, "padding")), std::string_view("\0\0\0", 3));
  EXPECT_EQ(reader.get<uint64_t>("b"), 1ull << 60);
  EXPECT_EQ(reader.get<double>("c"), 2.5);
  EXPECT_EQ(reader.get_text(4, "d"), "text");
  EXPECT_TRUE(reader.ok() && reader.at_end());
}

// Goal: reading past the end, or a size over the stated maximum, fails for good and names the first wrong thing.
TEST(Bytes, ReaderFailsOnceAndForAll) {
  Buffer buffer;
  Writer(buffer).put<uint32_t>(100);
  Reader past(buffer);
  EXPECT_TRUE(past.get_sized(1000, "text").empty());
  EXPECT_EQ(past.get<uint8_t>("later"), 0);
  EXPECT_FALSE(past.ok());
  EXPECT_STREQ(past.why(), "text");
  Reader over(buffer);
  EXPECT_TRUE(over.get_sized(99, "short text").empty());
  EXPECT_STREQ(over.why(), "short text");
}

// Goal: a slot's name carries its queue, for every queue the protocol allows.
TEST(Ids, SlotNamesItsQueue) {
  for (uint16_t queue = 0; queue < 64; ++queue) {
    const Slot slot = Slot::make(QueueId{queue}, 12345);
    EXPECT_EQ(slot.queue().raw, queue);
    EXPECT_EQ(slot.index(), 12345u);
    EXPECT_FALSE(slot.none());
  }
  EXPECT_TRUE(Slot().none());
}

}  // namespace
}  // namespace waldo
