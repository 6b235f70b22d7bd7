// What devices a worker here would have, said without starting one: for the line `waldo run` prints and for `waldo ls`.
// The worker's WELCOME is the truth.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace waldo::server {

struct ProbedDevice {
  std::string name;  // "NVIDIA H200", or the CPU's model name
  std::string kind;  // "cuda", "cpu"
  uint64_t total_memory = 0;
};

// Graphics cards when the torch beside `package_dir` can use them, else one entry: this machine's CPU.
std::vector<ProbedDevice> probe_devices(const std::string& package_dir);

}  // namespace waldo::server
