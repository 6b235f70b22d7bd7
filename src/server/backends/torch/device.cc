#include "server/backends/torch/device.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/geometry.h"

namespace waldo::torch_backend {
namespace {

using Bytes = server::UploadedBytes;

constexpr uintptr_t kAlignment = 64;  // what kernels may assume of a storage's start
c10::Storage new_storage(uint64_t bytes, c10::Allocator* allocator) {
  return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(bytes), allocator, /*resizable=*/true);
}

// A DataPtr that owns an uploaded buffer and frees it the buffer's own way.
c10::DataPtr data_ptr_of(Bytes bytes) {
  std::byte* const data = bytes.data.get();
  auto* holder = new Bytes(std::move(bytes));
  return {data, holder, [](void* context) { delete static_cast<Bytes*>(context); }, c10::Device(c10::kCPU)};
}

at::Tensor pinned(uint64_t bytes) {
  return at::empty({static_cast<int64_t>(bytes)}, at::TensorOptions().dtype(c10::ScalarType::Byte).pinned_memory(true));
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
    copy_stream_ = c10::impl::getDeviceGuardImpl(device.type())->getStreamFromGlobalPool(device);
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
  if (is_cpu()) {
    c10::Storage storage = allocate(size);
    write(storage, 0, std::move(bytes));
    return storage;
  }
  // Nothing that the device was given so far uses new memory: it is filled beside that, and waited for by what follows.
  const c10::Stream later = stream();
  c10::Event filled(device_.type());
  c10::Storage storage;
  {
    const c10::StreamGuard here(*copy_stream_);
    storage = allocate(size);
    upload(storage, 0, bytes);
    filled.record(*copy_stream_);
  }
  filled.block(later);
  if (auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device_.type())))
    allocator->recordStream(storage.data_ptr(), later);  // given back only when `later` is done with it
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
    upload(storage, offset, bytes);
  } else if (offset == 0 && bytes.size == storage.nbytes() && aligned(bytes)) {
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(data_ptr_of(std::move(bytes)));
  } else {
    std::memcpy(static_cast<std::byte*>(storage.mutable_data()) + offset, bytes.data.get(), bytes.size);
  }
}

// In the order of the stream that is this thread's now.
void Device::upload(const c10::Storage& storage, uint64_t offset, const Bytes& bytes) const {
  for (uint64_t done = 0; done < bytes.size;) {
    const uint64_t part = std::min(bytes.size - done, kStagingBytes);
    const at::Tensor staging = pinned(part);
    std::memcpy(staging.mutable_data_ptr(), bytes.data.get() + done, part);
    bytes_of(storage, offset + done, part).copy_(staging, /*non_blocking=*/true);
    done += part;
  }
}

Status Device::read(const c10::Storage& storage, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) const {
  if (bytes == 0) return sink({});
  if (!is_cpu()) return Status(StatusKind::kInternal, "a device's bytes are staged");
  return sink({static_cast<const std::byte*>(storage.data()) + offset, bytes});
}

server::StagedPiece Device::stage(const c10::Storage& storage, uint64_t offset, uint64_t bytes) const {
  const auto staging = std::make_shared<const at::Tensor>(pinned(bytes));
  bytes_of(staging->storage(), 0, bytes).copy_(bytes_of(storage, offset, bytes), /*non_blocking=*/true);
  return {.bytes = {static_cast<const std::byte*>(staging->const_data_ptr()), bytes},
          .ready = [event = mark(Timed::kNo)] { return has_come_to(*event); },
          .keeps = staging};
}

std::shared_ptr<const c10::Event> Device::mark(Timed timed) const {
  const auto event = std::make_shared<c10::Event>(
      device_.type(), timed == Timed::kYes ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT);
  event->record(stream());
  return event;
}

c10::Stream Device::stream() const { return c10::impl::getDeviceGuardImpl(device_.type())->getStream(device_); }

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

Result<bool> has_come_to(const c10::Event& event) {
  bool come = false;
  WALDO_TRY(guarded({}, [&]() -> Status {
    come = event.query();
    return Status();
  }));
  return come;
}

uint64_t DeviceClock::time_ns(std::shared_ptr<const c10::Event> event) {
  if (last_ == nullptr) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    last_ns_ = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  } else {
    last_ns_ += static_cast<uint64_t>(std::max(0.0, last_->elapsedTime(*event)) * 1e6);
  }
  last_ = std::move(event);
  return last_ns_;
}

}  // namespace waldo::torch_backend
