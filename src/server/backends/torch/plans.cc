#include "server/backends/torch/plans.h"

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>
#include <c10/core/MemoryFormat.h>
#include <fmt/format.h>

#include <array>

#include "server/backends/torch/errors.h"
#include "server/backends/torch/operators.h"

namespace waldo::torch_backend {
namespace {

using c10::TypeKind;
using wire::ArgumentKind;
using wire::OutputKind;
using wire::ScalarTag;
using Kind = Step::Kind;

Status invalid(std::string text) { return Status(StatusKind::kInvalid, std::move(text)); }

constexpr uint32_t kCpuScalarBytes = 16;

uint32_t bytes_of(ScalarTag tag) { return tag == ScalarTag::kComplex ? 16 : 8; }

const c10::Type& without_optional(const c10::Type& type) {
  return type.kind() == TypeKind::OptionalType ? *type.castRaw<c10::OptionalType>()->getElementType() : type;
}

bool is_list_of(const c10::Type& type, TypeKind element) {
  return type.kind() == TypeKind::ListType && type.castRaw<c10::ListType>()->getElementType()->kind() == element;
}

bool is_optional_tensor_list(const c10::Type& type) {
  if (!is_list_of(type, TypeKind::OptionalType)) return false;
  const auto& element = *type.castRaw<c10::ListType>()->getElementType();
  return without_optional(element).kind() == TypeKind::TensorType;
}

// Whether the operator can take an argument of that kind where its schema says `formal`. Guards unboxing, which
// trusts the types on the stack.
bool fits(ArgumentKind kind, const c10::Argument& formal) {
  if (kind == ArgumentKind::kNone) {
    return formal.type()->kind() == TypeKind::OptionalType || formal.type()->kind() == TypeKind::TensorType;
  }
  const c10::Type& real = without_optional(*formal.real_type());
  switch (real.kind()) {  // these three hide behind int
    case TypeKind::ScalarTypeType:
      return kind == ArgumentKind::kDType;
    case TypeKind::LayoutType:
      return kind == ArgumentKind::kLayout;
    case TypeKind::MemoryFormatType:
      return kind == ArgumentKind::kMemoryFormat;
    default:
      break;
  }
  const c10::Type& type = without_optional(*formal.type());
  switch (kind) {
    case ArgumentKind::kTensor:
    case ArgumentKind::kCpuScalar:
    case ArgumentKind::kCpuTensor:
      return type.kind() == TypeKind::TensorType;
    case ArgumentKind::kTensorList:
      return is_list_of(type, TypeKind::TensorType) || is_optional_tensor_list(type);
    case ArgumentKind::kScalar:
      return type.kind() == TypeKind::NumberType;
    case ArgumentKind::kInt:
      return type.kind() == TypeKind::IntType || type.kind() == TypeKind::SymIntType;
    case ArgumentKind::kFloat:
      return type.kind() == TypeKind::FloatType || type.kind() == TypeKind::SymFloatType;
    case ArgumentKind::kBool:
      return type.kind() == TypeKind::BoolType || type.kind() == TypeKind::SymBoolType;
    case ArgumentKind::kString:
      return type.kind() == TypeKind::StringType;
    case ArgumentKind::kIntList:
      return is_list_of(type, TypeKind::IntType) || is_list_of(type, TypeKind::SymIntType);
    case ArgumentKind::kFloatList:
      return is_list_of(type, TypeKind::FloatType);
    case ArgumentKind::kBoolList:
      return is_list_of(type, TypeKind::BoolType);
    case ArgumentKind::kScalarList:
      return is_list_of(type, TypeKind::NumberType);
    case ArgumentKind::kStringList:
      return is_list_of(type, TypeKind::StringType);
    case ArgumentKind::kDevice:
      return type.kind() == TypeKind::DeviceObjType;
    case ArgumentKind::kGenerator:
      return type.kind() == TypeKind::GeneratorType;
    default:
      return false;
  }
}

// Reads one plan body. The parts that only the body's own sense needs come first (they run for unusable plans too).
class Preparation {
 public:
  Preparation(const wire::PlanBody& body, uint16_t reads, uint16_t creates, GeometryTable& geometries,
              const Generators& generators, const Device& device, uint16_t queue_count)
      : body_(body), geometries_(geometries), generators_(generators), device_(device), queue_count_(queue_count) {
    plan_.reads = reads;
    plan_.creates = creates;
    plan_.name = full_name(body.op, body.overload);
  }

