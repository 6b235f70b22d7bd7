#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/class_type.h>
#include <ATen/quantized/QTensorImpl.h>
#include <torch/custom_class.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "frontends/torch/kernels_sparse.h"
#include "frontends/torch/quantized.h"
#include "wire/own_operators.h"

namespace waldo::torch_frontend {
namespace {

using at::Tensor;

// Of a call, as the worker reads it.
struct Message {
  std::string text;
  std::vector<Tensor> tensors;
  std::vector<double> numbers;
};

// Packed weights that were sent: their tensors, uploaded.
struct Uploaded {
  c10::weak_intrusive_ptr<c10::ivalue::Object> object;
  Message state;
};
struct UploadedObjects {
  std::mutex mutex;
  std::map<std::pair<const c10::ivalue::Object*, int>, Uploaded> all;  // by device
};
UploadedObjects& uploaded_objects() {
  static auto* instance = new UploadedObjects;  // never destroyed: tensors may not be at the end of the process
  return *instance;
}

class Writer {
 public:
  Writer(const Operator& op, c10::Device device, Message* into) : op_(op), device_(device), message_(*into) {}

  void argument(const c10::IValue& value, ArgumentClass what) {
    if (what == ArgumentClass::kDType && value.isInt()) {
      text("D", at::toString(static_cast<at::ScalarType>(value.toInt())), ";");
    } else {
      any(value);
    }
  }

 private:
  void any(const c10::IValue& value) {
    if (value.isNone()) return text("N");
    if (value.isTensor()) return tensor(value.toTensor());
    if (value.isBool()) return text(value.toBool() ? "B1;" : "B0;");
    if (value.isInt()) return text("I", std::to_string(value.toInt()), ";");
    if (value.isDouble()) return text("F", number(value.toDouble()), ";");
    if (value.isString()) return text("S", std::to_string(value.toStringRef().size()), ":", value.toStringRef());
    if (value.isDevice()) return text("V");
    if (value.isTuple()) {
      text("(");
      for (const auto& element : value.toTupleRef().elements()) any(element);
      return text(")");
    }
    if (value.isObject()) return object(value);
    if (value.isList()) return list(value);
    refuse();
  }

  void list(const c10::IValue& value) {
    const auto& element = *value.toList().elementType();
    text("[", kind_of(element));
    if (element.kind() == c10::TypeKind::ClassType) text(class_name(element), ";");
    for (const auto& entry : value.toListRef()) any(entry);
    text("]");
  }
  const char* kind_of(const c10::Type& element) const {
    switch (element.kind()) {
      case c10::TypeKind::TensorType:
        return "t";
      case c10::TypeKind::OptionalType:
        if (element.castRaw<c10::OptionalType>()->getElementType()->kind() == c10::TypeKind::TensorType) return "o";
        break;
      case c10::TypeKind::IntType:
        return "i";
      case c10::TypeKind::FloatType:
        return "f";
      case c10::TypeKind::BoolType:
        return "b";
      case c10::TypeKind::StringType:
        return "s";
      case c10::TypeKind::ClassType:
        return "c";
      default:
        break;
    }
    refuse();
  }

  std::string class_name(const c10::Type& type) const {
    const auto* known = type.castRaw<c10::ClassType>();
    if (known == nullptr || !known->name()) refuse();
    const std::string name = known->name()->qualifiedName();
    if (!name.starts_with("__torch__.torch.classes.quantized.") && !name.starts_with("__torch__.torch.classes.rnn."))
      refuse();
    return name;
  }

