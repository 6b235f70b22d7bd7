#include "server/backends/tensorflow/backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/os/machine.h"
#include "server/backends/tensorflow/queue.h"
#include "wire/limits.h"

namespace waldo::tensorflow_backend {

namespace {

size_t count_gpus(TFE_Context* context, TF_Status* status) {
  TF_DeviceList* devices = TFE_ContextListDevices(context, status);
  if (TF_GetCode(status) != TF_OK) return 0;
  size_t gpus = 0;
  for (int i = 0; i < TF_DeviceListCount(devices); ++i) {
    const char* type = TF_DeviceListType(devices, i, status);
    if (TF_GetCode(status) == TF_OK && std::strcmp(type, "GPU") == 0) ++gpus;
  }
  TF_DeleteDeviceList(devices);
  return gpus;
}

class TfBackend final : public server::Backend {
 public:
  explicit TfBackend(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  std::string info_json() override {
    nlohmann::json devices = nlohmann::json::array();
    for (uint16_t i = 0; i < shared_->queue_count; ++i) {
      devices.push_back({{"name", shared_->gpu ? "GPU" : os::cpu_name()},
                         {"kind", shared_->gpu ? "cuda" : "cpu"},
                         {"total_memory", os::physical_memory_bytes()},
                         {"capability", {8, 0}},
                         {"multi_processor_count", 1}});
    }
    return nlohmann::json{{"kind", "tensorflow"}, {"version", TF_Version()}, {"devices", devices}}.dump();
  }

  Result<std::unique_ptr<server::QueueBackend>> open_queue(QueueId queue) override {
    if (queue.raw >= shared_->queue_count) return Status(StatusKind::kInvalid, "there is no such device");
    return std::unique_ptr<server::QueueBackend>(std::make_unique<TfQueue>(shared_, queue));
  }

 private:
  const std::shared_ptr<Shared> shared_;
};

}  // namespace

Result<std::unique_ptr<server::Backend>> make_backend(const std::string& options_json) {
  const auto options = nlohmann::json::parse(options_json, nullptr, /*allow_exceptions=*/false);
  uint64_t asked = 0;
  if (options.is_object() && options.contains("gpus")) {
    if (!options["gpus"].is_number_integer() || options["gpus"].get<int64_t>() < 0) {
      return Status(StatusKind::kInvalid, "the backend's option gpus is not a number");
    }
    asked = options["gpus"].get<uint64_t>();
  }
  if (asked > limits::queue_count_max) return Status(StatusKind::kInvalid, "too many devices");
  ::setenv("TF_CPP_MIN_LOG_LEVEL", "2", /*overwrite=*/0);  // its greetings are no news of the user's program

  TfStatus status(TF_NewStatus());
  TFE_ContextOptions* context_options = TFE_NewContextOptions();
  TFE_ContextOptionsSetDevicePlacementPolicy(context_options, TFE_DEVICE_PLACEMENT_SILENT);
  auto shared = std::make_shared<Shared>();
  shared->context = TFE_NewContext(context_options, status.get());
  TFE_DeleteContextOptions(context_options);
  WALDO_TRY(to_status(status.get(), "").with_context("start TensorFlow"));
  const size_t gpus = count_gpus(shared->context, status.get());
  shared->gpu = gpus != 0;
  if (shared->gpu && asked > gpus) {
    return Status(StatusKind::kInvalid,
                  std::to_string(asked) + " devices asked for, " + std::to_string(gpus) + " here");
  }
  const uint64_t count = asked != 0 ? asked : std::max<uint64_t>(gpus, 1);
  shared->queue_count = static_cast<uint16_t>(std::min<uint64_t>(count, limits::queue_count_max));
  return std::unique_ptr<server::Backend>(std::make_unique<TfBackend>(std::move(shared)));
}

}  // namespace waldo::tensorflow_backend
