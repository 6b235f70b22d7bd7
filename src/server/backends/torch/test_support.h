// Plans by hand, and a queue to run them on.
#pragma once

#include <ATen/core/TensorBody.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/backend.h"
#include "server/backends/torch/backend.h"
#include "server/backends/torch/geometry.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend::test {

inline wire::TensorMeta meta_of(const at::Tensor& tensor) { return describe(tensor); }

inline wire::TensorMeta meta(std::vector<int64_t> sizes, wire::DType dtype = wire::DType::kFloat32) {
  wire::TensorMeta meta;
  meta.dtype = dtype;
  meta.strides.resize(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    meta.strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  meta.sizes = std::move(sizes);
  return meta;
}

inline uint64_t storage_bytes(const wire::TensorMeta& meta) {
  uint64_t last = static_cast<uint64_t>(meta.offset) + 1;
  for (size_t i = 0; i < meta.sizes.size(); ++i) {
    if (meta.sizes[i] == 0) return 0;
    last += static_cast<uint64_t>((meta.sizes[i] - 1) * meta.strides[i]);
  }
  return last * wire::element_bytes(meta.dtype);
}

// Arguments.
inline wire::Argument none() { return {}; }
inline wire::Argument tensor(uint16_t slot, wire::TensorMeta meta) {
  return {.kind = wire::ArgumentKind::kTensor, .slots = {slot}, .tensors = {std::move(meta)}};
}
inline wire::Argument tensors(std::vector<uint16_t> slots, std::vector<wire::TensorMeta> metas) {
  return {.kind = wire::ArgumentKind::kTensorList, .slots = std::move(slots), .tensors = std::move(metas)};
}
inline wire::Argument scalar(int64_t value) {
  return {.kind = wire::ArgumentKind::kScalar, .scalar_tags = {wire::ScalarTag::kInt}, .ints = {value}};
}
inline wire::Argument scalar_later(wire::ScalarTag tag) {
  return {.kind = wire::ArgumentKind::kScalar, .dynamic = true, .scalar_tags = {tag}};
}
inline wire::Argument integer(int64_t value) { return {.kind = wire::ArgumentKind::kInt, .ints = {value}}; }
inline wire::Argument integers(std::vector<int64_t> values) {
  return {.kind = wire::ArgumentKind::kIntList, .ints = std::move(values)};
}
inline wire::Argument number(double value) { return {.kind = wire::ArgumentKind::kFloat, .floats = {value}}; }
inline wire::Argument truth(bool value) { return {.kind = wire::ArgumentKind::kBool, .ints = {value ? 1 : 0}}; }
inline wire::Argument truths(std::vector<int64_t> values) {
  return {.kind = wire::ArgumentKind::kBoolList, .ints = std::move(values)};
}
inline wire::Argument dtype(wire::DType value) {
  return {.kind = wire::ArgumentKind::kDType, .ints = {static_cast<int64_t>(value)}};
}
inline wire::Argument device(int64_t value) { return {.kind = wire::ArgumentKind::kDevice, .ints = {value}}; }
inline wire::Argument generator(int64_t value) { return {.kind = wire::ArgumentKind::kGenerator, .ints = {value}}; }
inline wire::Argument cpu_scalar(wire::DType dtype, bool wrapped) {
  wire::TensorMeta meta;
  meta.dtype = dtype;
  meta.wrapped_number = wrapped;
  return {.kind = wire::ArgumentKind::kCpuScalar, .dynamic = true, .tensors = {meta}};
}

// Outputs.
inline wire::Output fresh(uint16_t slot, wire::TensorMeta meta) {
  wire::Output output{.kind = wire::OutputKind::kNew, .slot = slot};
  output.storage_bytes = storage_bytes(meta);
  output.tensor = std::move(meta);
  return output;
}
inline wire::Output argument(uint16_t index) {
  wire::Output output{.kind = wire::OutputKind::kArgument};
  output.tensor_index = index;
  return output;
}

inline wire::PlanBody body(std::string op, std::string overload, std::vector<wire::Argument> arguments,
                           std::vector<wire::Output> outputs = {}) {
  return {std::move(op), std::move(overload), 0, std::move(arguments), std::move(outputs)};
}

template <typename... T>
Buffer scalars(T... values) {
  Buffer bytes;
  Writer writer(bytes);
  (writer.put(values), ...);
  return bytes;
}

inline server::UploadedBytes upload_of(const void* data, size_t size, size_t alignment = 64) {
  auto* bytes = new (std::align_val_t(alignment)) std::byte[size + 1];
  if (size > 0) std::memcpy(bytes, data, size);
  server::UploadedBytes upload;
  upload.data = {bytes, [](std::byte* p) { operator delete[](p, std::align_val_t(64)); }};
  upload.size = size;
  return upload;
}

// A backend on the CPU with a queue per device. Slots are named by index, of queue 0 unless told.
class Worker {
 public:
  explicit Worker(const std::string& options = R"({"device": "cpu"})", uint16_t queues = 1) {
    auto made = make_backend(options);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    backend_ = std::move(made).value();
    for (uint16_t q = 0; q < queues; ++q) queues_.push_back(backend_->open_queue(QueueId{q}).value());
  }

  server::Backend& backend() { return *backend_; }
  server::QueueBackend& queue(uint16_t q = 0) { return *queues_[q]; }
  static Slot slot(uint32_t index, uint16_t q = 0) { return Slot::make(QueueId{q}, index); }

  // The tensor's bytes become the slot's storage.
  void put(uint32_t index, const at::Tensor& tensor, uint16_t q = 0) {
    const at::Tensor flat = tensor.contiguous();
    const Status status = queue(q).write(slot(index, q), 0, upload_of(flat.const_data_ptr(), flat.nbytes()));
    EXPECT_TRUE(status.ok()) << status.to_string();
  }

  // Defines the body under a new number and calls it once.
  Status call(const wire::PlanBody& body, std::vector<uint32_t> reads, std::vector<uint32_t> creates = {},
              const Buffer& values = {}, uint16_t q = 0) {
    const Result<PlanId> plan = define(body, reads.size(), creates.size(), q);
    if (!plan.ok()) return plan.status();
    return again(plan.value(), std::move(reads), std::move(creates), values, q);
  }
  Result<PlanId> define(const wire::PlanBody& body, size_t reads, size_t creates, uint16_t q = 0) {
    const PlanId plan{next_plan_++};
    const Buffer bytes = wire::encode(body);
    WALDO_TRY(queue(q).define(plan, static_cast<uint16_t>(reads), static_cast<uint16_t>(creates), bytes));
    return plan;
  }
  Status again(PlanId plan, std::vector<uint32_t> reads, std::vector<uint32_t> creates = {}, const Buffer& values = {},
               uint16_t q = 0) {
    std::vector<Slot> slots;
    for (const uint32_t index : reads) slots.push_back(slot(index, q));
    for (const uint32_t index : creates) slots.push_back(slot(index, q));
    conformed = false;
    return queue(q).call(plan, slots, values, &conformed, nullptr);
  }
  Result<wire::Report> ask(const wire::PlanBody& body, std::vector<uint32_t> reads, std::vector<uint32_t> creates = {},
                           const Buffer& values = {}) {
    const Result<PlanId> plan = define(body, reads.size(), creates.size());
    if (!plan.ok()) return plan.status();
    std::vector<Slot> slots;
    for (const uint32_t index : reads) slots.push_back(slot(index));
    for (const uint32_t index : creates) slots.push_back(slot(index));
    Buffer report;
    WALDO_TRY(queue().call(plan.value(), slots, values, &conformed, &report));
    return wire::decode_report(report);
  }
  Result<wire::Command> command(const wire::Command& command, uint16_t q = 0) {
    Buffer report;
    const Buffer bytes = wire::encode(command);
    WALDO_TRY(queue(q).command(bytes, &report));
    return wire::decode_command(report);
  }

  // What a slot's storage holds, seen as `meta`.
  at::Tensor get(uint32_t index, const wire::TensorMeta& meta, uint16_t q = 0);
  Status status_of_read(uint32_t index, uint64_t offset, uint64_t bytes, uint16_t q = 0) {
    return queue(q).read(slot(index, q), offset, bytes, [](std::span<const std::byte>) { return Status(); });
  }

  bool conformed = false;

 private:
  std::unique_ptr<server::Backend> backend_;
  std::vector<std::unique_ptr<server::QueueBackend>> queues_;
  uint32_t next_plan_ = 0;
};

#define EXPECT_OK(expression)                         \
  do {                                                \
    const ::waldo::Status status_ = (expression);     \
    EXPECT_TRUE(status_.ok()) << status_.to_string(); \
  } while (false)

// Equal in every bit (NaN too), and of the same sizes.
bool same_bits(const at::Tensor& a, const at::Tensor& b);

}  // namespace waldo::torch_backend::test
