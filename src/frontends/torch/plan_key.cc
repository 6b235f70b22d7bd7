#include "frontends/torch/plan_key.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/op_registration/adaption.h>
#include <c10/util/Exception.h>

#include <bit>
#include <cstring>

#include "frontends/torch/device.h"
#include "frontends/torch/generator.h"

namespace waldo::torch_frontend {
namespace {

// The low byte of an argument's first word, so that no two argument lists give the same words.
enum Mark : uint64_t {
  kNone = 1,
  kTensor,
  kCpuScalar,
  kTensorList,
  kScalarInt,
  kScalarFloat,
  kScalarBool,
  kScalarComplex,
  kInt,
  kBool,
  kDouble,
  kString,
  kList,
  kDevice,
  kGenerator,
};
constexpr size_t kLinearMax = 16;

[[gnu::always_inline]] inline uint64_t tensor_word(const c10::TensorImpl& impl, Mark mark) {
  const auto dtype = static_cast<uint64_t>(impl.dtype().toScalarType());
  const uint64_t flags = (impl.is_conj() ? 1u : 0u) | (impl.is_neg() ? 2u : 0u) | (impl.is_wrapped_number() ? 4u : 0u) |
                         (impl.storage_offset() != 0 ? 8u : 0u);
  return mark | dtype << 8 | static_cast<uint64_t>(impl.dim()) << 16 | flags << 24;
}

}  // namespace

// Storages are few: a linear look is fastest until lists (foreach) come.
inline uint64_t CallKey::group_of(StorageRef* ref) {
  const size_t count = storages_.size();
  if (count > kLinearMax) [[unlikely]]
    return group_slow(ref);
  for (size_t i = 0; i < count; ++i) {
    if (storages_[i] == ref) return i;
  }
  storages_.push_back(ref);
  return count;
}

uint64_t CallKey::group_slow(StorageRef* ref) {
  const auto bucket_of = [this](const StorageRef* which) {
    return (reinterpret_cast<uintptr_t>(which) >> 4) * 0x9E3779B97F4A7C15ull >>
           (64 - std::bit_width(buckets_.size() - 1));
  };
  const auto add = [&](size_t index) {
    for (size_t at = bucket_of(storages_[index]);; at = (at + 1) & (buckets_.size() - 1)) {
      if (buckets_[at] == 0) {
        buckets_[at] = static_cast<uint16_t>(index + 1);
        return;
      }
    }
  };
  if (buckets_.size() < storages_.size() * 2 + 2) {
    buckets_.assign(std::bit_ceil(storages_.size() * 4), 0);
    for (size_t i = 0; i < storages_.size(); ++i) add(i);
  }
  for (size_t at = bucket_of(ref); buckets_[at] != 0; at = (at + 1) & (buckets_.size() - 1)) {
    if (storages_[buckets_[at] - 1u] == ref) return buckets_[at] - 1u;
  }
  TORCH_CHECK(storages_.size() < limits::call_slot_count_max, "too many tensors in one operator call");
  storages_.push_back(ref);
  add(storages_.size() - 1);
  return storages_.size() - 1;
}

uint16_t CallKey::storage_index(const StorageRef* ref) const {
  if (storages_.size() > kLinearMax)
    return static_cast<uint16_t>(const_cast<CallKey*>(this)->group_slow(const_cast<StorageRef*>(ref)));
  for (size_t i = 0; i < storages_.size(); ++i) {
    if (storages_[i] == ref) return static_cast<uint16_t>(i);
  }
  WALDO_CHECK(!"a storage that the walk did not see");
  return 0;
}

[[gnu::always_inline]] inline void CallKey::tensor(const Operator& op, const c10::IValue& value, size_t argument,
                                                   bool in_list) {
  if (value.isNone()) [[unlikely]]
    return put(kNone);
  const c10::TensorImpl& impl = *value.unsafeToTensorImpl();
  StorageRef* const ref = storage_ref(impl);
  if (ref == nullptr) [[unlikely]]
    return other_tensor_slow(op, value, argument, in_list);
  if (device_ != ref->device) [[unlikely]] {
    if (device_ < 0) {
      device_ = ref->device;
    } else if (!op.crosses_devices) {
      throw_mixed(op, value.toTensor(), argument);
    }
  }
  const size_t dims = impl.sizes().size();
  const int64_t* sizes = impl.sizes().data();
  const int64_t* strides = impl.strides().data();
  const uint64_t first = tensor_word(impl, kTensor) | group_of(ref) << 32;
  // A dimension is one word, its size above its stride; when either needs 32 bits or more, a word of ones and both.
  uint64_t* to = words_.append(1 + dims);
  uint64_t mixed = mix(mixed_, *to++ = first);
  uint64_t large = 0;
  for (size_t i = 0; i < dims; ++i) {
    const auto size = static_cast<uint64_t>(sizes[i]), stride = static_cast<uint64_t>(strides[i]);
    large |= (size | stride) + 1;
    mixed = mix(mixed, *to++ = size << 32 | stride);
  }
  if (large >> 32 != 0) [[unlikely]] {
    words_.drop_last(dims);
    mixed = mix(mixed_, first);
    for (size_t i = 0; i < dims; ++i) {
      for (const uint64_t word : {~uint64_t{0}, static_cast<uint64_t>(sizes[i]), static_cast<uint64_t>(strides[i])}) {
        words_.push_back(word);
        mixed = mix(mixed, word);
      }
    }
  }
  mixed_ = mixed;
  if (const int64_t offset = impl.storage_offset(); offset != 0) scalars_.push_back(static_cast<uint64_t>(offset));
  if (in_list) {
    const auto dtype = impl.dtype().toScalarType();
    has_mask_ |= dtype == at::kBool || dtype == at::kByte;
  }
}

void CallKey::scalar(const Operator& op, const c10::IValue& value) {
  const bool in_key = op.scalars_in_key;
  const auto put_value = [&](uint64_t bits) { in_key ? put(bits) : static_cast<void>(scalars_.push_back(bits)); };
  if (value.isDouble()) {
    put(kScalarFloat);
    put_value(std::bit_cast<uint64_t>(value.toDouble()));
  } else if (value.isInt()) {
    put(kScalarInt);
    put_value(static_cast<uint64_t>(value.toInt()));
  } else if (value.isBool()) {
    put(kScalarBool);
    put_value(value.toBool() ? 1 : 0);
  } else if (value.isNone()) {
    put(kNone);
  } else if (value.isComplexDouble()) {
    put(kScalarComplex);
    const c10::complex<double> number = value.toComplexDouble();
    put_value(std::bit_cast<uint64_t>(number.real()));
    put_value(std::bit_cast<uint64_t>(number.imag()));
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(false, op.name(), ": a scalar of type ", value.tagKind(),
                                " cannot be sent to a Waldo device");
  }
}

void CallKey::walk(const Operator& op, const c10::IValue* arguments) {
  put(op.id);
  const size_t count = op.arguments.size();
  for (size_t i = 0; i < count; ++i) {
    const c10::IValue& value = arguments[i];
    switch (op.arguments[i]) {
      case ArgumentClass::kTensor:
        tensor(op, value, i, false);
        break;
      case ArgumentClass::kScalar:
      case ArgumentClass::kFloat:
        if (value.isInt() && !op.scalars_in_key) [[likely]] {  // the alpha of add and sub, above all
          put(kScalarInt);
          scalars_.push_back(static_cast<uint64_t>(value.toInt()));
        } else {
          scalar(op, value);
        }
        break;
      case ArgumentClass::kInt:
      case ArgumentClass::kDType:
      case ArgumentClass::kLayout:
      case ArgumentClass::kMemoryFormat:
        if (value.isNone()) {
          put(kNone);
        } else {
          put(kInt);
          put(static_cast<uint64_t>(value.toInt()));
        }
        break;
      case ArgumentClass::kBool:
        put(value.isNone() ? kNone : kBool | (value.toBool() ? 256u : 0u));
        break;
      default:
        value.isNone() ? put(kNone) : rare(op, value, op.arguments[i], i);
    }
  }
  if (device_ < 0) [[unlikely]]
    device_ = current_device();  // a factory without a device argument
}

void CallKey::rare(const Operator& op, const c10::IValue& value, ArgumentClass what, size_t argument) {
  const auto put_text = [this](std::string_view text) {
    put(kString | text.size() << 8);
    for (size_t at = 0; at < text.size(); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + at, std::min<size_t>(8, text.size() - at));
      put(word);
    }
  };
  switch (what) {
    case ArgumentClass::kTensorList: {
      const auto tensors = value.toListRef();
      put(kTensorList | tensors.size() << 32);
      for (const auto& element : tensors) tensor(op, element, argument, true);
      return;
    }
    case ArgumentClass::kString:
      return put_text(value.toStringView());
    case ArgumentClass::kDevice: {
      const auto device = value.toDevice();
      if (device.is_cuda() && device_ < 0) device_ = resolve_device(device.index());
      put(kDevice | (device.is_cuda() ? 256u + (static_cast<uint64_t>(resolve_device(device.index())) << 16) : 0u));
      return;
    }
    case ArgumentClass::kGenerator: {
      put(kGenerator |
          static_cast<uint64_t>(generator_number(value.toGenerator(), device_ < 0 ? current_device() : device_)) << 32);
      return;
    }
    case ArgumentClass::kIntList:
    case ArgumentClass::kBoolList:
    case ArgumentClass::kFloatList:
    case ArgumentClass::kScalarList:
    case ArgumentClass::kStringList:
      break;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, op.name(), ": argument '", op.handle.schema().arguments()[argument].name(),
                                  "' cannot be sent to a Waldo device");
  }
  const auto elements = value.toListRef();
  put(kList | elements.size() << 32);
  for (const auto& element : elements) {
    if (what == ArgumentClass::kFloatList || what == ArgumentClass::kScalarList) {
      scalar(op, element);
    } else if (what == ArgumentClass::kStringList) {
      put_text(element.toStringView());
    } else {
      put(static_cast<uint64_t>(what == ArgumentClass::kBoolList ? (element.toBool() ? 1 : 0) : element.toInt()));
    }
  }
}

