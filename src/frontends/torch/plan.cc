#include "frontends/torch/plan.h"

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <sstream>

#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/generator.h"

namespace waldo::torch_frontend {
namespace {

struct DTypePair {
  at::ScalarType torch;
  wire::DType wire;
};
constexpr DTypePair kDTypes[] = {
    {at::kByte, wire::DType::kUint8},
    {at::kChar, wire::DType::kInt8},
    {at::kShort, wire::DType::kInt16},
    {at::kInt, wire::DType::kInt32},
    {at::kLong, wire::DType::kInt64},
    {at::kHalf, wire::DType::kFloat16},
    {at::kFloat, wire::DType::kFloat32},
    {at::kDouble, wire::DType::kFloat64},
    {at::kComplexHalf, wire::DType::kComplex32},
    {at::kComplexFloat, wire::DType::kComplex64},
    {at::kComplexDouble, wire::DType::kComplex128},
    {at::kBool, wire::DType::kBool},
    {at::kBFloat16, wire::DType::kBfloat16},
    {at::kUInt16, wire::DType::kUint16},
    {at::kUInt32, wire::DType::kUint32},
    {at::kUInt64, wire::DType::kUint64},
    {at::kFloat8_e4m3fn, wire::DType::kFloat8E4M3Fn},
    {at::kFloat8_e5m2, wire::DType::kFloat8E5M2},
    {at::kFloat8_e4m3fnuz, wire::DType::kFloat8E4M3Fnuz},
    {at::kFloat8_e5m2fnuz, wire::DType::kFloat8E5M2Fnuz},
    {at::kFloat8_e8m0fnu, wire::DType::kFloat8E8M0Fnu},
};

wire::TensorMeta describe(const at::Tensor& tensor, bool by_value) {
  wire::TensorMeta meta;
  meta.dtype = to_wire(tensor.scalar_type());
  meta.wrapped_number = tensor.unsafeGetTensorImpl()->is_wrapped_number();
  if (by_value) return meta;
  // What no address reaches, elements that lie in one place counted each; the worker takes it for a lie.
  int64_t bytes = 0;
  TORCH_CHECK_NOT_IMPLEMENTED(
      !__builtin_mul_overflow(tensor.numel(), static_cast<int64_t>(tensor.element_size()), &bytes),
      "a tensor with sizes ", tensor.sizes(), " is too large for a Waldo device");
  meta.conj = tensor.is_conj();
  meta.neg = tensor.is_neg();
  meta.dynamic_offset = tensor.storage_offset() != 0;
  meta.sizes = tensor.sizes().vec();
  meta.strides = tensor.strides().vec();
  return meta;
}

// One tensor of an argument (`in_list`: an entry of a list, where None is a slot that is none).
void add_tensor(wire::Argument& argument, const c10::IValue& value, const CallKey& key, bool in_list) {
  const bool absent = value.isNone() || !value.toTensor().defined();
  if (absent) {
    if (in_list) {
      argument.slots.push_back(wire::kNoSlot);
      argument.tensors.emplace_back();
    }
    return;
  }
  const at::Tensor& tensor = value.toTensor();
  TORCH_CHECK(tensor.dim() <= static_cast<int64_t>(limits::tensor_dim_max), "only tensors with up to ",
              limits::tensor_dim_max, " dims are supported");
  const StorageRef* ref = storage_ref(*tensor.unsafeGetTensorImpl());
  if (ref == nullptr) {
    TORCH_INTERNAL_ASSERT(!in_list, "a CPU tensor in a list of tensors");  // CallKey took a detour, or threw
    argument.kind = wire::ArgumentKind::kCpuScalar;
    argument.dynamic = true;
    argument.tensors.push_back(describe(tensor, true));
    return;
  }
  argument.kind = in_list ? wire::ArgumentKind::kTensorList : wire::ArgumentKind::kTensor;
  argument.slots.push_back(key.storage_index(ref));
  argument.tensors.push_back(describe(tensor, false));
}

void add_number(wire::Argument& argument, const c10::IValue& value, bool constant) {
  if (value.isDouble()) {
    argument.scalar_tags.push_back(wire::ScalarTag::kFloat);
    if (constant) argument.floats.push_back(value.toDouble());
  } else if (value.isBool()) {
    argument.scalar_tags.push_back(wire::ScalarTag::kBool);
    if (constant) argument.ints.push_back(value.toBool() ? 1 : 0);
  } else if (value.isComplexDouble()) {
    argument.scalar_tags.push_back(wire::ScalarTag::kComplex);
    if (constant) {
      argument.floats.push_back(value.toComplexDouble().real());
      argument.floats.push_back(value.toComplexDouble().imag());
    }
  } else {
    argument.scalar_tags.push_back(wire::ScalarTag::kInt);
    if (constant) argument.ints.push_back(value.toInt());
  }
}

wire::Argument describe_argument(const Operator& op, ArgumentClass what, const c10::IValue& value, const CallKey& key) {
  wire::Argument argument;
  if (value.isNone()) return argument;
  using Kind = wire::ArgumentKind;
  switch (what) {
    case ArgumentClass::kTensor:
      add_tensor(argument, value, key, false);
      return argument;
    case ArgumentClass::kTensorList:
      argument.kind = Kind::kTensorList;
      for (const auto& element : value.toListRef()) add_tensor(argument, element, key, true);
      return argument;
    case ArgumentClass::kScalar:
      argument.kind = Kind::kScalar;
      argument.dynamic = !op.scalars_in_key;
      add_number(argument, value, op.scalars_in_key);
      return argument;
    case ArgumentClass::kFloat:
      argument.kind = Kind::kFloat;
      argument.dynamic = !op.scalars_in_key;
      if (op.scalars_in_key) argument.floats.push_back(value.toDouble());
      return argument;
    case ArgumentClass::kFloatList:
    case ArgumentClass::kScalarList: {
      const auto elements = value.toListRef();
      const bool is_float = what == ArgumentClass::kFloatList;
      argument.kind = is_float ? Kind::kFloatList : Kind::kScalarList;
      argument.dynamic = !op.scalars_in_key;
      argument.count = static_cast<uint32_t>(elements.size());
      for (const auto& element : elements) {
        if (!is_float) {
          add_number(argument, element, op.scalars_in_key);
        } else if (op.scalars_in_key) {
          argument.floats.push_back(element.toDouble());
        }
      }
      return argument;
    }
    case ArgumentClass::kInt:
      argument.kind = Kind::kInt;
      argument.ints.push_back(value.toInt());
      return argument;
    case ArgumentClass::kBool:
      argument.kind = Kind::kBool;
      argument.ints.push_back(value.toBool() ? 1 : 0);
      return argument;
    case ArgumentClass::kString:
      argument.kind = Kind::kString;
      argument.strings.push_back(value.toStringRef());
      return argument;
    case ArgumentClass::kIntList:
      argument.kind = Kind::kIntList;
      for (const auto& element : value.toListRef()) argument.ints.push_back(element.toInt());
      return argument;
    case ArgumentClass::kBoolList:
      argument.kind = Kind::kBoolList;
      for (const auto& element : value.toListRef()) argument.ints.push_back(element.toBool() ? 1 : 0);
      return argument;
    case ArgumentClass::kStringList:
      argument.kind = Kind::kStringList;
      for (const auto& element : value.toListRef()) argument.strings.push_back(element.toStringRef());
      return argument;
    case ArgumentClass::kDType:
      argument.kind = Kind::kDType;
      argument.ints.push_back(static_cast<int64_t>(to_wire(static_cast<at::ScalarType>(value.toInt()))));
      return argument;
    case ArgumentClass::kLayout:
      TORCH_CHECK_NOT_IMPLEMENTED(value.toInt() == static_cast<int64_t>(at::kStrided), op.name(),
                                  ": only strided tensors exist on a Waldo device");
      argument.kind = Kind::kLayout;
      argument.ints.push_back(0);
      return argument;
    case ArgumentClass::kMemoryFormat:
      // The wire's numbers: 0 contiguous, 1 preserve, 2 channels_last, 3 channels_last_3d.
      static_assert(static_cast<int>(at::MemoryFormat::Contiguous) == 0 &&
                    static_cast<int>(at::MemoryFormat::Preserve) == 1 &&
                    static_cast<int>(at::MemoryFormat::ChannelsLast) == 2 &&
                    static_cast<int>(at::MemoryFormat::ChannelsLast3d) == 3);
      argument.kind = Kind::kMemoryFormat;
      argument.ints.push_back(value.toInt());
      return argument;
    case ArgumentClass::kDevice: {
      const auto device = value.toDevice();
      argument.kind = Kind::kDevice;
      argument.ints.push_back(
          device.is_cuda() ? queue_for(c10::Device(device.type(), resolve_device(device.index()))).id().raw : -1);
      return argument;
    }
    case ArgumentClass::kGenerator:
      argument.kind = Kind::kGenerator;
      argument.ints.push_back(generator_number(value.toGenerator(), key.device()));
      return argument;
    case ArgumentClass::kOther:
      break;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.name(), ": an argument of this type cannot be sent to a Waldo device");
}

wire::Output describe_output(const OutputPlan& from, uint16_t reads, const std::vector<TensorPlace>& places) {
  wire::Output output;
  output.kind = from.kind;
  output.number = from.number;
  output.integer = from.integer;
  switch (from.kind) {
    case wire::OutputKind::kArgument:
      for (size_t i = 0; i < places.size(); ++i) {
        if (places[i].argument == from.place.argument && places[i].element == from.place.element) {
          output.tensor_index = static_cast<uint16_t>(i);
        }
      }
      break;
    case wire::OutputKind::kNew:
    case wire::OutputKind::kCpuNew:
    case wire::OutputKind::kViewOf:
      output.slot = static_cast<uint16_t>(from.kind == wire::OutputKind::kViewOf ? from.slot : reads + from.slot);
      output.storage_bytes = from.storage_bytes;
      output.tensor.dtype = to_wire(from.dtype);
      output.tensor.conj = from.conj;
      output.tensor.neg = from.neg;
      output.tensor.offset = from.offset;
      output.tensor.sizes.assign(from.sizes.begin(), from.sizes.end());
      output.tensor.strides.assign(from.strides.begin(), from.strides.end());
      break;
    case wire::OutputKind::kList:
      output.list = torch_frontend::to_wire(from.list, reads, places);
      break;
    default:
      break;
  }
  return output;
}

bool is_contiguous(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (strides[i] != expected) return false;
    expected *= std::max<int64_t>(sizes[i], 1);
  }
  return true;
}

OutputPlan read_output(const wire::Output& from, uint16_t reads, const std::vector<TensorPlace>& places) {
  OutputPlan output;
  output.kind = from.kind;
  output.number = from.number;
  output.integer = from.integer;
  output.storage_bytes = from.storage_bytes;
  output.dtype = from_wire(from.tensor.dtype);
  output.conj = from.tensor.conj;
  output.neg = from.tensor.neg;
  output.offset = from.tensor.offset;
  output.sizes.assign(from.tensor.sizes.begin(), from.tensor.sizes.end());
  output.strides.assign(from.tensor.strides.begin(), from.tensor.strides.end());
  output.contiguous = is_contiguous(from.tensor.sizes, from.tensor.strides);
  switch (from.kind) {
    case wire::OutputKind::kArgument:
      if (from.tensor_index >= places.size())
        throw_status(Status(StatusKind::kInternal, "the worker's report names no argument"));
      output.place = places[from.tensor_index];
      break;
    case wire::OutputKind::kNew:
    case wire::OutputKind::kCpuNew:
      if (from.slot < reads) throw_status(Status(StatusKind::kInternal, "the worker's report names no new slot"));
      output.slot = static_cast<uint16_t>(from.slot - reads);
      break;
    case wire::OutputKind::kViewOf:
      output.slot = from.slot;
      break;
    case wire::OutputKind::kList:
      output.list = torch_frontend::from_wire(from.list, reads, places);
      break;
    default:
      break;
  }
  return output;
}

}  // namespace