  // Packed weights are sent as they are pickled, and their tensors once.
  void object(const c10::IValue& value) {
    const auto holder = value.toObject();
    const std::string name = class_name(*holder->type());
    auto& uploaded = uploaded_objects();
    Message state;
    {
      const std::scoped_lock lock(uploaded.mutex);
      const auto found = uploaded.all.find({holder.get(), device_.index()});
      if (found != uploaded.all.end() && found->second.object.lock().get() == holder.get()) state = found->second.state;
    }
    if (state.text.empty()) {
      torch::jit::Stack stack{value};
      holder->type()->getMethod("__getstate__").run(stack);
      Writer writer(op_, device_, &state);
      writer.uploads_ = true;
      writer.any(stack.back());
      const std::scoped_lock lock(uploaded.mutex);
      std::erase_if(uploaded.all, [](const auto& entry) { return entry.second.object.expired(); });
      uploaded.all.insert_or_assign({holder.get(), device_.index()},
                                    Uploaded{c10::weak_intrusive_ptr<c10::ivalue::Object>(holder), state});
    }
    text("O", name, ";", "{", std::to_string(message_.tensors.size()), ",", std::to_string(message_.numbers.size()),
         ";", state.text, "}");
    message_.tensors.insert(message_.tensors.end(), state.tensors.begin(), state.tensors.end());
    message_.numbers.insert(message_.numbers.end(), state.numbers.begin(), state.numbers.end());
  }

  void tensor(const Tensor& tensor) {
    if (!tensor.defined()) return text("U");
    if (!tensor.is_quantized()) return text("T", place(tensor), ";");
    const auto quantizer = at::get_qtensorimpl(tensor)->quantizer();
    const char* dtype = at::toString(tensor.scalar_type());
    const Tensor integers = integers_of(tensor);
    std::string sizes;
    if (is_packed(tensor.scalar_type())) {
      TORCH_CHECK_NOT_IMPLEMENTED(tensor.is_contiguous() && tensor.storage_offset() == 0, op_.name(), ": a ",
                                  tensor.scalar_type(), " tensor must be contiguous on a Waldo device");
      for (const int64_t size : tensor.sizes()) sizes += (sizes.empty() ? ":" : "x") + std::to_string(size);
    }
    if (quantizer->qscheme() == at::kPerTensorAffine) {
      const auto& affine = static_cast<const at::PerTensorAffineQuantizer&>(*quantizer);
      const std::string first = number(affine.scale());
      static_cast<void>(number(static_cast<double>(affine.zero_point())));
      return text("Q", dtype, ",", place(integers), ",", first, sizes, ";");
    }
    TORCH_CHECK_NOT_IMPLEMENTED(
        quantizer->qscheme() == at::kPerChannelAffine || quantizer->qscheme() == at::kPerChannelAffineFloatQParams,
        op_.name(), ": a tensor quantized by ", at::toString(quantizer->qscheme()),
        " cannot be sent to a Waldo device");
    const auto& affine = static_cast<const at::PerChannelAffineQuantizer&>(*quantizer);
    const std::string at_integers = place(integers);
    const bool uploads = std::exchange(uploads_, true);  // of a quantizer, wherever they are
    const std::string scales = place(affine.scales()), zero_points = place(affine.zero_points());
    uploads_ = uploads;
    text("C", dtype, ",", at_integers, ",", scales, ",", zero_points, ",", std::to_string(affine.axis()), sizes, ";");
  }

  std::string place(const Tensor& given) {
    Tensor tensor = given;
    if (!tensor.is_cuda()) {
      TORCH_CHECK(uploads_ || tensor.dim() == 0,
                  "Expected all tensors to be on the same device, but found at least two devices, ", device_.str(),
                  " and ", tensor.device().str(), "!");
      tensor = tensor.to(device_);
    }
    TORCH_CHECK(tensor.device() == device_,
                "Expected all tensors to be on the same device, but found at least two devices, ", device_.str(),
                " and ", tensor.device().str(), "!");
    message_.tensors.push_back(tensor);
    return std::to_string(message_.tensors.size() - 1);
  }
  std::string number(double value) {
    message_.numbers.push_back(value);
    return std::to_string(message_.numbers.size() - 1);
  }

  template <typename... Parts>
  void text(const Parts&... parts) {
    ((message_.text += parts), ...);
  }
  [[noreturn]] void refuse() const {
    TORCH_CHECK_NOT_IMPLEMENTED(false, op_.name(),
                                " is not available on a Waldo device for quantized tensors: an argument of this type "
                                "cannot be sent");
    __builtin_unreachable();
  }

