#include "server/backends/torch/backend.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/backends/torch/device.h"
#include "server/backends/torch/errors.h"
#include "server/backends/torch/quantized.h"
#include "server/backends/torch/queue.h"
#include "server/backends/torch/sparse.h"
#include "server/backends/torch/substitutes.h"

namespace waldo::torch_backend {
namespace {

struct Options {
  uint64_t gpus = 0;
  uint64_t memory_bytes = 0;
  uint64_t intra_op_threads = 0;
  bool cpu_only = false;
  std::string collective_net = "127.0.0.1";
};

Result<Options> parse(const std::string& text) {
  Options options;
  const nlohmann::json json = text.empty() ? nlohmann::json::object() : nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return Status(StatusKind::kInvalid, "the backend's options are no JSON object");
  const auto number = [&](const char* key, uint64_t& out) {
    const auto it = json.find(key);
    if (it == json.end() || it->is_null()) return true;
    if (!it->is_number_integer() || (!it->is_number_unsigned() && it->get<int64_t>() < 0)) return false;
    out = it->get<uint64_t>();
    return true;
  };
  if (!number("gpus", options.gpus) || !number("memory_bytes", options.memory_bytes) ||
      !number("intra_op_threads", options.intra_op_threads)) {
    return Status(StatusKind::kInvalid, "an option of the backend is not a number");
  }
  if (const auto it = json.find("collective_net"); it != json.end() && it->is_string()) options.collective_net = *it;
  if (const auto it = json.find("device"); it != json.end() && it->is_string()) options.cpu_only = *it == "cpu";
  if (options.gpus > limits::queue_count_max) {
    return Status(StatusKind::kInvalid, fmt::format("at most {} devices", limits::queue_count_max));
  }
  if (options.intra_op_threads > 4096) return Status(StatusKind::kInvalid, "too many threads");
  return options;
}

class TorchBackend final : public server::Backend {
 public:
  TorchBackend(std::shared_ptr<Shared> shared, uint64_t memory_bytes)
      : shared_(std::move(shared)), memory_bytes_(memory_bytes) {}

  std::string info_json() override {
    try {
      return device_info_json(shared_->cuda, shared_->queue_count, memory_bytes_);
    } catch (...) {
      return "{}";
    }
  }

  Result<std::unique_ptr<server::QueueBackend>> open_queue(QueueId queue) override {
    if (queue.raw >= shared_->queue_count) {
      return Status(StatusKind::kInvalid, fmt::format("there is no device {}", queue.raw));
    }
    std::unique_ptr<server::QueueBackend> opened;
    WALDO_TRY(guarded({}, [&]() -> Status {
      opened = std::make_unique<TorchQueue>(shared_, queue);
      return Status();
    }));
    return opened;
  }

 private:
  const std::shared_ptr<Shared> shared_;
  const uint64_t memory_bytes_;
};

}  // namespace

Result<std::unique_ptr<server::Backend>> make_backend(const std::string& options_json) {
  Result<Options> parsed = parse(options_json);
  if (!parsed.ok()) return parsed.status();
  const Options& options = parsed.value();
  std::unique_ptr<server::Backend> backend;
  WALDO_TRY(guarded({}, [&]() -> Status {
    auto shared = std::make_shared<Shared>(options.collective_net);
    shared->cuda = !options.cpu_only && load_cuda();
    uint64_t count = std::max<uint64_t>(options.gpus, 1);
    if (shared->cuda) {
      const auto present = static_cast<uint64_t>(c10::impl::getDeviceGuardImpl(c10::kCUDA)->deviceCount());
      if (options.gpus > present) {
        return Status(StatusKind::kInvalid, fmt::format("{} devices asked for, {} here", options.gpus, present));
      }
      if (options.gpus == 0) count = std::min<uint64_t>(present, limits::queue_count_max);
    } else {
      register_substitutes();
    }
    register_sparse();
    register_quantized();
    register_collectives();
    shared->queue_count = static_cast<uint16_t>(count);
    for (MemoryCount& memory : shared->memory) memory.cap = options.memory_bytes;
    if (options.intra_op_threads > 0) at::set_num_threads(static_cast<int>(options.intra_op_threads));
    backend = std::make_unique<TorchBackend>(std::move(shared), options.memory_bytes);
    return Status();
  }));
  return backend;
}

}  // namespace waldo::torch_backend