  Result<Plan> run() {
    for (const wire::Argument& argument : body_.arguments) WALDO_TRY(add_argument(argument));
    created_.resize(plan_.creates, false);
    for (const wire::Output& output : body_.outputs) {
      Result<OutputPlan> laid = lay_out(output, /*depth=*/0);
      if (!laid.ok()) return laid.status().with_context(plan_.name);
      plan_.outputs.push_back(std::move(laid).value());
    }
    plan_.scalar_bytes = at_;
    plan_.unusable = bind_operator();
    return std::move(plan_);
  }

 private:
  Status add_argument(const wire::Argument& argument) {
    Step step;
    const Status status = add(argument, step);
    if (!status.ok()) return status.with_context(fmt::format("{}: argument {}", plan_.name, plan_.steps.size()));
    plan_.steps.push_back(std::move(step));
    return Status();
  }

  Status add(const wire::Argument& argument, Step& step) {
    step.at = at_;
    switch (argument.kind) {
      case ArgumentKind::kNone:
        return Status();
      case ArgumentKind::kTensor:
      case ArgumentKind::kCpuScalar:
      case ArgumentKind::kCpuTensor:
        if (argument.tensors.size() != 1) return invalid("not one tensor");
        step.kind = Kind::kTensor;
        return add_tensors(argument, step);
      case ArgumentKind::kTensorList:
        step.kind = Kind::kTensorList;
        return add_tensors(argument, step);
      case ArgumentKind::kScalar:
        if (argument.scalar_tags.size() != 1) return invalid("not one scalar");
        if (argument.dynamic) return add_dynamic_scalars(argument, step, Kind::kScalar);
        return add_constant_scalar(argument, step);
      case ArgumentKind::kScalarList:
        if (argument.dynamic) return add_dynamic_scalars(argument, step, Kind::kScalarList);
        return add_constant_scalar_list(argument, step);
      case ArgumentKind::kInt:
        return add_number(argument, step, Kind::kInt);
      case ArgumentKind::kFloat:
        return add_number(argument, step, Kind::kFloat);
      case ArgumentKind::kIntList:
        return add_number_list(argument, step, Kind::kIntList);
      case ArgumentKind::kFloatList:
        return add_number_list(argument, step, Kind::kFloatList);
      case ArgumentKind::kBool:
        WALDO_TRY(one_int(argument));
        step.constant = argument.ints[0] != 0;
        return Status();
      case ArgumentKind::kBoolList: {
        c10::List<bool> list;
        for (const int64_t value : argument.ints) list.push_back(value != 0);
        step.constant = std::move(list);
        return Status();
      }
      case ArgumentKind::kString:
        if (argument.strings.size() != 1) return invalid("not one string");
        step.constant = argument.strings[0];
        return Status();
      case ArgumentKind::kStringList: {
        c10::List<std::string> list;
        for (const std::string& text : argument.strings) list.push_back(text);
        step.constant = std::move(list);
        return Status();
      }
      case ArgumentKind::kDType:
        WALDO_TRY(one_int(argument));
        if (argument.ints[0] < 0 || argument.ints[0] >= static_cast<int64_t>(wire::DType::kCount)) {
          return invalid("an unknown dtype");
        }
        step.constant = scalar_type_of(static_cast<wire::DType>(argument.ints[0]));
        return Status();
      case ArgumentKind::kLayout:
        WALDO_TRY(one_int(argument));
        if (argument.ints[0] != 0) unsupported_ = "a layout other than strided";
        step.constant = c10::Layout::Strided;
        return Status();
      case ArgumentKind::kMemoryFormat:
        return add_memory_format(argument, step);
      case ArgumentKind::kDevice:
        WALDO_TRY(one_int(argument));
        if (argument.ints[0] < -1 || argument.ints[0] >= queue_count_) return invalid("an unknown device");
        step.constant = argument.ints[0] < 0 || device_.is_cpu()
                            ? c10::Device(c10::kCPU)
                            : c10::Device(device_.device().type(), static_cast<c10::DeviceIndex>(argument.ints[0]));
        return Status();
      case ArgumentKind::kGenerator:
        WALDO_TRY(one_int(argument));
        if (argument.ints[0] < 0 || argument.ints[0] > UINT32_MAX) return invalid("an unknown generator");
        step.kind = Kind::kGenerator;
        step.first = static_cast<uint32_t>(argument.ints[0]);
        return Status();
    }
    return invalid("an unknown kind of argument");
  }

