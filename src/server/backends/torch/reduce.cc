#include "server/backends/torch/reduce.h"

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <type_traits>

#include "server/backends/torch/errors.h"

namespace waldo::torch_backend {
namespace {

using wire::ReduceKind;

template <typename T, ReduceKind kKind>
void combine(void* out, const void* a, const void* b, size_t elements) {
  auto* to = static_cast<T*>(out);
  const auto* x = static_cast<const T*>(a);
  const auto* y = static_cast<const T*>(b);
  for (size_t i = 0; i < elements; ++i) {
    if constexpr (kKind == ReduceKind::kSum) {
      to[i] = static_cast<T>(x[i] + y[i]);
    } else if constexpr (kKind == ReduceKind::kProduct) {
      to[i] = static_cast<T>(x[i] * y[i]);
    } else if constexpr (kKind == ReduceKind::kMin) {
      to[i] = y[i] < x[i] ? y[i] : x[i];
    } else if constexpr (kKind == ReduceKind::kMax) {
      to[i] = x[i] < y[i] ? y[i] : x[i];
    } else if constexpr (kKind == ReduceKind::kBand) {
      to[i] = static_cast<T>(x[i] & y[i]);
    } else if constexpr (kKind == ReduceKind::kBor) {
      to[i] = static_cast<T>(x[i] | y[i]);
    } else {
      to[i] = static_cast<T>(x[i] ^ y[i]);
    }
  }
}

template <typename T>
void scale(void* data, size_t elements, double factor) {
  auto* values = static_cast<T*>(data);
  if constexpr (std::is_integral_v<T>) {  // the mean of integers; NCCL rounds towards 0
    const auto ranks = static_cast<T>(1 / factor + 0.5);
    for (size_t i = 0; i < elements; ++i) values[i] = static_cast<T>(values[i] / ranks);
  } else {
    const auto by = static_cast<T>(factor);
    for (size_t i = 0; i < elements; ++i) values[i] = values[i] * by;
  }
}

template <typename T>
server::ReduceFunction function_for(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::kSum:
    case ReduceKind::kAvg:
    case ReduceKind::kPremulSum:
      return &combine<T, ReduceKind::kSum>;
    case ReduceKind::kProduct:
      return &combine<T, ReduceKind::kProduct>;
    case ReduceKind::kMin:
      return &combine<T, ReduceKind::kMin>;
    case ReduceKind::kMax:
      return &combine<T, ReduceKind::kMax>;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (kind) {
      case ReduceKind::kBand:
        return &combine<T, ReduceKind::kBand>;
      case ReduceKind::kBor:
        return &combine<T, ReduceKind::kBor>;
      case ReduceKind::kBxor:
        return &combine<T, ReduceKind::kBxor>;
      default:
        break;
    }
  }
  return nullptr;
}

template <typename T>
TypedReduction typed(ReduceKind kind, size_t elements) {
  return {{elements, sizeof(T), function_for<T>(kind)}, &scale<T>};
}

Result<TypedReduction> by_dtype(ReduceKind kind, c10::ScalarType dtype, size_t elements) {
  using Type = c10::ScalarType;
  switch (dtype) {
    case Type::Float:
      return typed<float>(kind, elements);
    case Type::Double:
      return typed<double>(kind, elements);
    case Type::Half:
      return typed<c10::Half>(kind, elements);
    case Type::BFloat16:
      return typed<c10::BFloat16>(kind, elements);
    case Type::Byte:
      return typed<uint8_t>(kind, elements);
    case Type::Char:
      return typed<int8_t>(kind, elements);
    case Type::Short:
      return typed<int16_t>(kind, elements);
    case Type::Int:
      return typed<int32_t>(kind, elements);
    case Type::Long:
      return typed<int64_t>(kind, elements);
    case Type::Bool:  // any and all
      switch (kind) {
        case ReduceKind::kSum:
        case ReduceKind::kMax:
        case ReduceKind::kBor:
          return typed<uint8_t>(ReduceKind::kMax, elements);
        case ReduceKind::kProduct:
        case ReduceKind::kMin:
        case ReduceKind::kBand:
          return typed<uint8_t>(ReduceKind::kMin, elements);
        case ReduceKind::kBxor:
          return typed<uint8_t>(ReduceKind::kBxor, elements);
        default:
          return device_error(wire::ErrorClass::kType, "Cannot use ReduceOp.AVG with boolean inputs");
      }
    case Type::ComplexFloat:
      return by_dtype(kind, Type::Float, elements * 2);
    case Type::ComplexDouble:
      return by_dtype(kind, Type::Double, elements * 2);
    default:
      return device_error(
          wire::ErrorClass::kType,
          fmt::format("Input tensor data type is not supported for NCCL process group: {}", c10::toString(dtype)));
  }
}

}  // namespace

std::string name_of(ReduceKind kind) {
  static constexpr const char* kNames[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"};
  return kNames[static_cast<size_t>(kind)];
}

Result<TypedReduction> reduction_for(ReduceKind kind, c10::ScalarType dtype, size_t elements, double factor,
                                     int ranks) {
  const bool linear = kind == ReduceKind::kSum || kind == ReduceKind::kAvg || kind == ReduceKind::kPremulSum;
  if (c10::isComplexType(dtype) && !linear) {
    return device_error(wire::ErrorClass::kRuntime,
                        fmt::format("all_reduce does not support {} on complex tensors", name_of(kind)));
  }
  Result<TypedReduction> made = by_dtype(kind, dtype, elements);
  if (!made.ok()) return made;
  if (made->reduction.function == nullptr) {
    return device_error(wire::ErrorClass::kValue,
                        fmt::format("Cannot use ReduceOp.{} with {} inputs", name_of(kind), c10::toString(dtype)));
  }
  const bool whole = c10::isIntegralType(dtype, /*includeBool=*/true);
  if (kind == ReduceKind::kAvg) (whole ? made->after : made->before) = 1.0 / ranks;
  if (kind == ReduceKind::kPremulSum) {
    if (whole) {
      return device_error(wire::ErrorClass::kValue, "Cannot use ReduceOp.PREMUL_SUM with integer inputs");
    }
    made->before = factor;
  }
  return made;
}

}  // namespace waldo::torch_backend
