// Collectives as front end and torch backend agree on them: operators of our own (like own_operators.h), which are
// recorded like each other call, and the lists that travel when a group is made (plan_body.h, kOpenGroup). To wire,
// client and server both are opaque.
//
// `group` is the client's number for a group of ranks; `op` a ReduceKind; `factor` what each rank's values are
// multiplied with first (kPremulSum); `timeout_ms` 0: the group's own. Tensors are dense; what counts is their memory.
// A list of inputs and one of outputs: either one tensor for all ranks each, or one tensor per rank, rank by rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace waldo::wire {

enum class ReduceKind : int64_t {
  kSum = 0,
  kAvg = 1,
  kProduct = 2,
  kMin = 3,
  kMax = 4,
  kBand = 5,
  kBor = 6,
  kBxor = 7,
  kPremulSum = 8,
};
inline constexpr int64_t reduce_kind_max = 8;

inline constexpr uint32_t group_size_max = 1024;
inline constexpr uint32_t group_address_bytes_max = 512;

inline constexpr const char* kCollectiveOperators[] = {
    "c10d_allreduce_(Tensor(a!)[] tensors, int group, int op, float factor, int timeout_ms) -> ()",
    "c10d_broadcast_(Tensor(a!)[] tensors, int group, int root, int timeout_ms) -> ()",
    "c10d_reduce_(Tensor(a!)[] tensors, int group, int op, float factor, int root, int timeout_ms) -> ()",
    "c10d_allgather_(Tensor(a!)[] outputs, Tensor[] inputs, int group, int timeout_ms) -> ()",
    "c10d_reduce_scatter_(Tensor(a!)[] outputs, Tensor[] inputs, int group, int op, float factor, int timeout_ms) -> "
    "()",
    "c10d_gather_(Tensor(a!)[] outputs, Tensor(b!) input, int group, int root, int timeout_ms) -> ()",
    "c10d_scatter_(Tensor(a!) output, Tensor[] inputs, int group, int root, int timeout_ms) -> ()",
    "c10d_alltoall_(Tensor(a!)[] outputs, Tensor[] inputs, int[] output_splits, int[] input_splits, int group, int "
    "timeout_ms) -> ()",
    "c10d_send_(Tensor(a!) tensor, int group, int peer, int tag, int timeout_ms) -> ()",
    "c10d_recv_(Tensor(a!) tensor, int group, int peer, int tag, int timeout_ms) -> ()",
    "c10d_barrier_(Tensor(a!) token, int group, int timeout_ms) -> ()",
};

// What one rank says to each other one, by rank: where to find its worker. Opaque to all but the workers.
using RankAddresses = std::vector<std::string>;

inline std::vector<std::byte> encode_addresses(const RankAddresses& addresses) {
  Buffer out;
  Writer writer(out);
  writer.put(static_cast<uint32_t>(addresses.size()));
  for (const std::string& address : addresses) writer.put_sized(address);
  return {out.begin(), out.end()};
}

inline Result<RankAddresses> decode_addresses(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  RankAddresses addresses;
  const auto count = reader.get<uint32_t>("count");
  if (count > group_size_max) reader.fail("count");
  for (uint32_t i = 0; reader.ok() && i < count; ++i)
    addresses.push_back(reader.get_text(group_address_bytes_max, "address"));
  if (!reader.ok() || !reader.at_end()) {
    return Status(StatusKind::kInvalid, std::string("malformed addresses of ranks: ") + reader.why());
  }
  return addresses;
}

}  // namespace waldo::wire
