#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <cstring>
#include <numeric>
#include <optional>

#include "server/backends/torch/collective_recording.h"
#include "server/backends/torch/errors.h"
#include "server/backends/torch/reduce.h"
#include "wire/collectives.h"

// The operators of wire/collectives.h: each makes a job of its tensors' memory.

namespace waldo::torch_backend {
namespace {

using at::Tensor;
using server::Mesh;
using server::Milliseconds;
using wire::ReduceKind;
using Lane = Collectives::Lane;
using Tensors = std::vector<Tensor>;

TypedReduction reduction_of(const Recording& recording, const Tensor& tensor, double factor) {
  auto made = reduction_for(static_cast<ReduceKind>(recording.intent.op), tensor.scalar_type(),
                            static_cast<size_t>(tensor.numel()), factor, recording.group->size);
  if (!made.ok()) fail(made.status());
  return std::move(made).value();
}

void scale_before(const TypedReduction& typed, void* data) {
  if (typed.before != 1) typed.scale(data, typed.reduction.elements, typed.before);
}
void scale_after(const TypedReduction& typed, void* data) {
  if (typed.after != 1) typed.scale(data, typed.reduction.elements, typed.after);
}

Status allreduce_memory(Mesh& mesh, const TypedReduction& typed, void* data, Milliseconds timeout) {
  if (typed.reduction.elements == 0) return {};
  scale_before(typed, data);
  WALDO_TRY(mesh.allreduce(data, typed.reduction, timeout));
  scale_after(typed, data);
  return {};
}

void allreduce(const c10::List<Tensor>& given, int64_t group, int64_t op, double factor, int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kAllreduce);
  recording.reduces(op);
  const Tensors tensors = given.vec();
  std::vector<TypedReduction> typed;
  for (const Tensor& tensor : tensors) {
    recording.uses(tensor, true);
    add_shape(recording.intent, tensor);
    typed.push_back(reduction_of(recording, tensor, factor));
  }
  recording.record([tensors, typed, timeout = recording.timeout](Mesh& mesh) -> Status {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Memory memory(tensors[i]);
      WALDO_TRY(allreduce_memory(mesh, typed[i], memory.data(), timeout));
      memory.written();
    }
    return {};
  });
}

void broadcast(const c10::List<Tensor>& given, int64_t group, int64_t root, int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kBroadcast);
  recording.root_is(root);
  const bool is_root = root == recording.group->rank;
  const Tensors tensors = given.vec();
  for (const Tensor& tensor : tensors) {
    recording.uses(tensor, !is_root);
    add_shape(recording.intent, tensor);
  }
  recording.record([tensors, is_root, root, timeout = recording.timeout](Mesh& mesh) -> Status {
    for (const Tensor& tensor : tensors) {
      const Memory memory(tensor);
      if (memory.bytes() == 0) continue;
      WALDO_TRY(mesh.broadcast(memory.data(), memory.bytes(), static_cast<int>(root), timeout));
      if (!is_root) memory.written();
    }
    return {};
  });
}

void reduce(const c10::List<Tensor>& given, int64_t group, int64_t op, double factor, int64_t root,
            int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kReduce);
  recording.reduces(op);
  recording.root_is(root);
  const bool is_root = root == recording.group->rank;
  const Tensors tensors = given.vec();
  std::vector<TypedReduction> typed;
  for (const Tensor& tensor : tensors) {
    recording.uses(tensor, is_root);
    add_shape(recording.intent, tensor);
    typed.push_back(reduction_of(recording, tensor, factor));
  }
  recording.record([tensors, typed, is_root, root, timeout = recording.timeout](Mesh& mesh) -> Status {
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].numel() == 0) continue;
      const Memory memory(tensors[i]);
      std::vector<char> work(memory.bytes());  // partial sums pass through every rank; only the root keeps them
      std::memcpy(work.data(), memory.data(), work.size());
      scale_before(typed[i], work.data());
      WALDO_TRY(mesh.reduce(work.data(), typed[i].reduction, static_cast<int>(root), timeout));
      scale_after(typed[i], work.data());
      if (!is_root) continue;
      std::memcpy(memory.data(), work.data(), work.size());
      memory.written();
    }
    return {};
  });
}

