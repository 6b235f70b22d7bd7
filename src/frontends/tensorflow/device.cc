#include "frontends/tensorflow/device.h"

#include <cstdlib>
#include <cstring>

#include "frontends/tensorflow/errors.h"
#include "tensorflow/core/common_runtime/copy_tensor.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/public/session_options.h"
#include "xla/tsl/framework/device_id_manager.h"

namespace waldo::tensorflow_frontend {

namespace {

using tensorflow::DeviceContext;
using tensorflow::SessionOptions;
using tensorflow::StatusCallback;

// Where copies between host and device happen. One for each device.
class FarContext final : public DeviceContext {
 public:
  void CopyCPUTensorToDevice(const Tensor* from, tensorflow::Device* device, Tensor* to, StatusCallback done,
                             bool) const override {
    FarDevice* far = far_device(device);
    if (far == nullptr) return done(absl::InternalError("an upload to a device that is not ours"));
    done(far->far().upload(*from, to));
  }

  void CopyDeviceTensorToCPU(const Tensor* from, absl::string_view, tensorflow::Device*, Tensor* to,
                             StatusCallback done) override {
    if (from->NumElements() == 0) return done(absl::OkStatus());
    const Block* block = find_block(from->data());
    if (block == nullptr) {  // in host memory though it is the device's: an iterator's element
      std::memcpy(to->data(), from->data(), from->TotalBytes());
      return done(absl::OkStatus());
    }
    FarQueue::of(*block->queue).read(*from, *block, to, std::move(done));
  }

  void CopyTensorInSameDevice(const Tensor* from, tensorflow::Device* device, Tensor* to,
                              StatusCallback done) const override {
    FarDevice* far = far_device(device);
    if (from->NumElements() == 0) return done(absl::OkStatus());
    const Block* block = find_block(from->data());
    if (block == nullptr) return done(far->far().upload(*from, to));
    done(far->far().copy(*block, *from, to));
  }

  bool IsPluggableDevice() override { return true; }
};

void copy_between_devices(DeviceContext*, DeviceContext* to_context, tensorflow::Device*, tensorflow::Device* to_device,
                          tensorflow::AllocatorAttributes, tensorflow::AllocatorAttributes, const Tensor* from,
                          Tensor* to, int, StatusCallback done) {
  to_context->CopyTensorInSameDevice(from, to_device, to, std::move(done));
}

// "0,2" of the user's configuration; empty: all.
absl::Status visible_list(const std::string& text, int count, std::vector<int>* visible) {
  if (text.empty()) {
    for (int i = 0; i < count; ++i) visible->push_back(i);
    return absl::OkStatus();
  }
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    char* rest = nullptr;
    const long index = std::strtol(part.c_str(), &rest, 10);
    if (part.empty() || *rest != 0 || index < 0 || index >= count) {
      return absl::InvalidArgumentError("visible_device_list names \"" + part + "\", and there are " +
                                        std::to_string(count) + " devices");
    }
    visible->push_back(static_cast<int>(index));
    at = end + 1;
  }
  return absl::OkStatus();
}

const client::DeviceInfo& info_of(client::Queue& queue) {
  static const client::DeviceInfo unknown;
  const auto& devices = queue.session().worker().devices;
  return queue.id().raw < devices.size() ? devices[queue.id().raw] : unknown;
}

std::string capability(const client::DeviceInfo& info) {
  return std::to_string(info.capability_major) + "." + std::to_string(info.capability_minor);
}

class FarFactory final : public tensorflow::DeviceFactory {
 public:
  absl::Status ListPhysicalDevices(std::vector<std::string>* devices) override {
    const int count = runtime().device_count();
    for (int i = 0; i < count; ++i) devices->push_back("/physical_device:GPU:" + std::to_string(i));
    return absl::OkStatus();
  }

  absl::Status GetDeviceDetails(int index, std::unordered_map<std::string, std::string>* details) override {
    auto far = FarQueue::open(index);
    if (!far.ok()) return far.status();
    const auto& info = info_of((*far)->queue());
    (*details)["device_name"] = info.name;
    (*details)["compute_capability"] = capability(info);
    return absl::OkStatus();
  }

