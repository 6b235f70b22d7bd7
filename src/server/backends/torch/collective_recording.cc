#include "server/backends/torch/collective_recording.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/reduce.h"
#include "wire/collectives.h"

namespace waldo::torch_backend {
namespace {

using server::Mesh;
using wire::ReduceKind;

constexpr const char* kNames[] = {"allreduce", "broadcast", "reduce",   "allgather", "reduce_scatter",
                                  "gather",    "scatter",   "alltoall", "barrier"};

std::string text_of(const Intent& intent) {
  std::string text = kNames[std::min<size_t>(static_cast<size_t>(intent.what), std::size(kNames) - 1)];
  if (intent.what == What::kBarrier) return text;
  const bool reduces =
      intent.what == What::kAllreduce || intent.what == What::kReduce || intent.what == What::kReduceScatter;
  text += fmt::format("(TensorShape=[{}], TensorDtypes={}", intent.elements,
                      c10::toString(static_cast<c10::ScalarType>(intent.dtype)));
  if (reduces) text += ", op=" + name_of(static_cast<ReduceKind>(std::min<int64_t>(intent.op, wire::reduce_kind_max)));
  if (intent.root >= 0) text += fmt::format(", root={}", intent.root);
  return text + ")";
}

// What every rank said, by rank.
struct Intents {
  Status arrive(server::Milliseconds timeout) const { return transfer->wait(timeout); }
  Status agree() const {
    const auto of = [&](size_t rank) {
      Intent intent;
      std::memcpy(&intent, said[rank].data(), sizeof(intent));
      return intent;
    };
    for (size_t rank = 0; rank < said.size(); ++rank) {
      if (said[rank] == said[0]) continue;
      return device_error(wire::ErrorClass::kRuntime,
                          fmt::format("Detected mismatch between collectives on ranks. Rank 0 is running collective: "
                                      "{}, but Rank {} is running collective: {}.",
                                      text_of(of(0)), rank, text_of(of(rank))));
    }
    return {};
  }

  std::vector<server::Note> said;
  std::unique_ptr<server::Transfer> transfer;
};

}  // namespace

void fail(Status why) { throw CollectiveFailure(std::move(why)); }
void require(bool holds, const char* what) {
  if (!holds) fail(Status(StatusKind::kInvalid, what));
}

void add_shape(Intent& intent, const at::Tensor& tensor) {
  intent.dtype = static_cast<uint32_t>(tensor.scalar_type());
  intent.elements += static_cast<uint64_t>(tensor.numel());
  intent.shapes = intent.shapes * 0x9E3779B97F4A7C15ull + (static_cast<uint64_t>(tensor.numel()) << 8) + intent.dtype;
}

Memory::Memory(at::Tensor tensor) : tensor_(std::move(tensor)) {
  host_ = tensor_.device().is_cpu() ? tensor_ : tensor_.cpu();
}

void Memory::written() const {
  if (!host_.is_same(tensor_)) tensor_.copy_(host_);
}

Recording::Recording(int64_t number, int64_t timeout_ms, What what) {
  intent.what = what;
  job.name = kNames[static_cast<size_t>(what)];
  auto found = current_collectives().find(number);
  if (!found.ok()) fail(found.status());
  group = *found;
  timeout = timeout_ms > 0 ? server::Milliseconds(timeout_ms) : group->timeout;
}

void Recording::uses(const at::Tensor& tensor, bool writes) {
  require(tensor.is_non_overlapping_and_dense(), "a collective of a tensor that is not dense");
  job.uses.push_back({tensor.storage().unsafeGetStorageImpl(), writes});
}

void Recording::root_is(int64_t root) {
  require(root >= 0 && root < group->size, "a root that is no rank");
  intent.root = static_cast<int32_t>(root);
}

void Recording::reduces(int64_t op) {
  require(op >= 0 && op <= wire::reduce_kind_max, "an unknown reduction");
  intent.op = static_cast<uint32_t>(op);
}

void Recording::record(std::function<Status(Mesh&)> body) {
  auto intents = std::make_shared<Intents>();
  job.announce = [intents, mine = intent](Mesh& mesh) {
    server::Note note;
    std::memcpy(note.data(), &mine, sizeof(mine));
    intents->transfer = mesh.post_notes(note, intents->said);
  };
  job.run = [intents, timeout = timeout, body = std::move(body)](Mesh& mesh) -> Status {
    const at::AutoDispatchBelowADInplaceOrView below;
    const c10::NoGradGuard no_grad;
    WALDO_TRY(intents->arrive(timeout));
    WALDO_TRY(intents->agree());
    return body(mesh);
  };
  if (Status status = current_collectives().record(*group, Collectives::Lane::kCollective, std::move(job));
      !status.ok())
    fail(std::move(status));
}

}  // namespace waldo::torch_backend
