// The flags of at::globalContext() that decide how operators compute (deterministic algorithms, TF32, cuDNN …): the
// worker gets the same before the first call that they concern.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "client/session.h"
#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

enum class FlagCheck : uint8_t {
  kNone,   // pointwise: nothing there changes what it computes
  kCheap,  // all but the float32 precisions, which PyTorch keeps in a hash map
  kAll,    // matrix products, convolutions, cuDNN's cells
};

// torch.set_num_threads() of this program, for a worker on the same machine. It travels with the flags.
WALDO_TORCH_API void set_worker_threads(int threads) noexcept;

// All of them now, as they travel.
uint64_t context_flags();

// After a failure: a queue that stops drops what was recorded behind it, so nobody knows which flags arrived.
void forget_sent_flags() noexcept;

// Hot: for every operator that is not pointwise. A few loads, and a command only when something changed.
void send_flags_if_changed(FlagCheck check, client::Queue& queue, c10::DeviceIndex device);

}  // namespace waldo::torch_frontend
