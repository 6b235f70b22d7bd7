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
  kEnd = 0,  // no argument: the last word of every key
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
  kDetour,  // in no plan's key: such a call is made another first
};
constexpr size_t kLinearMax = 16;

// Where the words of a walk go: into a key that is being made,
struct Written {
  InlineVector<uint64_t, 96>* words;
  bool put(uint64_t word) {
    words->push_back(word);
    return true;
  }
};
// or against one that is known. Nothing behind that key's end is read: how many words an argument takes follows from
// its words so far, which were equal, and where an argument begins no mark equals kEnd.
struct Compared {
  const uint64_t* next;
  bool put(uint64_t word) { return *next++ == word; }
};

// The rarer ways are called with a copy, so that the hot one's own Words need not lie in memory.
template <typename Words, typename Way>
[[gnu::always_inline]] inline bool outlined(Words& words, const Way& way) {
  Words copy = words;
  const bool equal = way(copy);
  words = copy;
  return equal;
}

}  // namespace

struct CallParts::Shape {
  const int64_t* sizes;
  const int64_t* strides;
  size_t dims;
  int64_t offset;
};

namespace {

using Shape = CallParts::Shape;
Shape shape_of(const c10::TensorImpl& tensor) {
  return {tensor.sizes().data(), tensor.strides().data(), tensor.sizes().size(), tensor.storage_offset()};
}
// c10's accessors ask each time who computes a tensor's sizes; we ask once. Never made: it is here for the names.
struct Inside : c10::TensorImpl {
  [[gnu::always_inline]] static bool is_plain(const c10::TensorImpl& tensor) {
    return !(tensor.*&Inside::matches_policy)(SizesStridesPolicy::CustomStrides);
  }
  [[gnu::always_inline]] static Shape shape_of(const c10::TensorImpl& tensor) {
    const c10::impl::SizesAndStrides& both = tensor.*&Inside::sizes_and_strides_;
    return {both.sizes_data(), both.strides_data(), both.size(), tensor.*&Inside::storage_offset_};
  }
};

[[gnu::always_inline]] inline uint64_t tensor_word(const c10::TensorImpl& impl, Mark mark, const Shape& shape) {
  const auto dtype = static_cast<uint64_t>(impl.dtype().toScalarType());
  uint64_t flags = shape.offset != 0 ? 8u : 0u;
  if (impl.is_conj() || impl.is_neg() || impl.is_wrapped_number()) [[unlikely]]
    flags |= (impl.is_conj() ? 1u : 0u) | (impl.is_neg() ? 2u : 0u) | (impl.is_wrapped_number() ? 4u : 0u);
  return mark | dtype << 8 | static_cast<uint64_t>(shape.dims) << 16 | flags << 24;
}

}  // namespace

// Storages are few: a linear look is fastest until lists (foreach) come.
inline uint64_t CallParts::group_of(StorageRef* ref) {
  const size_t count = storages_.size();
  if (count > kLinearMax) [[unlikely]]
    return group_slow(ref);
  for (size_t i = 0; i < count; ++i) {
    if (storages_[i] == ref) return i;
  }
  storages_.push_back(ref);
  return count;
}