  const Operator& op_;
  const c10::Device device_;
  Message& message_;
  bool uploads_ = false;
};

// The first far tensor's; an operator that has none is not called here.
c10::Device device_among(const Operator& op, const c10::IValue* arguments) {
  for (size_t i = 0; i < op.arguments.size(); ++i) {
    if (arguments[i].isTensor() && arguments[i].toTensor().defined() && arguments[i].toTensor().is_cuda())
      return arguments[i].toTensor().device();
    if (!arguments[i].isList()) continue;
    for (const auto& element : arguments[i].toListRef()) {
      if (element.isTensor() && element.toTensor().defined() && element.toTensor().is_cuda())
        return element.toTensor().device();
    }
  }
  TORCH_CHECK(false, op.name(), ": no tensor is on a device");
}

Message message_of(const Operator& op, const c10::IValue* arguments) {
  Message message;
  const auto& name = op.handle.operator_name();
  message.text = name.name + "|" + name.overload_name + "|";
  Writer writer(op, device_among(op, arguments), &message);
  for (size_t i = 0; i < op.arguments.size(); ++i) writer.argument(arguments[i], op.arguments[i]);
  return message;
}

// Values as the worker tells them: four numbers each, and their tensors one after the other.
class Results {
 public:
  explicit Results(std::vector<Tensor> all) : tensors_(std::move(all)) {
    TORCH_CHECK(!tensors_.empty() && tensors_.back().scalar_type() == at::kDouble && tensors_.back().numel() % 4 == 0,
                "the worker's report of a quantized call has no values");
    meta_ = tensors_.back().cpu().contiguous();
    tensors_.pop_back();
  }

  c10::IValue next() {
    TORCH_CHECK(at_ + 4 <= meta_.numel(), "the worker's report of a quantized call is too short");
    const double* numbers = meta_.const_data_ptr<double>() + at_;
    at_ += 4;
    switch (static_cast<int64_t>(numbers[0])) {
      case wire::kUndefined:
        return Tensor();
      case wire::kPlainTensor:
        return take();
      case wire::kPerTensor: {
        const auto dtype = dtype_at(numbers[1]);
        return quantized_over(
            take(), dtype, at::make_per_tensor_affine_quantizer(numbers[2], static_cast<int64_t>(numbers[3]), dtype));
      }
      case wire::kPerChannel: {
        const auto dtype = dtype_at(numbers[1]);
        const Tensor integers = take(), scales = take(), zero_points = take();
        return quantized_over(
            integers, dtype,
            at::make_per_channel_affine_quantizer(scales, zero_points, static_cast<int64_t>(numbers[2]), dtype));
      }
      case wire::kIntValue:
        return static_cast<int64_t>(numbers[1]);
      case wire::kFloatValue:
        return numbers[1];
      case wire::kBoolValue:
        return numbers[1] != 0;
      case wire::kTensorListOf: {
        c10::List<Tensor> list;
        for (auto count = static_cast<int64_t>(numbers[1]); count > 0; --count) list.push_back(next().toTensor());
        return list;
      }
      default:
        TORCH_CHECK(false, "the worker's report of a quantized call names no kind of value");
    }
  }

 private:
  Tensor take() {
    TORCH_CHECK(taken_ < tensors_.size(), "the worker's report of a quantized call has too few tensors");
    return tensors_[taken_++];
  }
  static at::ScalarType dtype_at(double number) {
    constexpr at::ScalarType kDTypes[] = {at::kQInt8, at::kQUInt8, at::kQInt32, at::kQUInt4x2, at::kQUInt2x4};
    static_assert(std::size(kDTypes) == std::size(wire::kQuantizedDTypes));
    TORCH_CHECK(number >= 0 && number < static_cast<double>(std::size(kDTypes)), "the worker named an unknown dtype");
    return kDTypes[static_cast<size_t>(number)];
  }

