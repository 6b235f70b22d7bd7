// A random program for the fake device, with a model of what it must come to: every value that is read is compared with
// what an undisturbed device would have.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/prng.h"
#include "client/session_core.h"
#include "sim/stage.h"

namespace waldo::sim {

// One thread of a program, on one queue which it shares with nobody.
class Program {
 public:
  Program(client::Queue& queue, uint64_t seed, int operations);

  // Runs to the end. Ok, or why the session was lost; throws nothing: a wrong value goes to failure().
  Status run();
  const std::string& failure() const { return failure_; }
  const std::vector<std::string>& calls() const { return calls_; }  // as the device must have seen them
  uint64_t digest() const { return digest_; }                       // of every value that was read

 private:
  using Content = std::vector<uint8_t>;
  Status one();
  Status define();
  Status full(size_t bytes, uint8_t value);
  Status check(Slot slot, const Content& wanted);
  Status reads_together();
  std::map<Slot, Content>::iterator any();
  std::map<Slot, Content>::iterator same_size(size_t bytes);
  void note(const char* operation);

  client::Queue& queue_;
  Prng prng_;
  const int operations_;
  std::map<std::string, PlanId> plans_;
  std::map<Slot, Content> values_;
  std::vector<std::string> calls_;
  std::string failure_;
  uint64_t digest_ = 0;
};

}  // namespace waldo::sim