uint64_t CallParts::group_slow(StorageRef* ref) {
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

uint16_t CallParts::storage_index(const StorageRef* ref) const {
  if (storages_.size() > kLinearMax)
    return static_cast<uint16_t>(const_cast<CallParts*>(this)->group_slow(const_cast<StorageRef*>(ref)));
  for (size_t i = 0; i < storages_.size(); ++i) {
    if (storages_[i] == ref) return static_cast<uint16_t>(i);
  }
  WALDO_CHECK(!"a storage that the walk did not see");
  return 0;
}

template <typename Words>
[[gnu::always_inline]] inline bool CallParts::tensor(Words& words, const Operator& op, const c10::IValue& value,
                                                     size_t argument, bool in_list) {
  if (!value.isTensor()) [[unlikely]]
    return words.put(kNone);
  const c10::TensorImpl& impl = *value.unsafeToTensorImpl();
  StorageRef* const ref = storage_ref(impl);
  if (ref == nullptr) [[unlikely]] {
    return outlined(
        words, [=, this, &op, &value](Words& copy) { return other_tensor_slow(copy, op, value, argument, in_list); });
  }
  if (device_ != ref->device.index()) [[unlikely]] {
    if (device_ < 0) {
      device_ = ref->device.index();
    } else if (op.one_by_one) {
      detour_ = Detour::kOneByOne;
      return words.put(kDetour);
    } else if (!op.crosses_devices) {
      throw_mixed(op, value.toTensor(), argument);
    }
  }
  if (!Inside::is_plain(impl)) [[unlikely]]
    return outlined(words,
                    [=, this, &impl](Words& copy) { return far_tensor(copy, impl, ref, shape_of(impl), in_list); });
  return far_tensor(words, impl, ref, Inside::shape_of(impl), in_list);
}

template <typename Words>
[[gnu::always_inline]] inline bool CallParts::far_tensor(Words& words, const c10::TensorImpl& impl, StorageRef* ref,
                                                         const Shape& shape, bool in_list) {
  if (!words.put(tensor_word(impl, kTensor, shape) | group_of(ref) << 32)) return false;
  // A dimension is one word, its size above its stride; when that is too little, a word of ones and both.
  for (size_t i = 0; i < shape.dims; ++i) {
    const auto size = static_cast<uint64_t>(shape.sizes[i]), stride = static_cast<uint64_t>(shape.strides[i]);
    if ((size | stride) < 0xffffffff) [[likely]] {
      if (!words.put(size << 32 | stride)) return false;
    } else if (!words.put(~uint64_t{0}) || !words.put(size) || !words.put(stride)) {
      return false;
    }
  }
  if (shape.offset != 0) scalars_.push_back(static_cast<uint64_t>(shape.offset));
  if (in_list) {
    const auto dtype = impl.dtype().toScalarType();
    has_mask_ |= dtype == at::kBool || dtype == at::kByte;
  }
  return true;
}

template <typename Words>
[[gnu::noinline]] bool CallParts::scalar(Words& words, const Operator& op, const c10::IValue& value) {
  const auto put_value = [&](uint64_t bits) {
    if (op.scalars_in_key) return words.put(bits);
    scalars_.push_back(bits);
    return true;
  };
  if (value.isDouble()) return words.put(kScalarFloat) && put_value(std::bit_cast<uint64_t>(value.toDouble()));
  if (value.isInt()) return words.put(kScalarInt) && put_value(static_cast<uint64_t>(value.toInt()));
  if (value.isBool()) return words.put(kScalarBool) && put_value(value.toBool() ? 1 : 0);
  if (value.isNone()) return words.put(kNone);
  TORCH_CHECK_NOT_IMPLEMENTED(value.isComplexDouble(), op.name(), ": a scalar of type ", value.tagKind(),
                              " cannot be sent to a Waldo device");
  const c10::complex<double> number = value.toComplexDouble();
  return words.put(kScalarComplex) && put_value(std::bit_cast<uint64_t>(number.real())) &&
         put_value(std::bit_cast<uint64_t>(number.imag()));
}

template <typename Words>
[[gnu::always_inline]] inline bool CallParts::walk(Words words, const Operator& op, const c10::IValue* arguments) {
  if (!words.put(op.id)) return false;
  const size_t count = op.arguments.size();
  for (size_t i = 0; i < count; ++i) {
    const c10::IValue& value = arguments[i];
    const ArgumentClass what = op.arguments[i];
    if (what == ArgumentClass::kTensor) [[likely]] {
      if (!tensor(words, op, value, i, false)) return false;
      continue;
    }
    bool goes_on;
    switch (what) {
      case ArgumentClass::kScalar:
      case ArgumentClass::kFloat:
        if (value.isInt() && !op.scalars_in_key) [[likely]] {  // the alpha of add and sub, above all
          goes_on = words.put(kScalarInt);
          scalars_.push_back(static_cast<uint64_t>(value.toInt()));
        } else {
          goes_on = outlined(words, [this, &op, &value](Words& copy) { return scalar(copy, op, value); });
        }
        break;
      case ArgumentClass::kInt:
      case ArgumentClass::kDType:
      case ArgumentClass::kLayout:
      case ArgumentClass::kMemoryFormat:
        goes_on =
            value.isNone() ? words.put(kNone) : words.put(kInt) && words.put(static_cast<uint64_t>(value.toInt()));
        break;
      case ArgumentClass::kBool:
        goes_on = words.put(value.isNone() ? kNone : kBool | (value.toBool() ? 256u : 0u));
        break;
      default:
        goes_on = value.isNone()
                      ? words.put(kNone)
                      : outlined(words, [=, this, &op, &value](Words& copy) { return rare(copy, op, value, i); });
    }
    if (!goes_on) return false;
  }
  if (device_ < 0) [[unlikely]]
    device_ = current_device();  // a factory without a device argument
  return words.put(kEnd);
}

bool CallParts::matches(const Operator& op, const c10::IValue* arguments, const uint64_t* key) {
  return walk(Compared{key}, op, arguments);
}

CallKey::CallKey(const Operator& op, const c10::IValue* arguments) { walk(Written{&words_}, op, arguments); }

template <typename Words>
[[gnu::noinline]] bool CallParts::rare(Words& words, const Operator& op, const c10::IValue& value, size_t argument) {
  const auto put_text = [&words](std::string_view text) {
    if (!words.put(kString | text.size() << 8)) return false;
    for (size_t at = 0; at < text.size(); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + at, std::min<size_t>(8, text.size() - at));
      if (!words.put(word)) return false;
    }
    return true;
  };
  const ArgumentClass what = op.arguments[argument];
  switch (what) {
    case ArgumentClass::kTensorList: {
      const auto tensors = value.toListRef();
      if (!words.put(kTensorList | tensors.size() << 32)) return false;
      for (const auto& element : tensors) {
        if (!tensor(words, op, element, argument, true)) return false;
      }
      return true;
    }
    case ArgumentClass::kString:
      return put_text(value.toStringView());
    case ArgumentClass::kDevice: {
      const auto device = value.toDevice();
      if (device.is_cuda() && device_ < 0) device_ = resolve_device(device.index());
      return words.put(kDevice |
                       (device.is_cuda() ? 256u + (static_cast<uint64_t>(resolve_device(device.index())) << 16) : 0u));
    }
    case ArgumentClass::kGenerator: {
      const uint32_t number = generator_number(value.toGenerator(), device_ < 0 ? current_device() : device_);
      return words.put(kGenerator | static_cast<uint64_t>(number) << 32);
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
  if (!words.put(kList | elements.size() << 32)) return false;
  for (const auto& element : elements) {
    bool goes_on;
    if (what == ArgumentClass::kFloatList || what == ArgumentClass::kScalarList) {
      goes_on = scalar(words, op, element);
    } else if (what == ArgumentClass::kStringList) {
      goes_on = put_text(element.toStringView());
    } else {
      goes_on = words.put(
          static_cast<uint64_t>(what == ArgumentClass::kBoolList ? (element.toBool() ? 1 : 0) : element.toInt()));
    }
    if (!goes_on) return false;
  }
  return true;
}

// Not in a far storage: undefined, a number in a 0-dim CPU tensor, or something that is wrong here.
template <typename Words>
[[gnu::noinline]] bool CallParts::other_tensor_slow(Words& words, const Operator& op, const c10::IValue& value,
                                                    size_t argument, bool in_list) {
  const at::Tensor& given = value.toTensor();
  if (!given.defined()) return words.put(kNone);
  if (!given.is_cpu() || given.layout() != at::kStrided) throw_mixed(op, given, argument);
  if (in_list && op.one_by_one) {
    detour_ = Detour::kOneByOne;
    return words.put(kDetour);
  }
  if (in_list) has_mask_ |= given.scalar_type() == at::kBool || given.scalar_type() == at::kByte;
  if (given.dim() == 0 && !in_list && !op.written[argument]) {
    const c10::TensorImpl& impl = *given.unsafeGetTensorImpl();
    const uint64_t word = tensor_word(impl, kCpuScalar, shape_of(impl));
    const at::Tensor plain = given.resolve_conj().resolve_neg();
    uint64_t bits[2] = {};
    std::memcpy(bits, plain.const_data_ptr(), plain.element_size());
    scalars_.push_back(bits[0]);
    scalars_.push_back(bits[1]);
    return words.put(word & ~(uint64_t{8 | 3} << 24));  // neither offset nor lazy bits
  }
  if (!op.uploads_cpu_tensors) throw_mixed(op, given, argument);
  detour_ = Detour::kUpload;
  return words.put(kDetour);
}

void CallParts::throw_mixed(const Operator& op, const at::Tensor& tensor, size_t argument) const {
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