wire::DType to_wire(at::ScalarType dtype) {
  for (const auto& pair : kDTypes) {
    if (pair.torch == dtype) return pair.wire;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(false, "tensors of dtype ", dtype, " do not exist on a Waldo device");
}

at::ScalarType from_wire(wire::DType dtype) {
  for (const auto& pair : kDTypes) {
    if (pair.wire == dtype) return pair.torch;
  }
  throw_status(Status(StatusKind::kInternal, "the worker named an unknown dtype"));
}

const at::Tensor& TensorPlace::in(const c10::IValue* arguments) const {
  const auto& value = arguments[argument];
  return element < 0 ? value.toTensor() : value.toListRef()[static_cast<size_t>(element)].toTensor();
}

std::vector<TensorPlace> tensor_places(const Operator& op, const c10::IValue* arguments) {
  std::vector<TensorPlace> places;
  const auto add = [&](const c10::IValue& value, size_t argument, int32_t element) {
    if (!value.isNone() && value.toTensor().defined()) places.push_back({static_cast<uint16_t>(argument), element});
  };
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    if (op.arguments[i] == ArgumentClass::kTensor) {
      add(arguments[i], i, -1);
    } else if (op.arguments[i] == ArgumentClass::kTensorList && !arguments[i].isNone()) {
      const auto list = arguments[i].toListRef();
      for (size_t j = 0; j < list.size(); ++j) add(list[j], i, static_cast<int32_t>(j));
    }
  }
  return places;
}

