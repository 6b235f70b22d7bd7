// The CUDA hooks: what libtorch_cpu asks "is there CUDA, and what can it do?".
//
// cuDNN is never claimed: operators that choose by it would be forwarded in a form only some workers have. The worker
// uses cuDNN where it has it, inside the operators it is sent.
#include <ATen/detail/CUDAHooksInterface.h>

#include <array>
#include <atomic>

#include "client/session.h"
#include "frontends/torch/device.h"
#include "frontends/torch/generator.h"
#include "frontends/torch/pinned.h"
#include "frontends/torch/register.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {
namespace {

constexpr int64_t kFftPlansMax = 4096;  // CUDA's default

class Hooks final : public at::CUDAHooksInterface {
 public:
  void init() const override {
    if (device_count() == 0) static_cast<void>(resolve_device(0));  // throws the reason
  }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasCUDA() const override { return device_count() > 0; }
  bool hasCuSOLVER() const override { return true; }
  bool hasCuBLASLt() const override { return true; }
  bool hasMAGMA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex device) const override { return opened(device); }

  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(device_count()); }
  int getNumGPUs() const override { return device_count(); }
  c10::DeviceIndex current_device() const override { return torch_frontend::current_device(); }
  c10::DeviceIndex getCurrentDevice() const override { return torch_frontend::current_device(); }
  void setCurrentDevice(c10::DeviceIndex device) const override { set_device(device); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override { return exchange_device(device); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchange_device(device); }
  void deviceSynchronize(c10::DeviceIndex device) const override { synchronize_device(device); }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override { return default_generator(device); }
  at::Generator getNewGenerator(c10::DeviceIndex device) const override { return new_generator(device); }

  c10::Device getDeviceFromPtr(void* address) const override {
    const int device = device_of_address(address);
    TORCH_CHECK(device >= 0,
                "The specified pointer does not belong to a Waldo device: nothing else can make CUDA "
                "memory in this process");
    return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)};
  }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  at::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  at::Allocator* getCUDADeviceAllocator() const override { return allocator(); }

  // FFT plans are made and kept by the worker: there are none here, and the wanted number is only kept.
  int64_t cuFFTGetPlanCacheMaxSize(c10::DeviceIndex device) const override { return fft_plans_max(device); }
  void cuFFTSetPlanCacheMaxSize(c10::DeviceIndex device, int64_t max_size) const override {
    TORCH_CHECK(max_size >= 0, "cuFFT plan cache size must be non-negative, but got ", max_size);
    fft_plans_max(device) = max_size;
  }
  int64_t cuFFTGetPlanCacheSize(c10::DeviceIndex) const override { return 0; }
  void cuFFTClearPlanCache(c10::DeviceIndex) const override {}
  std::string showConfig() const override { return "  - Waldo " WALDO_VERSION " provides the CUDA devices\n"; }

 private:
  static std::atomic<int64_t>& fft_plans_max(c10::DeviceIndex device) {
    static auto* const kept = [] {
      auto* all = new std::array<std::atomic<int64_t>, kDevicesMax>();
      for (auto& max : *all) max = kFftPlansMax;
      return all;
    }();
    return (*kept)[static_cast<size_t>(resolve_device(device))];
  }
};

std::unique_ptr<at::CUDAHooksInterface> make_hooks(at::CUDAHooksArgs) { return std::make_unique<Hooks>(); }

}  // namespace

bool hooks_are_ours() { return dynamic_cast<const Hooks*>(&at::detail::getCUDAHooks()) != nullptr; }

void register_hooks() { at::CUDAHooksRegistry()->Register("CUDAHooks", make_hooks, "Waldo", c10::REGISTRY_PREFERRED); }

}  // namespace waldo::torch_frontend
