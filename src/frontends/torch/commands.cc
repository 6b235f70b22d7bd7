#include "frontends/torch/commands.h"

#include <algorithm>

#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/graph_recording.h"
#include "frontends/torch/memory_info.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

void send_command(c10::DeviceIndex device, const wire::Command& command) {
  note_unfit("changes a generator");
  check(queue_for(c10::Device(c10::DeviceType::CUDA, device)).command(wire::encode(command)));
}

wire::Command ask_command(c10::DeviceIndex device, const wire::Command& command) {
  note_unfit("asks the worker");
  auto& queue = queue_for(c10::Device(c10::DeviceType::CUDA, device));
  Buffer report;
  Status status;
  {
    WaitScope wait;
    status = queue.ask_command(wire::encode(command), &report);
  }
  check(status);
  Result<wire::Command> answer = wire::decode_command(report);
  check(answer.status());
  return std::move(answer).value();
}

MemoryInfo memory_info(c10::DeviceIndex device) {
  const wire::Command answer = ask_command(resolve_device(device), {.kind = wire::CommandKind::kMemoryInfo});
  MemoryInfo info;
  if (answer.ints.size() >= 2) {
    info.free = static_cast<uint64_t>(answer.ints[0]);
    info.total = static_cast<uint64_t>(answer.ints[1]);
    const uint64_t allowed = memory_of(device_info(device));
    if (allowed < info.total) {  // the rest of the device is not this program's
      const auto used = static_cast<uint64_t>(memory_stats(resolve_device(device)).bytes[0].current);
      info.total = allowed;
      info.free = std::min(info.free, allowed > used ? allowed - used : 0);
    }
  }
  return info;
}

}  // namespace waldo::torch_frontend
