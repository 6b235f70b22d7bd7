#include "server/backends/torch/device.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "server/backends/torch/geometry.h"

namespace waldo::torch_backend {
namespace {

using Bytes = server::UploadedBytes;

constexpr uintptr_t kAlignment = 64;  // what kernels may assume of a storage's start
constexpr uint64_t kStagingBytes = uint64_t{4} << 20;

c10::Storage new_storage(uint64_t bytes, c10::Allocator* allocator) {
  return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(bytes), allocator, /*resizable=*/true);
}

// A DataPtr that owns an uploaded buffer and frees it the buffer's own way.
c10::DataPtr data_ptr_of(Bytes bytes) {
  std::byte* const data = bytes.data.get();
  auto* holder = new Bytes(std::move(bytes));
  return {data, holder, [](void* context) { delete static_cast<Bytes*>(context); }, c10::Device(c10::kCPU)};
}

bool aligned(const Bytes& bytes) { return reinterpret_cast<uintptr_t>(bytes.data.get()) % kAlignment == 0; }

}  // namespace

bool load_cuda() {
  static const bool loaded = [] {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&c10::GetAllocator), &info) == 0 || info.dli_fname == nullptr)
      return false;
    const auto path = std::filesystem::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return false;
    if (dlopen("libcuda.so.1", RTLD_LAZY) == nullptr) return false;  // no driver: half a gigabyte need not be loaded
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) return false;
    if (!c10::impl::hasDeviceGuardImpl(c10::kCUDA)) return false;
    return c10::impl::getDeviceGuardImpl(c10::kCUDA)->deviceCount() > 0;
  }();
  return loaded;
}

Device::Device(c10::Device device)
    : device_(device), new_tensor_keys_(device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA) {
  plain_tensor_keys_ = at::empty({0}, at::TensorOptions().device(device)).key_set();
  if (is_cpu()) {
    total_bytes_ = host_memory_bytes();
  } else {
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
    if (allocator != nullptr) total_bytes_ = allocator->getMemoryInfo(device.index()).second;
  }
}

void Device::enter_thread() const {
  struct Mode {
    Mode() { at::init_num_threads(); }  // OpenMP's count is per thread; plain PyTorch's main thread has it set too
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    c10::NoGradGuard no_grad;
  };
  thread_local Mode mode;
  static_cast<void>(mode);
  if (!is_cpu()) c10::impl::getDeviceGuardImpl(device_.type())->setDevice(device_);
}

c10::Storage Device::allocate(uint64_t bytes) const { return new_storage(bytes, c10::GetAllocator(device_.type())); }

c10::Storage Device::adopt(Bytes bytes) const {
  const uint64_t size = bytes.size;
  if (is_cpu() && aligned(bytes)) {
    return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(size), data_ptr_of(std::move(bytes)),
                        c10::GetAllocator(c10::kCPU), /*resizable=*/true);
  }
  c10::Storage storage = allocate(size);
  write(storage, 0, std::move(bytes));
  return storage;
}

void Device::resize(const c10::Storage& storage, uint64_t bytes) const {
  c10::Storage grown = allocate(bytes);
  const uint64_t keep = std::min<uint64_t>(bytes, storage.nbytes());
  if (keep > 0) {
    if (is_cpu()) {
      std::memcpy(grown.mutable_data(), storage.data(), keep);
    } else {
      bytes_of(grown, 0, keep).copy_(bytes_of(storage, 0, keep));
    }
  }
  c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
  impl->set_data_ptr_noswap(grown.set_data_ptr(c10::DataPtr(nullptr, device_)));
  impl->set_nbytes(bytes);
}

void Device::write(const c10::Storage& storage, uint64_t offset, Bytes bytes) const {
  if (bytes.size == 0) return;
  if (!is_cpu()) {
    const at::Tensor source = at::from_blob(bytes.data.get(), {static_cast<int64_t>(bytes.size)},
                                            at::TensorOptions().dtype(c10::ScalarType::Byte));
    bytes_of(storage, offset, bytes.size).copy_(source);
  } else if (offset == 0 && bytes.size == storage.nbytes() && aligned(bytes)) {
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(data_ptr_of(std::move(bytes)));
  } else {
    std::memcpy(static_cast<std::byte*>(storage.mutable_data()) + offset, bytes.data.get(), bytes.size);
  }
}

Status Device::read(const c10::Storage& storage, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) const {
  if (is_cpu()) return sink({static_cast<const std::byte*>(storage.data()) + offset, bytes});
  if (bytes == 0) return sink({});
  const uint64_t staging_bytes = std::min(bytes, kStagingBytes);
  const at::Tensor staging = at::empty({static_cast<int64_t>(staging_bytes)},
                                       at::TensorOptions().dtype(c10::ScalarType::Byte).pinned_memory(true));
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t part = std::min(bytes - done, staging_bytes);
    bytes_of(staging.storage(), 0, part).copy_(bytes_of(storage, offset + done, part));
    WALDO_TRY(sink({static_cast<const std::byte*>(staging.const_data_ptr()), part}));
    done += part;
  }
  return Status();
}

void Device::synchronize() const {
  if (!is_cpu()) c10::impl::getDeviceGuardImpl(device_.type())->synchronizeDevice(device_.index());
}

void Device::empty_cache() const {
  if (auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device_.type()))) allocator->emptyCache();
}

uint64_t Device::free_bytes(uint64_t used_bytes) const {
  if (is_cpu()) {
    const uint64_t left = total_bytes_ > used_bytes ? total_bytes_ - used_bytes : 0;
    return std::min(left, host_memory_available_bytes());
  }
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device_.type()));
  return allocator != nullptr ? allocator->getMemoryInfo(device_.index()).first : 0;
}

at::Tensor Device::bytes_of(const c10::Storage& storage, uint64_t offset, uint64_t bytes) const {
  Geometry geometry;
  geometry.dtype = c10::ScalarType::Byte;
  geometry.type = c10::scalarTypeToTypeMeta(geometry.dtype);
  geometry.sizes = {static_cast<int64_t>(bytes)};
  geometry.strides = {1};
  const c10::DispatchKeySet keys =
      storage.device().is_cpu() ? c10::DispatchKeySet(c10::DispatchKey::CPU) : new_tensor_keys_;
  return make_tensor(storage, geometry, static_cast<int64_t>(offset), keys);
}

}  // namespace waldo::torch_backend
