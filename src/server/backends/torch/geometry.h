// What a tensor is apart from its storage: dtype, sizes, strides, and flags. Geometries are checked once, when a plan
// is defined, and interned, so that "the same tensor as last time" is a pointer comparison.
#pragma once

#include <ATen/core/TensorBody.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/ScalarType.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "wire/plan_body.h"

namespace waldo::torch_backend {

c10::ScalarType scalar_type_of(wire::DType dtype);                 // `dtype` < kCount
std::optional<wire::DType> dtype_of(c10::ScalarType scalar_type);  // none: quantized and other kinds that do not travel

// Immutable; lives as long as its GeometryTable.
struct Geometry {
  c10::ScalarType dtype = c10::ScalarType::Float;
  caffe2::TypeMeta type;
  uint64_t item_bytes = 4;
  bool conj = false, neg = false, wrapped_number = false;
  std::vector<int64_t> sizes, strides;
  uint64_t numel = 0;
  uint64_t extent = 0;  // elements from the first to the last, both included; 0 when there is none

  // Bytes of storage this needs at `offset` elements; nothing on overflow or when `offset` is negative.
  std::optional<uint64_t> bytes_at(int64_t offset) const {
    if (offset < 0) return std::nullopt;
    if (extent == 0) return 0;
    uint64_t last = 0, bytes = 0;
    if (__builtin_add_overflow(static_cast<uint64_t>(offset), extent, &last) ||
        __builtin_mul_overflow(last, item_bytes, &bytes)) {
      return std::nullopt;
    }
    return bytes;
  }
  bool same_sizes(const at::Tensor& tensor) const { return tensor.sizes() == at::IntArrayRef(sizes); }
  // Whether the elements lie where this says; strides of dimensions that are never stepped do not count.
  bool same_layout(const at::Tensor& tensor) const;
};

// Thread: one queue's.
class GeometryTable {
 public:
  // kInvalid when no tensor can look like that (negative or overflowing sizes, too many dimensions, …).
  Result<const Geometry*> intern(const wire::TensorMeta& meta);
  size_t size() const { return count_; }

 private:
  std::unordered_multimap<uint64_t, std::unique_ptr<const Geometry>> by_hash_;
  size_t count_ = 0;
};

// The tensor of `geometry` over `storage`, which the caller has checked to be large enough.
at::Tensor make_tensor(const c10::Storage& storage, const Geometry& geometry, int64_t offset, c10::DispatchKeySet keys);

// How a real tensor is told to the client. `tensor` must be strided and of a dtype that travels.
wire::TensorMeta describe(const at::Tensor& tensor);

}  // namespace waldo::torch_backend
