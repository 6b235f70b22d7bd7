// The c10 device behind a queue, through c10's device-neutral interfaces: the CPU posing as cuda, or cuda itself where
// the libtorch beside us has it. All device-specific code of the backend is in this file's functions.
//
// Not the CPU: nothing here waits for the device. Uploads and reads go through pinned memory by copies that are put
// into the device's order; what tells that the device has come to them is an event, asked by whoever wants to know.
#pragma once

#include <ATen/core/TensorBody.h>
#include <c10/core/Device.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/Storage.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "server/backend.h"
#include "server/late_answers.h"

namespace c10 {
struct Event;
}

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
  // The CPU's bytes as they lie there. Of another device: stage().
  Status read(const c10::Storage& storage, uint64_t offset, uint64_t bytes, const server::ReadSink& sink) const;
  // At most kStagingBytes, copied behind what the device was given so far.
  server::StagedPiece stage(const c10::Storage& storage, uint64_t offset, uint64_t bytes) const;

  // An event behind what the device was given so far; not the CPU. `timed`: elapsedTime() may be asked of it.
  enum class Timed : bool { kNo, kYes };
  std::shared_ptr<const c10::Event> mark(Timed timed) const;
  void empty_cache() const;

  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t free_bytes(uint64_t used_bytes) const;

 private:
  at::Tensor bytes_of(const c10::Storage& storage, uint64_t offset, uint64_t bytes) const;
  c10::Stream stream() const;  // in which this thread gives the device its work
  void upload(const c10::Storage& storage, uint64_t offset, const server::UploadedBytes& bytes) const;

  const c10::Device device_;
  c10::DispatchKeySet new_tensor_keys_, plain_tensor_keys_;
  std::optional<c10::Stream> copy_stream_;  // not the CPU: of uploads into new storages
  uint64_t total_bytes_ = 0;
};

constexpr uint64_t kStagingBytes = uint64_t{4} << 20;

// Has the device come to this event? Not ok: the device has failed.
Result<bool> has_come_to(const c10::Event& event);

// Host time of events of one device, each later than the one before: counted on by what the device measured between.
// Thread: one.
class DeviceClock {
 public:
  uint64_t time_ns(std::shared_ptr<const c10::Event> event);  // the device has come to it

 private:
  std::shared_ptr<const c10::Event> last_;
  uint64_t last_ns_ = 0;
};

// {"name", "kind", "total_memory", "capability", "multi_processor_count"} of each device, and what libtorch is.
std::string device_info_json(bool cuda, uint16_t count, uint64_t memory_bytes);

uint64_t host_memory_bytes();            // MemTotal, or the memory limit this process runs under
uint64_t host_memory_available_bytes();  // MemAvailable

}  // namespace waldo::torch_backend