wire::PlanBody describe_call(const Operator& op, const c10::IValue* arguments, const CallKey& key) {
  wire::PlanBody body;
  body.op = op.handle.operator_name().name;
  body.overload = op.handle.operator_name().overload_name;
  std::ostringstream schema;
  schema << op.handle.schema();
  const std::string text = schema.str();
  body.schema_hash = XXH3_64bits(text.data(), text.size());
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    body.arguments.push_back(describe_argument(op, op.arguments[i], arguments[i], key));
  }
  return body;
}

std::vector<wire::Output> to_wire(const std::vector<OutputPlan>& outputs, uint16_t reads,
                                  const std::vector<TensorPlace>& places) {
  std::vector<wire::Output> all;
  for (const auto& output : outputs) all.push_back(describe_output(output, reads, places));
  return all;
}

std::vector<OutputPlan> from_wire(const std::vector<wire::Output>& outputs, uint16_t reads,
                                  const std::vector<TensorPlace>& places) {
  std::vector<OutputPlan> all;
  for (const auto& output : outputs) all.push_back(read_output(output, reads, places));
  return all;
}

uint16_t creates_max(const Operator& op, const c10::IValue* arguments) {
  size_t count = 0;
  for (const auto& returned : op.handle.schema().returns()) {
    if (returned.type()->kind() != c10::TypeKind::ListType) {
      ++count;
      continue;
    }
    size_t longest = 8;  // a list of outputs is as long as a list it was given, or as the sizes it was given say
    for (size_t i = 0; i < op.arguments.size(); ++i) {
      if (arguments[i].isList()) longest = std::max(longest, arguments[i].toListRef().size());
      if (arguments[i].isInt()) longest = std::max<size_t>(longest, std::clamp<int64_t>(arguments[i].toInt(), 0, 1024));
    }
    count += longest;
  }
  return static_cast<uint16_t>(std::min<size_t>(count, limits::call_slot_count_max / 2));
}

}  // namespace waldo::torch_frontend
