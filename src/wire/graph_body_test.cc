#include "wire/graph_body.h"

#include <gtest/gtest.h>

#include "wire/limits.h"
#include "wire/plan_body.h"

namespace waldo::wire {
namespace {

GraphBody sample() {
  GraphBody body;
  body.value_count = 4;
  body.steps.push_back({.kind = GraphStep::Kind::kCreate, .bytes = 24, .values = {3}});
  body.steps.push_back({.plan = PlanId{7}, .values = {0, 3, 2}, .scalars = {std::byte{1}, std::byte{2}}});
  body.steps.push_back({.plan = PlanId{0}});
  body.steps.push_back({.kind = GraphStep::Kind::kResize, .bytes = 48, .values = {3}});
  return body;
}

TEST(GraphBody, RoundTrip) {
  const Buffer bytes = encode(sample());
  EXPECT_TRUE(is_graph_body(bytes));
  const auto body = decode_graph_body(bytes);
  ASSERT_TRUE(body.ok()) << body.status().to_string();
  EXPECT_EQ(encode(*body), bytes);
  ASSERT_EQ(body->steps.size(), 4u);
  EXPECT_EQ(body->steps[0].bytes, 24u);
  EXPECT_EQ(body->steps[1].plan, PlanId{7});
  EXPECT_EQ(body->steps[1].values, (std::vector<uint32_t>{0, 3, 2}));
  EXPECT_EQ(body->steps[1].scalars.size(), 2u);
}

TEST(GraphBody, IsToldFromAnOperatorsBody) {
  EXPECT_FALSE(is_graph_body(encode(PlanBody())));
  EXPECT_FALSE(is_graph_body({}));
  EXPECT_FALSE(decode_graph_body(encode(PlanBody())).ok());
  EXPECT_FALSE(decode_plan_body(encode(sample())).ok());
}

TEST(GraphBody, EveryCutAndEveryExtraByteIsRefused) {
  const Buffer bytes = encode(sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(decode_graph_body(std::span<const std::byte>(bytes).first(size)).status().kind(), StatusKind::kInvalid);
  }
  Buffer longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_EQ(decode_graph_body(longer).status().text(), "malformed graph body: too long");
}

TEST(GraphBody, LimitsAreChecked) {
  const auto why = [](const GraphBody& body) { return decode_graph_body(encode(body)).status().text(); };
  GraphBody body = sample();
  body.steps[1].values[0] = 4;
  EXPECT_EQ(why(body), "malformed graph body: value");
  body = sample();
  body.value_count = limits::graph_value_count_max + 1;
  EXPECT_EQ(why(body), "malformed graph body: value count");
  body = sample();
  body.steps[0].values.push_back(1);
  EXPECT_EQ(why(body), "malformed graph body: values");
  body = sample();
  body.steps[0].bytes = limits::storage_bytes_max + 1;
  EXPECT_EQ(why(body), "malformed graph body: storage bytes");
  body = sample();
  body.steps[1].kind = static_cast<GraphStep::Kind>(3);
  EXPECT_EQ(why(body), "malformed graph body: step kind");
}

}  // namespace
}  // namespace waldo::wire