  absl::Status CreateDevices(const SessionOptions& options, const std::string& prefix,
                             std::vector<std::unique_ptr<tensorflow::Device>>* devices) override {
    const auto& gpu = options.config.gpu_options();
    std::vector<int> visible;
    const int there = runtime().device_count();
    if (absl::Status status = visible_list(gpu.visible_device_list(), there, &visible); !status.ok()) return status;
    const auto counted = options.config.device_count().find("GPU");
    if (counted != options.config.device_count().end() && counted->second < static_cast<int>(visible.size())) {
      visible.resize(static_cast<size_t>(counted->second));
    }
    int ordinal = 0;
    for (size_t i = 0; i < visible.size(); ++i) {
      auto far = FarQueue::open(visible[i]);
      if (!far.ok()) return far.status();
      const uint64_t total = info_of((*far)->queue()).total_memory;
      std::vector<uint64_t> limits = {total};
      if (static_cast<int>(i) < gpu.experimental().virtual_devices_size()) {
        const auto& split = gpu.experimental().virtual_devices(static_cast<int>(i)).memory_limit_mb();
        if (!split.empty()) limits.clear();
        for (const float megabytes : split) limits.push_back(static_cast<uint64_t>(megabytes * (1 << 20)));
      }
      for (const uint64_t limit : limits)
        devices->push_back(make(options, prefix, ordinal++, visible[i], **far, limit));
    }
    return absl::OkStatus();
  }

 private:
  static std::unique_ptr<tensorflow::Device> make(const SessionOptions& options, const std::string& prefix, int ordinal,
                                                  int physical, FarQueue& far, uint64_t limit) {
    // Grappler looks the device up here and complains in the log where it is not.
    (void)tsl::DeviceIdManager::InsertTfPlatformDeviceIdPair(tsl::DeviceType("GPU"), tsl::TfDeviceId(ordinal),
                                                             tsl::PlatformDeviceId(physical));
    const auto& info = info_of(far.queue());
    tensorflow::DeviceLocality locality;
    locality.set_bus_id(1);
    const auto attributes = tensorflow::Device::BuildDeviceAttributes(
        prefix + "/device:GPU:" + std::to_string(ordinal), tensorflow::DeviceType("GPU"),
        tensorflow::Bytes(static_cast<int64_t>(limit)), locality,
        "device: " + std::to_string(physical) + ", name: " + info.name +
            ", pci bus id: 0000:00:00.0, compute capability: " + capability(info));
    return std::make_unique<FarDevice>(options, attributes, far);
  }
};

}  // namespace

FarDevice::FarDevice(const SessionOptions& options, const tensorflow::DeviceAttributes& attributes, FarQueue& queue)
    : LocalDevice(options, attributes),
      far_(queue),
      allocator_(new FarAllocator("waldo_" + attributes.name(), static_cast<uint64_t>(attributes.memory_limit()))),
      context_(new FarContext()),
      info_(std::make_unique<AcceleratorDeviceInfo>()) {
  allocator_->set_queue(&far_.queue());
  info_->default_context = context_;
  info_->gpu_id = 0;
  set_tensorflow_accelerator_device_info(info_.get());
}

FarDevice::~FarDevice() { context_->Unref(); }

tensorflow::Allocator* FarDevice::GetAllocator(tensorflow::AllocatorAttributes attributes) {
  return attributes.on_host() ? tensorflow::cpu_allocator() : allocator_;
}

absl::Status FarDevice::TryGetDeviceContext(DeviceContext** out) {
  context_->Ref();
  *out = context_;
  return absl::OkStatus();
}

absl::Status FarDevice::MakeTensorFromProto(const tensorflow::TensorProto& proto,
                                            const tensorflow::AllocatorAttributes attributes, Tensor* tensor) {
  Tensor host;
  if (!host.FromProto(tensorflow::cpu_allocator(), proto)) {
    return absl::InvalidArgumentError("cannot parse a tensor of type " + tensorflow::DataTypeString(proto.dtype()));
  }
  const bool stays = attributes.on_host() || !tensorflow::DataTypeCanUseMemcpy(host.dtype());
  if (stays) {
    *tensor = std::move(host);
    return absl::OkStatus();
  }
  Tensor far(allocator_, host.dtype(), host.shape());
  if (!far.IsInitialized()) return absl::ResourceExhaustedError("out of the device's memory");
  if (absl::Status status = far_.upload(host, &far); !status.ok()) return status;
  *tensor = std::move(far);
  return absl::OkStatus();
}

void FarDevice::CopyTensorInSameDevice(const Tensor* from, Tensor* to, const DeviceContext*, StatusCallback done) {
  context_->CopyTensorInSameDevice(from, this, to, std::move(done));
}

FarDevice* far_device(tensorflow::DeviceBase* device) {
  return dynamic_cast<FarDevice*>(device == nullptr ? nullptr : device->UnderlyingDevice());
}

void register_device() {
  tensorflow::DeviceFactory::Register("GPU", std::make_unique<FarFactory>(), /*priority=*/230,
                                      /*is_pluggable_device=*/true);
  (void)tensorflow::CopyTensor::Register(tensorflow::DeviceType("GPU"), tensorflow::DeviceType("GPU"),
                                         &copy_between_devices, /*is_pluggable_device=*/true);
}

}  // namespace waldo::tensorflow_frontend
