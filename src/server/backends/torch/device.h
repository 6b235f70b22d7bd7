// The c10 device behind a queue, through c10's device-neutral interfaces: the CPU posing as cuda, or cuda itself where
// the libtorch beside us has it. All device-specific code of the backend is in this file's functions.
#pragma once

#include <ATen/core/TensorBody.h>
#include <c10/core/Device.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"
#include "server/backend.h"

namespace waldo::torch_backend {

// Loads libtorch_cuda from the folder of the libtorch we run on, once. True when it is there and finds a device.
bool load_cuda();

// Thread: calls come from the queue's executor thread, after enter_thread(). Functions throw what libtorch throws.
class Device {
 public:
  explicit Device(c10::Device device);

  c10::Device device() const { return device_; }
  bool is_cpu() const { return device_.is_cpu(); }
  c10::DispatchKeySet new_tensor_keys() const { return new_tensor_keys_; }
  c10::DispatchKeySet plain_tensor_keys() const { return plain_tensor_keys_; }  // of a dense tensor without flags

  // Makes this thread run operators for this device: no autograd, the device current, intra-op threads set up.
  void enter_thread() const;

  c10::Storage allocate(uint64_t bytes) const;
  c10::Storage adopt(server::UploadedBytes bytes) const;  // CPU: without a copy
  // Same StorageImpl, other memory; keeps the content that fits.
  void resize(const c10::Storage& storage, uint64_t bytes) const;
  // `offset + bytes.size` lies within the storage. Takes the buffer itself where it covers the whole of it.
  void write(const c10::Storage& storage, uint64_t offset, server::UploadedBytes bytes) const;
  Status read(const c10::Storage& storage, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) const;

  void synchronize() const;
  void empty_cache() const;

  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t free_bytes(uint64_t used_bytes) const;

 private:
  at::Tensor bytes_of(const c10::Storage& storage, uint64_t offset, uint64_t bytes) const;

  const c10::Device device_;
  c10::DispatchKeySet new_tensor_keys_, plain_tensor_keys_;
  uint64_t total_bytes_ = 0;
};

// {"name", "kind", "total_memory", "capability", "multi_processor_count"} of each device, and what libtorch is.
std::string device_info_json(bool cuda, uint16_t count, uint64_t memory_bytes);

uint64_t host_memory_bytes();            // MemTotal, or the memory limit this process runs under
uint64_t host_memory_available_bytes();  // MemAvailable

}  // namespace waldo::torch_backend
