// Time as a value that a test can move. Everything with a deadline takes a Clock.
#pragma once

#include <atomic>
#include <chrono>

namespace waldo {

using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;  // never goes back; any thread
  static const Clock& real();         // the machine's steady clock, lives for ever
};

// Stands still until somebody moves it. Any thread.
class FakeClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(ticks_.load())); }
  void advance(Duration by) { ticks_.fetch_add(by.count()); }

 private:
  std::atomic<Duration::rep> ticks_{1'000'000'000};
};

}  // namespace waldo
