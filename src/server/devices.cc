#include "server/devices.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/os/machine.h"

namespace waldo::server {

namespace {

// NVML is the driver's own library; it answers in milliseconds and needs no CUDA context.
std::vector<ProbedDevice> probe_nvidia() {
  struct Memory {
    unsigned long long total, free, used;
  };
  void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {};
  const auto init = reinterpret_cast<int (*)()>(::dlsym(library, "nvmlInit_v2"));
  const auto count_of = reinterpret_cast<int (*)(unsigned*)>(::dlsym(library, "nvmlDeviceGetCount_v2"));
  const auto handle_of = reinterpret_cast<int (*)(unsigned, void**)>(::dlsym(library, "nvmlDeviceGetHandleByIndex_v2"));
  const auto name_of = reinterpret_cast<int (*)(void*, char*, unsigned)>(::dlsym(library, "nvmlDeviceGetName"));
  const auto memory_of = reinterpret_cast<int (*)(void*, Memory*)>(::dlsym(library, "nvmlDeviceGetMemoryInfo"));
  if (!init || !count_of || !handle_of || !name_of || !memory_of || init() != 0) return {};
  unsigned count = 0;
  if (count_of(&count) != 0) return {};
  std::vector<ProbedDevice> devices;
  for (unsigned i = 0; i < count; ++i) {
    void* handle = nullptr;
    char name[128] = {};
    Memory memory{};
    if (handle_of(i, &handle) != 0) continue;
    name_of(handle, name, sizeof(name) - 1);
    memory_of(handle, &memory);
    devices.push_back({name, "cuda", memory.total});
  }
  return devices;
}

// As the CUDA runtime reads it: the cards named before the first one that does not exist. Names by UUID keep all.
std::vector<ProbedDevice> only_visible(std::vector<ProbedDevice> devices) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return devices;
  std::vector<ProbedDevice> chosen;
  std::istringstream parts(visible);
  for (std::string part; std::getline(parts, part, ',');) {
    char* end = nullptr;
    const long index = std::strtol(part.c_str(), &end, 10);
    if (end == part.c_str()) return devices;
    if (index < 0 || static_cast<size_t>(index) >= devices.size()) break;
    chosen.push_back(devices[static_cast<size_t>(index)]);
  }
  return chosen;
}

}  // namespace

std::vector<ProbedDevice> probe_devices(const std::string& package_dir) {
  std::error_code error;
  if (std::filesystem::exists(package_dir + "/../torch/lib/libtorch_cuda.so", error)) {
    auto devices = only_visible(probe_nvidia());
    if (!devices.empty()) return devices;
  }
  return {{os::cpu_name(), "cpu", os::physical_memory_bytes()}};
}

}  // namespace waldo::server
