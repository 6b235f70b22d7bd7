#include "base/log.h"

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>

namespace waldo {
namespace {

LogLevel level_from_environment() {
  const char* value = std::getenv("WALDO_LOG");
  const std::string_view word = value == nullptr ? "" : value;
  if (word == "debug" || word == "trace") return LogLevel::kDebug;
  if (word == "info") return LogLevel::kInfo;
  if (word == "error") return LogLevel::kError;
  if (word == "off" || word == "none") return LogLevel::kOff;
  return LogLevel::kWarning;
}

std::atomic<int>& current_level() {
  static std::atomic<int> level{static_cast<int>(level_from_environment())};
  return level;
}

spdlog::logger& logger() {
  static spdlog::logger& instance = []() -> spdlog::logger& {  // never destroyed: threads may log during exit
    auto sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>(
        std::getenv("NO_COLOR") != nullptr ? spdlog::color_mode::never : spdlog::color_mode::automatic);
    auto* made = new spdlog::logger("waldo", std::move(sink));
    made->set_pattern("%n: %^%l%$: %v");
    made->set_level(spdlog::level::trace);  // log_level() has already decided
    made->flush_on(spdlog::level::trace);
    return *made;
  }();
  return instance;
}

}  // namespace

LogLevel log_level() { return static_cast<LogLevel>(current_level().load(std::memory_order_relaxed)); }

void set_log_level(LogLevel level) { current_level().store(static_cast<int>(level), std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view text) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  if (level == LogLevel::kOff) return;
  logger().log(kLevels[static_cast<int>(level)], text);
}

}  // namespace waldo
