#include "base/log.h"

#include <gtest/gtest.h>

namespace waldo {
namespace {

TEST(Log, OnlyLinesFromTheSetLevelOnAreWritten) {
  const LogLevel before = log_level();
  set_log_level(LogLevel::kWarning);
  testing::internal::CaptureStderr();
  log_info("quiet {}", 1);
  log_warning("loud {}", 2);
  const std::string text = testing::internal::GetCapturedStderr();
  set_log_level(before);
  EXPECT_EQ(text, "waldo: warning: loud 2\n");
}

}  // namespace
}  // namespace waldo
