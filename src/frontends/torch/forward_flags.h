// The flags of at::globalContext() that decide how operators compute (deterministic algorithms, TF32, cuDNN …): the
// worker gets the same before the first call that they concern.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "client/session.h"

namespace waldo::torch_frontend {

enum class FlagCheck : uint8_t {
  kNone,   // pointwise: nothing there changes what it computes
  kCheap,  // all but the float32 precisions, which PyTorch keeps in a hash map
  kAll,    // matrix products, convolutions, cuDNN's cells
};

// Hot: for every operator that is not pointwise. A few loads, and a command only when something changed.
void send_flags_if_changed(FlagCheck check, client::Queue& queue, c10::DeviceIndex device);

}  // namespace waldo::torch_frontend