// Not in a far storage: undefined, a number in a 0-dim CPU tensor, or something that is wrong here.
void CallKey::other_tensor_slow(const Operator& op, const c10::IValue& value, size_t argument, bool in_list) {
  const at::Tensor& given = value.toTensor();
  if (!given.defined()) return put(kNone);
  if (!given.is_cpu() || given.layout() != at::kStrided) throw_mixed(op, given, argument);
  if (in_list) has_mask_ |= given.scalar_type() == at::kBool || given.scalar_type() == at::kByte;
  if (given.dim() == 0 && !op.written[argument]) {
    put(tensor_word(*given.unsafeGetTensorImpl(), kCpuScalar) &
        ~(uint64_t{8 | 3} << 24));  // neither offset nor lazy bits
    const at::Tensor plain = given.resolve_conj().resolve_neg();
    uint64_t words[2] = {};
    std::memcpy(words, plain.const_data_ptr(), plain.element_size());
    scalars_.push_back(words[0]);
    scalars_.push_back(words[1]);
    return;
  }
  if (!op.uploads_cpu_tensors) throw_mixed(op, given, argument);
  wants_upload_ = true;
}

void CallKey::throw_mixed(const Operator& op, const at::Tensor& tensor, size_t argument) const {
  c10::Device mine(c10::DeviceType::CUDA, device_ < 0 ? current_device() : device_);
  if (op.handle.operator_name().name == "aten::masked_fill_") {
    TORCH_CHECK(false, "masked_fill: Expected inputs to be on same device");
  }
  // TensorIterator's text for what runs through it, else that of the check before a CUDA kernel.
  if (op.pointwise) {
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", mine, " and ",
                tensor.device(), "!");
  }
  const std::string method = "wrapper_CUDA_" + op.handle.operator_name().name.substr(6);
  const std::string& name = op.handle.schema().arguments()[argument].name();
  c10::impl::common_device_check_failure(mine, tensor, method.c_str(), name.c_str());
  TORCH_CHECK(false, "Expected all tensors to be on the same device");  // the line above does not return
}

client::PlanKey CallKey::hash() const {
  const XXH128_hash_t hash = XXH3_128bits(words_.data(), words_.size() * sizeof(uint64_t));
  return {hash.low64, hash.high64};
}

}  // namespace waldo::torch_frontend