  Status add_tensors(const wire::Argument& argument, Step& step) {
    step.first = static_cast<uint32_t>(plan_.tensors.size());
    step.count = static_cast<uint32_t>(argument.tensors.size());
    const bool by_value = argument.kind == ArgumentKind::kCpuScalar;
    const bool list = argument.kind == ArgumentKind::kTensorList;
    if (!by_value && argument.slots.size() != argument.tensors.size())
      return invalid("tensors and slots differ in count");
    for (size_t i = 0; i < argument.tensors.size(); ++i) {
      const wire::TensorMeta& meta = argument.tensors[i];
      TensorUse use;
      if (!by_value) use.slot = argument.slots[i];
      if (list && use.slot == wire::kNoSlot) {
        use.none = true;
        plan_.tensors.push_back(use);
        continue;
      }
      if (!by_value && use.slot >= plan_.reads) return invalid("a slot that the call does not read");
      Result<const Geometry*> geometry = geometries_.intern(meta);
      if (!geometry.ok()) return geometry.status();
      use.geometry = geometry.value();
      use.to_cpu = argument.kind == ArgumentKind::kCpuTensor;
      if (by_value) {
        if (!meta.sizes.empty() || meta.conj || meta.neg) return invalid("a CPU scalar has no sizes");
        use.by_value = true;
        use.slot = static_cast<uint16_t>(plan_.values.size());
        plan_.values.emplace_back();
        WALDO_TRY(take_scalars(kCpuScalarBytes, use.offset));
      } else if (meta.dynamic_offset) {
        use.dynamic_offset = true;
        WALDO_TRY(take_scalars(8, use.offset));
      } else {
        use.offset = meta.offset;
        if (!use.geometry->bytes_at(use.offset).has_value()) return invalid("a storage offset out of range");
      }
      if (!use.none) flattened_.push_back(static_cast<uint32_t>(plan_.tensors.size()));
      plan_.tensors.push_back(use);
    }
    return Status();
  }

  Status add_dynamic_scalars(const wire::Argument& argument, Step& step, Kind kind) {
    step.kind = kind;
    step.tags = argument.scalar_tags;
    for (const ScalarTag tag : step.tags) {
      if (tag > ScalarTag::kComplex) return invalid("an unknown kind of scalar");
      int64_t at = 0;
      WALDO_TRY(take_scalars(bytes_of(tag), at));
    }
    return Status();
  }

  Status constant_scalar(const wire::Argument& argument, ScalarTag tag, size_t& ints, size_t& floats, at::Scalar& out) {
    switch (tag) {
      case ScalarTag::kInt:
      case ScalarTag::kBool:
        if (ints >= argument.ints.size()) return invalid("a scalar without its value");
        out = tag == ScalarTag::kBool ? at::Scalar(argument.ints[ints] != 0) : at::Scalar(argument.ints[ints]);
        ++ints;
        return Status();
      case ScalarTag::kFloat:
        if (floats >= argument.floats.size()) return invalid("a scalar without its value");
        out = argument.floats[floats++];
        return Status();
      case ScalarTag::kComplex:
        if (floats + 1 >= argument.floats.size()) return invalid("a scalar without its value");
        out = c10::complex<double>(argument.floats[floats], argument.floats[floats + 1]);
        floats += 2;
        return Status();
    }
    return invalid("an unknown kind of scalar");
  }

  Status add_constant_scalar(const wire::Argument& argument, Step& step) {
    size_t ints = 0, floats = 0;
    at::Scalar value;
    WALDO_TRY(constant_scalar(argument, argument.scalar_tags[0], ints, floats, value));
    step.constant = value;
    return Status();
  }

  Status add_constant_scalar_list(const wire::Argument& argument, Step& step) {
    size_t ints = 0, floats = 0;
    c10::List<at::Scalar> list;
    for (const ScalarTag tag : argument.scalar_tags) {
      at::Scalar value;
      WALDO_TRY(constant_scalar(argument, tag, ints, floats, value));
      list.push_back(value);
    }
    step.constant = std::move(list);
    return Status();
  }

