// `/GPU:i` for TensorFlow: the factory that lists and makes devices, the device, and the context that copies to and
// from it. A device of TensorFlow's is a queue of ours (logical devices share one).
//
// Connects when TensorFlow makes its devices (first use), or is asked how many there are and nobody has said.
// Threads: any. Reads end on a thread of the device's own, which waits for them in the order they began.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "client/session.h"
#include "frontends/tensorflow/memory.h"
#include "tensorflow/core/common_runtime/local_device.h"
#include "wire/tensorflow_body.h"

namespace waldo::tensorflow_frontend {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;

inline client::Runtime& runtime() { return client::Runtime::second(); }  // PyTorch's is the first

void register_device();  // the factory, and how two devices copy

// What is known of one queue: its plans by body. One for each queue of the process, never destroyed.
class FarQueue {
 public:
  static absl::StatusOr<FarQueue*> open(int physical);  // connects at the first call

  static FarQueue& of(client::Queue& queue);  // of one that is open

  client::Queue& queue() { return queue_; }
  PlanId plan(const wire::tf::PlanBody& body);  // the same number for the same body
  bool once(const std::string& name);           // true at the first call with this name: functions are sent once

  absl::Status upload(const Tensor& from, Tensor* to);  // `to` is of this device and not made yet
  absl::Status copy(const Block& from, const Tensor& like, Tensor* to);
  // Reads into `to`; `done` is called later, on the reading thread, or at once.
  void read(const Tensor& from, const Block& block, Tensor* to, std::function<void(const absl::Status&)> done);

 private:
  explicit FarQueue(client::Queue& queue);
  struct Reading {
    client::ReadTicket ticket;
    std::function<void(const absl::Status&)> done;
  };
  void run_reader();

  client::Queue& queue_;
  PlanId make_, shape_, alias_;
  std::mutex mutex_;  // guards what follows
  std::unordered_map<std::string, PlanId> plans_;
  std::unordered_map<std::string, bool> names_;
  std::mutex reading_mutex_;  // guards what follows
  std::condition_variable reading_changed_;
  std::deque<Reading> readings_;
  std::thread reader_;
};

class FarDevice final : public tensorflow::LocalDevice {
 public:
  FarDevice(const tensorflow::SessionOptions& options, const tensorflow::DeviceAttributes& attributes, FarQueue& queue);
  ~FarDevice() override;

  FarQueue& far() { return far_; }
  FarAllocator& allocator() { return *allocator_; }

  tensorflow::Allocator* GetAllocator(tensorflow::AllocatorAttributes attributes) override;
  absl::Status Sync() override { return absl::OkStatus(); }  // recorded in order, and reads are too
  bool AllowsSyncOnCompletion() const override { return false; }
  absl::Status RefreshStatus() override { return absl::OkStatus(); }
  absl::Status TryGetDeviceContext(tensorflow::DeviceContext** out) override;
  absl::Status MakeTensorFromProto(const tensorflow::TensorProto& proto, tensorflow::AllocatorAttributes attributes,
                                   Tensor* tensor) override;
  void CopyTensorInSameDevice(const Tensor* from, Tensor* to, const tensorflow::DeviceContext* context,
                              tensorflow::StatusCallback done) override;

 private:
  FarQueue& far_;
  FarAllocator* const allocator_;  // never destroyed: buffers outlive devices
  tensorflow::DeviceContext* context_;
  std::unique_ptr<AcceleratorDeviceInfo> info_;
};

// The device behind a kernel's (which may be wrapped), or null when it is not ours.
FarDevice* far_device(tensorflow::DeviceBase* device);

wire::tf::TensorMeta meta_of(const Tensor& tensor);

}  // namespace waldo::tensorflow_frontend