// Lists that hold, for each of `count` tensors, either one tensor or one per rank.
bool per_rank(const Tensors& list, size_t count, size_t ranks, const char* what) {
  require(count > 0 && (list.size() == count || list.size() == count * ranks), what);
  return list.size() != count;
}

void allgather(const c10::List<Tensor>& given_outputs, const c10::List<Tensor>& given_inputs, int64_t group,
               int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kAllgather);
  const Tensors outputs = given_outputs.vec(), inputs = given_inputs.vec();
  const size_t ranks = recording.size(), me = static_cast<size_t>(recording.group->rank);
  const bool lists = per_rank(outputs, inputs.size(), ranks, "outputs and inputs differ in number");
  std::vector<std::vector<size_t>> bytes;  // per input and rank
  for (size_t i = 0; i < inputs.size(); ++i) {
    recording.uses(inputs[i], false);
    recording.intent.dtype = static_cast<uint32_t>(inputs[i].scalar_type());
    auto& of_rank = bytes.emplace_back();
    for (size_t rank = 0; rank < ranks; ++rank) {
      of_rank.push_back(lists ? outputs[i * ranks + rank].nbytes() : inputs[i].nbytes());
      recording.intent.elements += of_rank.back() / inputs[i].element_size();
      recording.intent.shapes = recording.intent.shapes * 0x9E3779B97F4A7C15ull + of_rank.back();
    }
    require(of_rank[me] == inputs[i].nbytes(), "an input and its place in the output differ in size");
    require(lists || outputs[i].nbytes() == inputs[i].nbytes() * ranks, "the output does not hold all inputs");
  }
  for (const Tensor& output : outputs) recording.uses(output, true);
  recording.record([=, timeout = recording.timeout](Mesh& mesh) -> Status {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Memory in(inputs[i]);
      const size_t total = std::accumulate(bytes[i].begin(), bytes[i].end(), size_t{0});
      if (total == 0) continue;
      if (!lists) {
        const Memory out(outputs[i]);
        WALDO_TRY(mesh.allgather(in.data(), out.data(), bytes[i], timeout));
        out.written();
        continue;
      }
      std::vector<char> all(total);
      WALDO_TRY(mesh.allgather(in.data(), all.data(), bytes[i], timeout));
      size_t at = 0;
      for (size_t rank = 0; rank < ranks; at += bytes[i][rank++]) {
        if (bytes[i][rank] == 0) continue;
        const Memory out(outputs[i * ranks + rank]);
        std::memcpy(out.data(), all.data() + at, bytes[i][rank]);
        out.written();
      }
    }
    return {};
  });
}