  Status add_number(const wire::Argument& argument, Step& step, Kind kind) {
    if (argument.dynamic) {
      step.kind = kind;
      int64_t at = 0;
      return take_scalars(8, at);
    }
    if (kind == Kind::kInt) {
      WALDO_TRY(one_int(argument));
      step.constant = argument.ints[0];
    } else {
      if (argument.floats.size() != 1) return invalid("not one number");
      step.constant = argument.floats[0];
    }
    return Status();
  }

  Status add_number_list(const wire::Argument& argument, Step& step, Kind kind) {
    if (argument.dynamic) {
      if (argument.count > limits::plan_list_count_max) return invalid("too long a list");
      step.kind = kind;
      step.count = argument.count;
      int64_t at = 0;
      return take_scalars(uint64_t{8} * argument.count, at);
    }
    if (kind == Kind::kIntList) {
      c10::List<int64_t> list;
      for (const int64_t value : argument.ints) list.push_back(value);
      step.constant = std::move(list);
    } else {
      c10::List<double> list;
      for (const double value : argument.floats) list.push_back(value);
      step.constant = std::move(list);
    }
    return Status();
  }

  Status add_memory_format(const wire::Argument& argument, Step& step) {
    constexpr std::array kFormats = {c10::MemoryFormat::Contiguous, c10::MemoryFormat::Preserve,
                                     c10::MemoryFormat::ChannelsLast, c10::MemoryFormat::ChannelsLast3d};
    WALDO_TRY(one_int(argument));
    if (argument.ints[0] < 0 || argument.ints[0] >= static_cast<int64_t>(kFormats.size())) {
      return invalid("an unknown memory format");
    }
    step.constant = kFormats[static_cast<size_t>(argument.ints[0])];
    return Status();
  }

  static Status one_int(const wire::Argument& argument) {
    return argument.ints.size() == 1 ? Status() : invalid("not one number");
  }

  Status take_scalars(uint64_t bytes, int64_t& at) {
    if (bytes > limits::call_scalar_bytes_max - at_) return invalid("too many scalars");
    at = at_;
    at_ += static_cast<uint32_t>(bytes);
    return Status();
  }

  Result<OutputPlan> lay_out(const wire::Output& output, int depth) {
    OutputPlan laid;
    laid.kind = output.kind;
    switch (output.kind) {
      case OutputKind::kNone:
        return laid;
      case OutputKind::kInt:
      case OutputKind::kBool:
      case OutputKind::kFloat:
        laid.number = output.number;
        laid.integer = output.integer;
        return laid;
      case OutputKind::kArgument:
        if (output.tensor_index >= flattened_.size()) return invalid("an output that is no argument");
        laid.tensor_index = flattened_[output.tensor_index];
        return laid;
      case OutputKind::kViewOf:
      case OutputKind::kNew:
      case OutputKind::kCpuNew: {
        Result<const Geometry*> geometry = geometries_.intern(output.tensor);
        if (!geometry.ok()) return geometry.status();
        laid.geometry = geometry.value();
        laid.offset = output.tensor.offset;
        laid.slot = output.slot;
        laid.storage_bytes = output.storage_bytes;
        const auto bytes = laid.geometry->bytes_at(laid.offset);
        if (!bytes.has_value()) return invalid("an output's storage offset is out of range");
        if (output.kind == OutputKind::kViewOf) {
          if (output.slot >= plan_.reads) return invalid("a view of a slot that the call does not read");
          return laid;
        }
        if (output.slot < plan_.reads || output.slot >= plan_.reads + plan_.creates) {
          return invalid("a new output in a slot that the call does not create");
        }
        if (created_[output.slot - plan_.reads]) return invalid("two outputs in one slot");
        created_[output.slot - plan_.reads] = true;
        if (laid.storage_bytes > limits::storage_bytes_max || laid.storage_bytes < *bytes) {
          return invalid("an output does not fit its storage");
        }
        plan_.new_bytes += laid.storage_bytes;
        return laid;
      }
      case OutputKind::kList:
        if (depth > 0) return invalid("a list of lists");
        for (const wire::Output& element : output.list) {
          Result<OutputPlan> inner = lay_out(element, depth + 1);
          if (!inner.ok()) return inner.status();
          laid.list.push_back(std::move(inner).value());
        }
        return laid;
    }
    return invalid("an unknown kind of output");
  }

