// What the worker says of itself: names and sizes of its devices, and which libtorch runs.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

#include "base/os/machine.h"
#include "server/backends/torch/device.h"

namespace waldo::torch_backend {
namespace {

// The value after `key` in a file of "key : value" lines; empty when there is none.
std::string line_value(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return {};
}

uint64_t meminfo_bytes(std::string_view key) {
  const std::string value = line_value("/proc/meminfo", key);
  return value.empty() ? 0 : std::strtoull(value.c_str(), nullptr, 10) * 1024;
}

nlohmann::json cpu_device(uint64_t memory_bytes) {
  const uint64_t total = memory_bytes != 0 ? memory_bytes : host_memory_bytes();
  return {{"name", os::cpu_name()},
          {"kind", "cpu"},
          {"total_memory", total},
          {"capability", {8, 0}},  // what CPU kernels cover (bf16 included) is closest to that generation
          {"multi_processor_count", std::max(1u, std::thread::hardware_concurrency())}};
}

// c10's neutral interfaces tell neither name nor capability. The CUDA runtime and driver that libtorch_cuda brought do;
// both functions and the attributes' numbers are part of CUDA's stable C interface.
template <typename Function>
Function loaded(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

int cuda_attribute(int attribute, int device) {
  using Get = int (*)(int*, int, int);
  static const Get get = loaded<Get>("cudaDeviceGetAttribute");
  int value = 0;
  return get != nullptr && get(&value, attribute, device) == 0 ? value : 0;
}

std::string cuda_name(int device) {
  using GetName = int (*)(char*, int, int);
  static const GetName get = [] {
    static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    return driver != nullptr ? reinterpret_cast<GetName>(dlsym(driver, "cuDeviceGetName")) : nullptr;
  }();
  std::array<char, 256> name{};
  if (get != nullptr && get(name.data(), static_cast<int>(name.size()) - 1, device) == 0) return name.data();
  return "CUDA device " + std::to_string(device);
}

nlohmann::json cuda_device(uint16_t index, uint64_t memory_bytes) {
  constexpr int kMultiProcessorCount = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;
  uint64_t total = memory_bytes;
  if (auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::kCUDA)); total == 0 && allocator) {
    total = allocator->getMemoryInfo(static_cast<c10::DeviceIndex>(index)).second;
  }
  return {{"name", cuda_name(index)},
          {"kind", "cuda"},
          {"total_memory", total},
          {"capability", {cuda_attribute(kCapabilityMajor, index), cuda_attribute(kCapabilityMinor, index)}},
          {"multi_processor_count", cuda_attribute(kMultiProcessorCount, index)}};
}

}  // namespace

uint64_t host_memory_bytes() {
  uint64_t total = meminfo_bytes("MemTotal");
  std::ifstream limit("/sys/fs/cgroup/memory.max");  // holds "max" when there is no limit
  uint64_t bytes = 0;
  if (limit >> bytes && bytes > 0) total = std::min(total, bytes);
  return total;
}

uint64_t host_memory_available_bytes() { return meminfo_bytes("MemAvailable"); }

std::string device_info_json(bool cuda, uint16_t count, uint64_t memory_bytes) {
  nlohmann::json devices = nlohmann::json::array();
  for (uint16_t i = 0; i < count; ++i) {
    devices.push_back(cuda ? cuda_device(i, memory_bytes) : cpu_device(memory_bytes));
  }
  const nlohmann::json info = {
      {"kind", "torch"},
      {"version", TORCH_VERSION},
      {"devices", devices},
      {"intra_op_threads", at::get_num_threads()},
      {"capabilities",
       {{"device_kind", cuda ? "cuda" : "cpu"}, {"cudnn", false}, {"bf16", true}, {"sdpa", "math"}, {"magma", false}}},
  };
  return info.dump();
}

}  // namespace waldo::torch_backend