// Reduced whole, of which each rank keeps its part: Gloo has nothing better for any number of ranks and any sizes.
void reduce_scatter(const c10::List<Tensor>& given_outputs, const c10::List<Tensor>& given_inputs, int64_t group,
                    int64_t op, double factor, int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kReduceScatter);
  recording.reduces(op);
  const Tensors outputs = given_outputs.vec(), inputs = given_inputs.vec();
  const size_t ranks = recording.size(), me = static_cast<size_t>(recording.group->rank);
  const bool lists = per_rank(inputs, outputs.size(), ranks, "outputs and inputs differ in number");
  std::vector<TypedReduction> typed;
  for (size_t i = 0; i < outputs.size(); ++i) {
    recording.uses(outputs[i], true);
    const Tensor& mine = lists ? inputs[i * ranks + me] : inputs[i];
    require(mine.scalar_type() == outputs[i].scalar_type(), "input and output differ in dtype");
    require(mine.nbytes() == outputs[i].nbytes() * (lists ? 1 : ranks), "the output does not fit the input");
    size_t elements = 0;
    for (size_t part = 0; part < (lists ? ranks : 1); ++part) {
      const Tensor& input = inputs[i * (lists ? ranks : 1) + part];
      recording.uses(input, false);
      elements += static_cast<size_t>(input.numel());
      if (lists) recording.intent.shapes = recording.intent.shapes * 0x9E3779B97F4A7C15ull + input.nbytes();
    }
    if (!lists) {
      for (size_t rank = 0; rank < ranks; ++rank)
        recording.intent.shapes = recording.intent.shapes * 0x9E3779B97F4A7C15ull + outputs[i].nbytes();
    }
    recording.intent.dtype = static_cast<uint32_t>(mine.scalar_type());
    recording.intent.elements += elements;
    auto made = reduction_for(static_cast<ReduceKind>(op), mine.scalar_type(), elements, factor, recording.group->size);
    if (!made.ok()) fail(made.status());
    typed.push_back(*made);
  }
  recording.record([=, timeout = recording.timeout](Mesh& mesh) -> Status {
    for (size_t i = 0; i < outputs.size(); ++i) {
      std::vector<char> all;
      size_t begin = 0;
      for (size_t part = 0; part < (lists ? ranks : 1); ++part) {
        const Memory input(inputs[i * (lists ? ranks : 1) + part]);
        if (lists && part == me) begin = all.size();
        all.insert(all.end(), static_cast<char*>(input.data()), static_cast<char*>(input.data()) + input.bytes());
      }
      const Memory out(outputs[i]);
      if (!lists) begin = out.bytes() * me;
      WALDO_TRY(allreduce_memory(mesh, typed[i], all.data(), timeout));
      if (out.bytes() == 0) continue;
      std::memcpy(out.data(), all.data() + begin, out.bytes());
      out.written();
    }
    return {};
  });
}

void gather(const c10::List<Tensor>& given_outputs, const Tensor& input, int64_t group, int64_t root,
            int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kGather);
  recording.root_is(root);
  const Tensors outputs = given_outputs.vec();
  const bool is_root = root == recording.group->rank;
  require(outputs.size() == (is_root ? recording.size() : 0), "gather: not one output for each rank");
  recording.uses(input, false);
  add_shape(recording.intent, input);
  for (const Tensor& output : outputs) {
    recording.uses(output, true);
    require(output.nbytes() == input.nbytes(), "gather: an output of another size");
  }
  recording.record([outputs, input, root, timeout = recording.timeout](Mesh& mesh) -> Status {
    const Memory in(input);
    if (in.bytes() == 0) return {};
    std::vector<char> all(in.bytes() * outputs.size());
    WALDO_TRY(mesh.gather(in.data(), in.bytes(), all.data(), static_cast<int>(root), timeout));
    for (size_t rank = 0; rank < outputs.size(); ++rank) {
      const Memory out(outputs[rank]);
      std::memcpy(out.data(), all.data() + rank * in.bytes(), in.bytes());
      out.written();
    }
    return {};
  });
}

void scatter(const Tensor& output, const c10::List<Tensor>& given_inputs, int64_t group, int64_t root,
             int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kScatter);
  recording.root_is(root);
  const Tensors inputs = given_inputs.vec();
  require(inputs.size() == (root == recording.group->rank ? recording.size() : 0),
          "scatter: not one input for each rank");
  recording.uses(output, true);
  add_shape(recording.intent, output);
  for (const Tensor& input : inputs) {
    recording.uses(input, false);
    require(input.nbytes() == output.nbytes(), "scatter: an input of another size");
  }
  recording.record([inputs, output, root, timeout = recording.timeout](Mesh& mesh) -> Status {
    const Memory out(output);
    if (out.bytes() == 0) return {};
    std::vector<Memory> kept;
    std::vector<const void*> parts;
    for (const Tensor& input : inputs) parts.push_back(kept.emplace_back(input).data());
    WALDO_TRY(mesh.scatter(parts, out.data(), out.bytes(), static_cast<int>(root), timeout));
    out.written();
    return {};
  });
}

