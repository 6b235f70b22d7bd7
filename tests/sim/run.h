// One seed: a world, a few programs on it, and the promises that must hold at the end.
#pragma once

#include <string>

#include "sim/world.h"

namespace waldo::sim {

struct Outcome {
  std::string failure;  // "": all promises held
  bool lost = false;    // the session was lost, as this seed's plan wanted
  uint64_t digest = 0, fingerprint = 0, links = 0, steps = 0;
  uint64_t bytes_up = 0, bytes_down = 0;
  double seconds = 0;  // simulated
};

Plan plan_of(uint64_t seed);  // what chance makes of this seed
Outcome run_seed(uint64_t seed);
Outcome run_plan(const Plan& plan, int operations);

}  // namespace waldo::sim
