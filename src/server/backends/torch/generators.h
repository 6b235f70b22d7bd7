// The random generators of one queue, by the numbers the client gave them; 0 is the device's default one.
//
// On CPUs that pose as several devices, libtorch has one default generator for all of them. Queue 0 owns it. For the
// others an operator that takes a generator is handed theirs, and one that does not runs inside a DefaultSwap.
#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/status.h"
#include "server/backends/torch/device.h"

namespace waldo::torch_backend {

// Thread: the queue's executor thread. Throws what libtorch throws.
class Generators {
 public:
  Generators(const Device& device, QueueId queue, bool shares_default);

  // Null when there is none of that number.
  const at::Generator* find(uint32_t number) const;
  const at::Generator& standard() const { return generators_.at(0); }
  // The default one must be handed to operators that leave it out.
  bool must_hand_over() const { return queue_.raw != 0 && device_.is_cpu(); }

  Status create(uint32_t number, uint64_t seed);
  Status free(uint32_t number);
  Status seed(uint32_t number, uint64_t seed);
  Status copy(uint32_t to, uint32_t from);
  Result<std::vector<std::byte>> state(uint32_t number) const;
  Status set_state(uint32_t number, std::span<const std::byte> state);

  // While it lives, libtorch's default CPU generator is this queue's, and no other queue uses it.
  class DefaultSwap {
   public:
    explicit DefaultSwap(const Generators& generators);
    ~DefaultSwap();
    DefaultSwap(const DefaultSwap&) = delete;
    DefaultSwap& operator=(const DefaultSwap&) = delete;

   private:
    const Generators& generators_;
    std::unique_lock<std::mutex> lock_;
  };
  bool needs_swap() const { return shares_default_ && device_.is_cpu(); }

 private:
  friend class DefaultSwap;

  const Device& device_;
  const QueueId queue_;
  const bool shares_default_;  // there is more than one queue
  std::map<uint32_t, at::Generator> generators_;
};

}  // namespace waldo::torch_backend
