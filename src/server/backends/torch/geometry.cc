#include "server/backends/torch/geometry.h"

#include <c10/core/TensorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace waldo::torch_backend {
namespace {

using c10::ScalarType;

constexpr std::array<ScalarType, static_cast<size_t>(wire::DType::kCount)> kScalarTypes = {
    ScalarType::Byte,           ScalarType::Char,         ScalarType::Short,           ScalarType::Int,
    ScalarType::Long,           ScalarType::Half,         ScalarType::Float,           ScalarType::Double,
    ScalarType::ComplexHalf,    ScalarType::ComplexFloat, ScalarType::ComplexDouble,   ScalarType::Bool,
    ScalarType::BFloat16,       ScalarType::UInt16,       ScalarType::UInt32,          ScalarType::UInt64,
    ScalarType::Float8_e4m3fn,  ScalarType::Float8_e5m2,  ScalarType::Float8_e4m3fnuz, ScalarType::Float8_e5m2fnuz,
    ScalarType::Float8_e8m0fnu,
};

uint64_t hash_of(const wire::TensorMeta& meta) {
  const std::array<uint8_t, 4> flags = {static_cast<uint8_t>(meta.dtype), meta.conj, meta.neg, meta.wrapped_number};
  uint64_t hash = XXH3_64bits(flags.data(), flags.size());
  hash = XXH3_64bits_withSeed(meta.sizes.data(), meta.sizes.size() * sizeof(int64_t), hash);
  return XXH3_64bits_withSeed(meta.strides.data(), meta.strides.size() * sizeof(int64_t), hash);
}

bool equal(const Geometry& geometry, const wire::TensorMeta& meta) {
  return geometry.dtype == scalar_type_of(meta.dtype) && geometry.conj == meta.conj && geometry.neg == meta.neg &&
         geometry.wrapped_number == meta.wrapped_number && geometry.sizes == meta.sizes &&
         geometry.strides == meta.strides;
}

Status invalid(const wire::TensorMeta& meta, std::string_view why) {
  return Status(StatusKind::kInvalid, fmt::format("no tensor has sizes [{}] and strides [{}]: {}",
                                                  fmt::join(meta.sizes, ", "), fmt::join(meta.strides, ", "), why));
}

}  // namespace

ScalarType scalar_type_of(wire::DType dtype) { return kScalarTypes[static_cast<size_t>(dtype)]; }

std::optional<wire::DType> dtype_of(ScalarType scalar_type) {
  for (size_t i = 0; i < kScalarTypes.size(); ++i) {
    if (kScalarTypes[i] == scalar_type) return static_cast<wire::DType>(i);
  }
  return std::nullopt;
}

bool Geometry::same_layout(const at::Tensor& tensor) const {
  const at::IntArrayRef real = tensor.strides();
  if (real == at::IntArrayRef(strides) || numel == 0) return true;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > 1 && real[i] != strides[i]) return false;
  }
  return true;
}

Result<const Geometry*> GeometryTable::intern(const wire::TensorMeta& meta) {
  if (meta.dtype >= wire::DType::kCount) return Status(StatusKind::kInvalid, "a tensor has an unknown dtype");
  if (meta.sizes.size() != meta.strides.size()) return invalid(meta, "their counts differ");
  if (meta.sizes.size() > limits::tensor_dim_max) return invalid(meta, "too many dimensions");
  const uint64_t hash = hash_of(meta);
  for (auto [it, end] = by_hash_.equal_range(hash); it != end; ++it) {
    if (equal(*it->second, meta)) return it->second.get();
  }

  auto geometry = std::make_unique<Geometry>();
  geometry->dtype = scalar_type_of(meta.dtype);
  geometry->type = c10::scalarTypeToTypeMeta(geometry->dtype);
  geometry->item_bytes = c10::elementSize(geometry->dtype);
  geometry->conj = meta.conj;
  geometry->neg = meta.neg;
  geometry->wrapped_number = meta.wrapped_number;
  geometry->sizes = meta.sizes;
  geometry->strides = meta.strides;
  if (meta.conj && !c10::isComplexType(geometry->dtype)) return invalid(meta, "conj is for complex numbers");

  // Zero sizes may hide others that overflow, so the product runs over the others too.
  bool empty = false;
  int64_t product = 1, last = 0;
  for (size_t i = 0; i < meta.sizes.size(); ++i) {
    const int64_t size = meta.sizes[i], stride = meta.strides[i];
    if (size < 0 || stride < 0) return invalid(meta, "one is negative");
    if (size == 0) {
      empty = true;
      continue;
    }
    int64_t step = 0;
    if (__builtin_mul_overflow(product, size, &product) || __builtin_mul_overflow(size - 1, stride, &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return invalid(meta, "too large");
    }
  }
  uint64_t bytes = 0;
  if (last == INT64_MAX || __builtin_mul_overflow(static_cast<uint64_t>(last) + 1, geometry->item_bytes, &bytes) ||
      bytes > INT64_MAX || __builtin_mul_overflow(static_cast<uint64_t>(product), geometry->item_bytes, &bytes) ||
      bytes > INT64_MAX) {
    return invalid(meta, "too large");
  }
  geometry->numel = empty ? 0 : static_cast<uint64_t>(product);
  geometry->extent = empty ? 0 : static_cast<uint64_t>(last) + 1;
  ++count_;
  return by_hash_.emplace(hash, std::move(geometry))->second.get();
}

at::Tensor make_tensor(const c10::Storage& storage, const Geometry& geometry, int64_t offset,
                       c10::DispatchKeySet keys) {
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), keys, geometry.type);
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (geometry.sizes.size() == 1 && geometry.sizes[0] == 0) {
    if (offset != 0) impl->set_storage_offset(offset);  // a new TensorImpl has sizes [0]
    if (geometry.strides[0] != 1) impl->set_sizes_and_strides(geometry.sizes, geometry.strides);
  } else {
    impl->set_sizes_and_strides(geometry.sizes, geometry.strides, offset);
  }
  if (geometry.conj) impl->_set_conj(true);
  if (geometry.neg) impl->_set_neg(true);
  if (geometry.wrapped_number) impl->set_wrapped_number(true);
  return tensor;
}

wire::TensorMeta describe(const at::Tensor& tensor) {
  wire::TensorMeta meta;
  meta.dtype = dtype_of(tensor.scalar_type()).value();
  meta.conj = tensor.is_conj();
  meta.neg = tensor.is_neg();
  meta.offset = tensor.storage_offset();
  meta.sizes = tensor.sizes().vec();
  meta.strides = tensor.strides().vec();
  return meta;
}

}  // namespace waldo::torch_backend