// One tensor with the ranks' parts behind each other, or one tensor per rank.
struct Parts {
  Parts(const Tensors& of, at::IntArrayRef splits, size_t ranks) : tensors(of) {
    require(!of.empty() && (of.size() == 1 || of.size() == ranks), "alltoall: not one tensor, nor one for each rank");
    if (of.size() == ranks && splits.empty()) {
      for (const Tensor& tensor : of) bytes.push_back(static_cast<int64_t>(tensor.nbytes()));
      return;
    }
    const Tensor& whole = of[0];
    require(of.size() == 1 && (splits.empty() || splits.size() == ranks), "alltoall: splits do not fit the tensors");
    const auto total = static_cast<int64_t>(whole.nbytes());
    if (splits.empty()) {
      require(total % static_cast<int64_t>(ranks) == 0, "alltoall: the ranks' parts differ");
      bytes.assign(ranks, total / static_cast<int64_t>(ranks));
      return;
    }
    const int64_t rows = whole.dim() == 0 ? 1 : whole.size(0);
    const int64_t row = rows == 0 ? 0 : total / rows;
    int64_t sum = 0;
    for (const int64_t split : splits) {
      require(split >= 0 && split <= rows, "alltoall: a split out of range");
      sum += split;
      bytes.push_back(split * row);
    }
    require(sum == rows, "alltoall: splits do not sum up to the tensor");
  }
  size_t total() const { return static_cast<size_t>(std::accumulate(bytes.begin(), bytes.end(), int64_t{0})); }

  Tensors tensors;
  std::vector<int64_t> bytes;  // per rank
};

void alltoall(const c10::List<Tensor>& outputs, const c10::List<Tensor>& inputs, at::IntArrayRef output_splits,
              at::IntArrayRef input_splits, int64_t group, int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kAlltoall);
  const Parts to(outputs.vec(), output_splits, recording.size()), from(inputs.vec(), input_splits, recording.size());
  for (const Tensor& tensor : to.tensors) recording.uses(tensor, true);
  for (const Tensor& tensor : from.tensors) recording.uses(tensor, false);
  recording.intent.dtype = static_cast<uint32_t>(to.tensors[0].scalar_type());
  recording.record([to, from, timeout = recording.timeout](Mesh& mesh) -> Status {
    const std::vector<int64_t> each(to.bytes.size(), sizeof(int64_t));
    std::vector<int64_t> announced(to.bytes.size());
    WALDO_TRY(mesh.alltoall(from.bytes.data(), each, announced.data(), each, timeout));
    // One word from each: all is well there. So that every rank raises when one would have to.
    int64_t well = announced == to.bytes ? 1 : 0;
    std::vector<int64_t> all_well(each.size());
    WALDO_TRY(mesh.allgather(&well, all_well.data(), std::vector<size_t>(each.size(), sizeof(int64_t)), timeout));
    for (size_t rank = 0; rank < all_well.size(); ++rank) {
      if (all_well[rank] == 1) continue;
      return device_error(wire::ErrorClass::kRuntime,
                          fmt::format("alltoall: what rank {} expects of the others differs in size from what they "
                                      "send",
                                      rank));
    }
    std::vector<char> in(from.total()), out(to.total());
    size_t at = 0;
    for (const Tensor& tensor : from.tensors) {
      const Memory memory(tensor);
      if (memory.bytes() > 0) std::memcpy(in.data() + at, memory.data(), memory.bytes());
      at += memory.bytes();
    }
    WALDO_TRY(mesh.alltoall(in.data(), from.bytes, out.data(), to.bytes, timeout));
    at = 0;
    for (const Tensor& tensor : to.tensors) {
      const Memory memory(tensor);
      if (memory.bytes() > 0) std::memcpy(memory.data(), out.data() + at, memory.bytes());
      at += memory.bytes();
      memory.written();
    }
    return {};
  });
}

