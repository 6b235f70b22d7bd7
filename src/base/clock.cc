#include "base/clock.h"

namespace waldo {
namespace {

class RealClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

}  // namespace

const Clock& Clock::real() {
  static const RealClock& clock = *new RealClock;  // never destroyed: loops may outlive static destruction
  return clock;
}

}  // namespace waldo