  std::vector<Tensor> tensors_;
  Tensor meta_;
  int64_t at_ = 0;
  size_t taken_ = 0;
};

// `target`, an argument, becomes what the worker wrote.
void write_back(const Tensor& target, const Tensor& written) {
  Tensor to = target.is_quantized() ? integers_of(target) : target;
  const Tensor from = written.is_quantized() ? integers_of(written) : written;
  TORCH_CHECK(target.scalar_type() == written.scalar_type(), "a quantized call changed the dtype of what it wrote");
  if (to.sizes() != from.sizes()) {
    to.resize_(from.sizes());
    target.unsafeGetTensorImpl()->set_sizes_and_strides(to.sizes(), to.strides(), to.storage_offset());
  }
  to.copy_(from);
  if (target.is_quantized()) at::set_quantizer_(target, at::get_qtensorimpl(written)->quantizer());
}

// Which argument a result is, by the schema's alias sets; -1 for a new one.
int argument_of(const c10::FunctionSchema& schema, const c10::AliasInfo& result) {
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias != nullptr && alias->isWrite() && alias->beforeSets() == result.beforeSets()) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

Tensor integers_of(const Tensor& quantized) {
  const auto dtype = c10::toUnderlying(quantized.scalar_type());
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      c10::Storage(quantized.storage()),
      c10::DispatchKeySet(quantized.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU),
      c10::scalarTypeToTypeMeta(dtype));
  if (is_packed(quantized.scalar_type())) {
    impl->set_sizes_contiguous({static_cast<int64_t>(quantized.storage().nbytes())});
  } else {
    impl->set_sizes_and_strides(quantized.sizes(), quantized.strides(), quantized.storage_offset());
  }
  return Tensor(std::move(impl));
}

Tensor quantized_over(const Tensor& integers, at::ScalarType dtype, at::QuantizerPtr quantizer) {
  auto impl = c10::make_intrusive<at::QTensorImpl>(
      c10::Storage(integers.storage()),
      c10::DispatchKeySet(integers.is_cuda() ? c10::DispatchKey::QuantizedCUDA : c10::DispatchKey::QuantizedCPU),
      c10::scalarTypeToTypeMeta(dtype), std::move(quantizer));
  impl->set_sizes_and_strides(integers.sizes(), integers.strides(), integers.storage_offset());
  return Tensor(std::move(impl));
}

Tensor call_known(const Operator& op, const torch::jit::Stack& arguments, const KnownResult& known) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const Message message = message_of(op, arguments.data());
  return own<Tensor>("quantized_one", message.text, message.tensors, message.numbers, known.scale, known.zero_point);
}

void call_quantized(const Operator& op, torch::jit::Stack* stack) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto& schema = op.handle.schema();
  const size_t count = op.arguments.size();
  const c10::IValue* arguments = stack->data() + stack->size() - count;
  const Message message = message_of(op, arguments);
  c10::SmallVector<c10::IValue, 4> values;
  if (const auto known = known_result(op, arguments)) {
    const Tensor made =
        own<Tensor>("quantized_one", message.text, message.tensors, message.numbers, known->scale, known->zero_point);
    values.emplace_back(known->scale == 0 ? made
                                          : quantized_over(made, known->dtype,
                                                           at::make_per_tensor_affine_quantizer(
                                                               known->scale, known->zero_point, known->dtype)));
  } else {
    Results results(own<std::vector<Tensor>>("quantized_call", message.text, message.tensors, message.numbers));
    for (size_t i = 0; i < count; ++i) {
      if (op.written[i] && arguments[i].isTensor()) write_back(arguments[i].toTensor(), results.next().toTensor());
    }
    for (const auto& returned : schema.returns()) {
      if (returned.alias_info() == nullptr) {
        values.push_back(results.next());
        continue;
      }
      const int argument = argument_of(schema, *returned.alias_info());
      TORCH_CHECK_NOT_IMPLEMENTED(argument >= 0, op.name(),
                                  " is not available on a Waldo device for quantized tensors: it gives a view");
      values.push_back(arguments[argument]);
    }
  }
  torch::jit::drop(*stack, count);
  for (auto& value : values) stack->push_back(std::move(value));
}

}  // namespace waldo::torch_frontend