void barrier(const Tensor& token, int64_t group, int64_t timeout_ms) {
  Recording recording(group, timeout_ms, What::kBarrier);
  recording.uses(token, true);
  // That all have recorded it is known by then; what they recorded before shall have ended too.
  recording.record([token, timeout = recording.timeout](Mesh& mesh) -> Status { return mesh.barrier(timeout); });
}

// Posted at once, so that two ranks that send to each other first both come to receive. Sends and receives are waited
// for in order, apart from each other.
void exchange(bool sends, const Tensor& tensor, int64_t number, int64_t peer, int64_t tag, int64_t timeout_ms) {
  auto found = current_collectives().find(number);
  if (!found.ok()) fail(found.status());
  const Group& group = **found;
  require(peer >= 0 && peer < group.size && peer != group.rank, "a message to no other rank of the group");
  require(tag >= 0 && tag <= INT32_MAX, "a tag out of range");
  require(tensor.is_non_overlapping_and_dense(), "a message of a tensor that is not dense");
  struct Message {
    std::optional<Memory> memory;
    std::unique_ptr<server::Transfer> transfer;
  };
  auto message = std::make_shared<Message>();
  Collectives::Job job;
  job.name = sends ? "send" : "recv";
  job.uses.push_back({tensor.storage().unsafeGetStorageImpl(), !sends});
  job.begin = [=](Mesh& mesh) {
    message->memory.emplace(tensor);
    const Memory& memory = *message->memory;
    message->transfer =
        sends ? mesh.post_send(memory.data(), memory.bytes(), static_cast<int>(peer), static_cast<uint32_t>(tag))
              : mesh.post_receive(memory.data(), memory.bytes(), static_cast<int>(peer), static_cast<uint32_t>(tag));
  };
  const Milliseconds timeout = timeout_ms > 0 ? Milliseconds(timeout_ms) : group.timeout;
  job.run = [message, sends, timeout](Mesh&) -> Status {
    const at::AutoDispatchBelowADInplaceOrView below;
    WALDO_TRY(message->transfer->wait(timeout));
    if (!sends) message->memory->written();
    return {};
  };
  if (Status status = current_collectives().record(group, sends ? Lane::kSend : Lane::kReceive, std::move(job));
      !status.ok())
    fail(std::move(status));
}

void send(const Tensor& tensor, int64_t group, int64_t peer, int64_t tag, int64_t timeout_ms) {
  exchange(true, tensor, group, peer, tag, timeout_ms);
}
void receive(const Tensor& tensor, int64_t group, int64_t peer, int64_t tag, int64_t timeout_ms) {
  exchange(false, tensor, group, peer, tag, timeout_ms);
}

}  // namespace

void register_collectives() {
  static const auto* const library = [] {
    auto* own = new torch::Library(torch::Library::FRAGMENT, "waldo", std::nullopt, __FILE__, __LINE__);
    for (const char* schema : wire::kCollectiveOperators) own->def(schema);
    own->impl("c10d_allreduce_", allreduce);
    own->impl("c10d_broadcast_", broadcast);
    own->impl("c10d_reduce_", reduce);
    own->impl("c10d_allgather_", allgather);
    own->impl("c10d_reduce_scatter_", reduce_scatter);
    own->impl("c10d_gather_", gather);
    own->impl("c10d_scatter_", scatter);
    own->impl("c10d_alltoall_", alltoall);
    own->impl("c10d_send_", send);
    own->impl("c10d_recv_", receive);
    own->impl("c10d_barrier_", barrier);
    return own;  // never freed: our libraries are never unloaded
  }();
  static_cast<void>(library);
}

}  // namespace waldo::torch_backend