  Status unsupported(std::string text) const {
    StatusDetail detail;
    detail.error_class = static_cast<uint16_t>(wire::ErrorClass::kNotImplemented);
    detail.op = plan_.name;
    return Status(StatusKind::kUnsupported, fmt::format("{}: {}", plan_.name, text), std::move(detail));
  }

  // Joins the arguments to the operator's schema. Not ok: the plan is unusable, and why.
  Status bind_operator() {
    Result<c10::OperatorHandle> handle = find_operator(body_.op, body_.overload, body_.schema_hash);
    if (!handle.ok()) return handle.status();
    plan_.handle = handle.value();
    if (!unsupported_.empty()) return unsupported(unsupported_);

    const c10::FunctionSchema& schema = plan_.handle->schema();
    const std::vector<c10::Argument>& formals = schema.arguments();
    if (formals.size() != plan_.steps.size()) {
      return unsupported(fmt::format("takes {} arguments, not {}", formals.size(), plan_.steps.size()));
    }
    bool takes_generator = false, plain = false, odd = false;
    for (size_t i = 0; i < formals.size(); ++i) {
      const wire::Argument& argument = body_.arguments[i];
      Step& step = plan_.steps[i];
      if (!fits(argument.kind, formals[i])) {
        return unsupported(
            fmt::format("argument '{}' cannot be of kind {}", formals[i].name(), static_cast<int>(argument.kind)));
      }
      step.written = formals[i].alias_info() != nullptr && formals[i].alias_info()->isWrite();
      step.out = formals[i].is_out();
      const c10::Type& type = without_optional(*formals[i].type());
      if (argument.kind == ArgumentKind::kNone && formals[i].type()->kind() == TypeKind::TensorType) {
        step.constant = at::Tensor();  // how an absent gradient reaches a backward
      }
      if (step.kind == Kind::kTensorList) {
        if (is_optional_tensor_list(type)) step.kind = Kind::kOptionalTensorList;
        for (uint32_t t = step.first; t < step.first + step.count; ++t) {
          if (plan_.tensors[t].none && step.kind == Kind::kTensorList) return unsupported("None in a list of tensors");
        }
      }
      if (step.kind == Kind::kTensor && step.written && plan_.tensors[step.first].by_value) {
        return unsupported("writes into a number");
      }
      if (type.kind() == TypeKind::GeneratorType) {
        takes_generator = true;
        if (argument.kind == ArgumentKind::kNone && generators_.must_hand_over()) {
          step.kind = Kind::kGenerator;
          step.first = 0;
        }
      }
    }
    for (const TensorUse& use : plan_.tensors) {
      if (use.none) continue;
      plain = plain || !(use.by_value || use.to_cpu);
      odd = odd || use.geometry->conj || use.geometry->neg;
    }
    // Tensors of the device, none of them lazily conjugated: the dispatcher would come to the same key every time.
    plan_.plain_keys = plain && !odd && !plan_.handle->hasKernelForDispatchKey(c10::DispatchKey::BackendSelect);
    plan_.keys = device_.new_tensor_keys();
    plan_.collective = plan_.name.starts_with("waldo::c10d_");
    if (device_.is_cpu()) {
      const bool seeded = plan_.handle->hasTag(at::Tag::nondeterministic_seeded);
      plan_.random = seeded && (!takes_generator || !generators_.must_hand_over()) && generators_.needs_swap();
    }
    return Status();
  }

  const wire::PlanBody& body_;
  GeometryTable& geometries_;
  const Generators& generators_;
  const Device& device_;
  const uint16_t queue_count_;
  Plan plan_;
  uint32_t at_ = 0;                  // scalars taken so far
  std::vector<uint32_t> flattened_;  // tensors that are there, as indices into plan_.tensors
  std::vector<bool> created_;
  std::string unsupported_;
};

}  // namespace

Result<Plan> prepare(const wire::PlanBody& body, uint16_t reads, uint16_t creates, GeometryTable& geometries,
                     const Generators& generators, const Device& device, uint16_t queue_count) {
  return Preparation(body, reads, creates, geometries, generators, device, queue_count).run();
}

}  // namespace waldo::torch_backend
