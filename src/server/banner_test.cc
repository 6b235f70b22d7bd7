#include "server/banner.h"

#include <gtest/gtest.h>

#include "wire/version.h"

namespace waldo::server {
namespace {

TEST(Banner, SurvivesItsOwnText) {
  const Banner banner{"1.2.3", 1, "lab", {{"NVIDIA \"X\"", "cuda", 24ull << 30}}};
  auto parsed = parse_banner(to_json(banner));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->waldo, "1.2.3");
  EXPECT_EQ(parsed->host, "lab");
  ASSERT_EQ(parsed->devices.size(), 1u);
  EXPECT_EQ(parsed->devices[0].name, "NVIDIA \"X\"");
  EXPECT_EQ(parsed->devices[0].total_memory, 24ull << 30);
  EXPECT_EQ(to_json(banner).find('\n'), std::string::npos);
}

TEST(Banner, BelievesNothing) {
  for (const char* text : {"", "{", "[]", "{}", R"({"protocol": "1"})", "null"})
    EXPECT_FALSE(parse_banner(text).ok()) << text;
  EXPECT_TRUE(parse_banner(R"({"protocol": 1, "devices": [3, {"name": 4, "total_memory": -1}]})").ok());
}

// Goal: the refusal says which side must be brought up to date, and how.
TEST(Banner, SaysWhoMustChange) {
  EXPECT_TRUE(check_version({"9", static_cast<int>(wire::protocol_version), "", {}}, "lab").ok());
  const Status newer = check_version({"9.0.0", 999, "", {}}, "lab");
  EXPECT_EQ(newer.kind(), StatusKind::kUnsupported);
  EXPECT_NE(newer.text().find("Try here: pip install waldo-gpu==9.0.0"), std::string::npos);
  EXPECT_NE(check_version({"0.0.1", 0, "", {}}, "lab").text().find("Try there"), std::string::npos);
}

}  // namespace
}  // namespace waldo::server
