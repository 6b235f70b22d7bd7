#include "server/backends/torch/quantized.h"

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/class_type.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/tensor.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "server/backends/torch/operators.h"
#include "wire/own_operators.h"

namespace waldo::torch_backend {
namespace {

using at::Tensor;

constexpr std::array kDTypes = {at::kQInt8, at::kQUInt8, at::kQInt32, at::kQUInt4x2, at::kQUInt2x4};
constexpr int kDepthMax = 16;
constexpr int64_t kElementsMax = int64_t{1} << 40;

bool is_packed(at::ScalarType dtype) { return dtype == at::kQUInt4x2 || dtype == at::kQUInt2x4; }

// --- reading
// -----------------------------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(std::string_view text, c10::ArrayRef<Tensor> tensors, c10::ArrayRef<double> numbers)
      : rest_(text), tensors_(tensors), numbers_(numbers) {
    TORCH_CHECK(!tensors.empty(), "a quantized call without tensors");
    device_ = tensors[0].device();
  }

  c10::OperatorHandle op() {
    const std::string name(until('|')), overload(until('|'));
    const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    TORCH_CHECK_NOT_IMPLEMENTED(handle && is_of_quantized(*handle), "the worker does not run ",
                                full_name(name, overload), " on quantized tensors for a client");
    return *handle;
  }

  // `copied`: the call writes it.
  c10::IValue value(bool copied = false, int depth = 0) {
    TORCH_CHECK(depth < kDepthMax, "a quantized call is too deep");
    switch (take()) {
      case 'N':
        return {};
      case 'U':
        return Tensor();
      case 'T': {
        const Tensor& tensor = tensor_at(integer(';'));
        return copied ? tensor.clone() : tensor;
      }
      case 'Q':
        return per_tensor(copied);
      case 'C':
        return per_channel(copied);
      case 'I':
        return integer(';');
      case 'B':
        return integer(';') != 0;
      case 'F':
        return number_at(integer(';'));
      case 'S': {
        const int64_t size = integer(':');
        TORCH_CHECK(size >= 0 && size <= static_cast<int64_t>(rest_.size()), "a text in a quantized call is cut off");
        std::string text(rest_.substr(0, static_cast<size_t>(size)));
        rest_.remove_prefix(static_cast<size_t>(size));
        return text;
      }
      case 'D':
        return static_cast<int64_t>(dtype_named(until(';')));
      case 'V':
        return device_;
      case '(': {
        std::vector<c10::IValue> elements;
        while (!skipped(')')) elements.push_back(value(false, depth + 1));
        return c10::ivalue::Tuple::create(std::move(elements));
      }
      case '[':
        return list(depth);
      case 'O':
        return object(depth);
      case '{': {
        const int64_t tensors = integer(','), numbers = integer(';');
        TORCH_CHECK(tensors >= 0 && numbers >= 0 && tensors <= kElementsMax && numbers <= kElementsMax,
                    "a quantized call names a tensor that is not there");
        first_tensor_ += tensors;
        first_number_ += numbers;
        c10::IValue inner = value(false, depth + 1);
        TORCH_CHECK(skipped('}'), "a quantized call ends too late");
        first_tensor_ -= tensors;
        first_number_ -= numbers;
        return inner;
      }
      default:
        TORCH_CHECK(false, "a quantized call has an argument of no kind");
    }
  }
  bool at_end() const { return rest_.empty(); }

 private:
  // Those with a kernel for such tensors, but for what gives them another storage, size or view; and a few that take
  // packed weights.
  static bool is_of_quantized(const c10::OperatorHandle& handle) {
    const std::string& name = handle.operator_name().name;
    for (const char* refused :
         {"aten::set_", "aten::resize", "aten::as_strided", "aten::view", "aten::unfold", "aten::_reshape_alias",
          "aten::empty", "aten::_empty", "aten::squeeze", "aten::unsqueeze"}) {
      if (name.starts_with(refused)) return false;
    }
    if (handle.hasKernelForDispatchKey(c10::DispatchKey::QuantizedCPU))
      return name.find("prepack") == std::string::npos;
    for (const char* known : {"aten::quantize_per_", "aten::quantized_lstm", "aten::quantized_gru"}) {
      if (name.starts_with(known)) return true;
    }
    return name.starts_with("quantized::") && name.find("dynamic") != std::string::npos &&
           name.find("make_") == std::string::npos;
  }

  c10::IValue per_tensor(bool copied) {
    const at::ScalarType dtype = dtype_named(until(','));
    const Tensor& integers = tensor_at(integer(','));
    int64_t first = 0;
    const std::vector<int64_t> sizes = sizes_after(&first);
    const double scale = number_at(first), zero_point = number_at(first + 1);
    TORCH_CHECK(zero_point >= std::numeric_limits<int32_t>::min() && zero_point <= std::numeric_limits<int32_t>::max(),
                "a zero point is out of range");
    return built(integers, dtype, sizes,
                 at::make_per_tensor_affine_quantizer(scale, static_cast<int64_t>(zero_point), dtype), copied);
  }
  c10::IValue per_channel(bool copied) {
    const at::ScalarType dtype = dtype_named(until(','));
    const Tensor& integers = tensor_at(integer(','));
    const Tensor &scales = tensor_at(integer(',')), &zero_points = tensor_at(integer(','));
    int64_t axis = 0;
    const std::vector<int64_t> sizes = sizes_after(&axis);
    const at::IntArrayRef of = is_packed(dtype) ? at::IntArrayRef(sizes) : integers.sizes();
    TORCH_CHECK(axis >= 0 && axis < static_cast<int64_t>(of.size()) && scales.dim() == 1 && zero_points.dim() == 1 &&
                    scales.numel() == of[static_cast<size_t>(axis)] && zero_points.numel() == scales.numel() &&
                    at::isFloatingType(scales.scalar_type()),
                "scales and zero points do not fit the channels");
    return built(integers, dtype, sizes, at::make_per_channel_affine_quantizer(scales, zero_points, axis, dtype),
                 copied);
  }

  static Tensor built(const Tensor& given, at::ScalarType dtype, at::IntArrayRef sizes, at::QuantizerPtr quantizer,
                      bool copied) {
    TORCH_CHECK(given.layout() == at::kStrided && given.scalar_type() == c10::toUnderlying(dtype), "the integers of a ",
                dtype, " tensor are not ", given.scalar_type());
    const Tensor integers = copied ? given.clone() : given;
    auto impl = c10::make_intrusive<at::QTensorImpl>(
        c10::Storage(integers.storage()),
        c10::DispatchKeySet(integers.is_cuda() ? c10::DispatchKey::QuantizedCUDA : c10::DispatchKey::QuantizedCPU),
        c10::scalarTypeToTypeMeta(dtype), std::move(quantizer));
    if (!is_packed(dtype)) {
      impl->set_sizes_and_strides(integers.sizes(), integers.strides(), integers.storage_offset());
      return Tensor(std::move(impl));
    }
    int64_t numel = 1;
    for (const int64_t size : sizes) {
      TORCH_CHECK(size >= 0 && size <= kElementsMax && !__builtin_mul_overflow(numel, size, &numel),
                  "no tensor has such sizes");
    }
    const int64_t per_byte = dtype == at::kQUInt4x2 ? 2 : 4;
    TORCH_CHECK(integers.is_contiguous() && integers.storage_offset() == 0 &&
                    (numel + per_byte - 1) / per_byte <= integers.numel(),
                "the bytes of a ", dtype, " tensor are too few");
    impl->set_sizes_contiguous(sizes);
    return Tensor(std::move(impl));
  }

  c10::IValue list(int depth) {
    const char kind = take();
    c10::TypePtr element;
    switch (kind) {
      case 't':
        element = c10::TensorType::get();
        break;
      case 'o':
        element = c10::OptionalType::ofTensor();
        break;
      case 'i':
        element = c10::IntType::get();
        break;
      case 'f':
        element = c10::FloatType::get();
        break;
      case 'b':
        element = c10::BoolType::get();
        break;
      case 's':
        element = c10::StringType::get();
        break;
      case 'c':
        element = class_named(until(';'));
        break;
      default:
        TORCH_CHECK(false, "a quantized call has a list of no kind");
    }
    c10::impl::GenericList elements(element);
    while (!skipped(']')) {
      c10::IValue entry = value(false, depth + 1);
      const bool fits = kind == 't'   ? entry.isTensor()
                        : kind == 'o' ? entry.isTensor() || entry.isNone()
                        : kind == 'i' ? entry.isInt()
                        : kind == 'f' ? entry.isDouble()
                        : kind == 'b' ? entry.isBool()
                        : kind == 's' ? entry.isString()
                                      : entry.isObject() && *entry.toObject()->type() == *element;
      TORCH_CHECK(fits, "a list of a quantized call has elements of another kind");
      elements.push_back(std::move(entry));
    }
    return elements;
  }

  static c10::ClassTypePtr class_named(std::string_view name) {
    TORCH_CHECK(
        name.starts_with("__torch__.torch.classes.quantized.") || name.starts_with("__torch__.torch.classes.rnn."),
        "the worker makes no such object");
    const auto found = torch::getCustomClass(std::string(name));
    TORCH_CHECK_NOT_IMPLEMENTED(found != nullptr, "the worker has no class ", name);
    return found;
  }
  c10::IValue object(int depth) {
    const auto type = class_named(until(';'));
    auto made = c10::ivalue::Object::create(c10::StrongTypePtr(nullptr, type), 1);
    torch::jit::Stack stack{made, value(false, depth + 1)};
    type->getMethod("__setstate__").run(stack);
    return made;
  }

  static at::ScalarType dtype_named(std::string_view name) {
    for (int8_t i = 0; i < static_cast<int8_t>(at::ScalarType::NumOptions); ++i) {
      const auto dtype = static_cast<at::ScalarType>(i);
      if (name == c10::toString(dtype)) return dtype;
    }
    TORCH_CHECK(false, "a quantized call names no dtype");
  }

  char take() {
    TORCH_CHECK(!rest_.empty(), "a quantized call is cut off");
    const char next = rest_.front();
    rest_.remove_prefix(1);
    return next;
  }
  bool skipped(char expected) {
    if (rest_.empty() || rest_.front() != expected) return false;
    rest_.remove_prefix(1);
    return true;
  }
  std::string_view until(char end) {
    const size_t at = rest_.find(end);
    TORCH_CHECK(at != std::string_view::npos, "a quantized call is cut off");
    const std::string_view text = rest_.substr(0, at);
    rest_.remove_prefix(at + 1);
    return text;
  }
  static int64_t integer_of(std::string_view text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    TORCH_CHECK(error == std::errc() && end == text.data() + text.size(),
                "a quantized call has no number where one is");
    return value;
  }
  int64_t integer(char end) { return integer_of(until(end)); }
  // "7;" or "7:2x3;"
  std::vector<int64_t> sizes_after(int64_t* number) {
    std::string_view text = until(';');
    const size_t colon = text.find(':');
    *number = integer_of(text.substr(0, colon));
    std::vector<int64_t> sizes;
    if (colon == std::string_view::npos) return sizes;
    for (text.remove_prefix(colon + 1); !text.empty();) {
      const size_t cross = std::min(text.find('x'), text.size());
      sizes.push_back(integer_of(text.substr(0, cross)));
      text.remove_prefix(std::min(cross + 1, text.size()));
    }
    return sizes;
  }
  const Tensor& tensor_at(int64_t index) const {
    TORCH_CHECK(index >= 0 && index < static_cast<int64_t>(tensors_.size()) - first_tensor_,
                "a quantized call names a tensor that is not there");
    return tensors_[static_cast<size_t>(first_tensor_ + index)];
  }
  double number_at(int64_t index) const {
    TORCH_CHECK(index >= 0 && index < static_cast<int64_t>(numbers_.size()) - first_number_,
                "a quantized call names a number that is not there");
    return numbers_[static_cast<size_t>(first_number_ + index)];
  }

  std::string_view rest_;
  const c10::ArrayRef<Tensor> tensors_;
  const c10::ArrayRef<double> numbers_;
  int64_t first_tensor_ = 0, first_number_ = 0;
  c10::Device device_{c10::DeviceType::CPU};
};

// --- telling
// -----------------------------------------------------------------------------------------------------------

class Telling {
 public:
  explicit Telling(c10::ArrayRef<Tensor> given) : given_(given) {}

  // The integers, in a storage that no argument has.
  Tensor integers_of(const Tensor& quantized) const {
    TORCH_CHECK_NOT_IMPLEMENTED(!is_packed(quantized.scalar_type()), "a result of dtype ", quantized.scalar_type(),
                                " is not available on a Waldo device");
    auto impl = c10::make_intrusive<c10::TensorImpl>(
        c10::Storage(quantized.storage()),
        c10::DispatchKeySet(quantized.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU),
        c10::scalarTypeToTypeMeta(c10::toUnderlying(quantized.scalar_type())));
    impl->set_sizes_and_strides(quantized.sizes(), quantized.strides(), quantized.storage_offset());
    return fresh(Tensor(std::move(impl)));
  }
  Tensor fresh(const Tensor& tensor) const {
    const bool shared =
        std::ranges::any_of(given_, [&](const Tensor& other) { return other.storage().is_alias_of(tensor.storage()); });
    return shared ? tensor.clone() : tensor;
  }

  void value(const c10::IValue& value) {
    if (value.isTensor()) return tensor(value.toTensor());
    if (value.isNone()) return put(wire::kUndefined);
    if (value.isBool()) return put(wire::kBoolValue, value.toBool() ? 1 : 0);
    if (value.isInt()) return put(wire::kIntValue, static_cast<double>(value.toInt()));
    if (value.isDouble()) return put(wire::kFloatValue, value.toDouble());
    TORCH_CHECK_NOT_IMPLEMENTED(value.isTensorList(), "a result of this type cannot be sent from a worker");
    const auto list = value.toTensorVector();
    put(wire::kTensorListOf, static_cast<double>(list.size()));
    for (const Tensor& element : list) tensor(element);
  }
  std::vector<Tensor> all() {
    const auto count = static_cast<int64_t>(numbers_.size() / 4);
    tensors_.push_back(
        at::tensor(numbers_, at::TensorOptions().dtype(at::kDouble)).view({count, 4}).to(given_[0].device()));
    return std::move(tensors_);
  }

 private:
  void tensor(const Tensor& tensor) {
    if (!tensor.defined()) return put(wire::kUndefined);
    if (!tensor.is_quantized()) {
      put(wire::kPlainTensor);
      tensors_.push_back(fresh(tensor));
      return;
    }
    const auto dtype = static_cast<double>(std::ranges::find(kDTypes, tensor.scalar_type()) - kDTypes.begin());
    if (tensor.qscheme() == at::kPerTensorAffine) {
      put(wire::kPerTensor, dtype, tensor.q_scale(), static_cast<double>(tensor.q_zero_point()));
      tensors_.push_back(integers_of(tensor));
      return;
    }
    put(wire::kPerChannel, dtype, static_cast<double>(tensor.q_per_channel_axis()));
    tensors_.push_back(integers_of(tensor));
    tensors_.push_back(fresh(tensor.q_per_channel_scales()));
    tensors_.push_back(fresh(tensor.q_per_channel_zero_points()));
  }
  void put(wire::QuantizedValue kind, double first = 0, double second = 0, double third = 0) {
    numbers_.insert(numbers_.end(), {static_cast<double>(kind), first, second, third});
  }

  const c10::ArrayRef<Tensor> given_;
  std::vector<Tensor> tensors_;
  std::vector<double> numbers_;
};

// --- running
// -----------------------------------------------------------------------------------------------------------

struct Ran {
  torch::jit::Stack written, results;
};

Ran run(const std::string& call, c10::ArrayRef<Tensor> tensors, c10::ArrayRef<double> numbers) {
  Reader reader(call, tensors, numbers);
  const auto handle = reader.op();
  Ran ran;
  for (const auto& argument : handle.schema().arguments()) {
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    ran.results.push_back(reader.value(written));
    if (written && ran.results.back().isTensor()) ran.written.push_back(ran.results.back());
  }
  TORCH_CHECK(reader.at_end(), "a quantized call has more arguments than its operator");
  handle.schema().checkAndNormalizeInputs(ran.results);
  handle.callBoxed(&ran.results);
  if (!ran.written.empty()) {  // those results that are what was written are told once
    const auto& returns = handle.schema().returns();
    torch::jit::Stack others;
    for (size_t i = 0; i < returns.size() && i < ran.results.size(); ++i) {
      if (returns[i].alias_info() == nullptr) others.push_back(ran.results[i]);
    }
    ran.results = std::move(others);
  }
  return ran;
}

std::vector<Tensor> quantized_call(const std::string& call, const c10::List<Tensor>& tensors,
                                   const c10::List<double>& numbers) {
  const std::vector<Tensor> given = tensors.vec();
  const std::vector<double> values = numbers.vec();
  const Ran ran = run(call, given, values);
  Telling telling(given);
  for (const auto& value : ran.written) telling.value(value);
  for (const auto& value : ran.results) telling.value(value);
  return telling.all();
}

// The bytes of a new tensor with several elements in each.
Tensor bytes_of(const Tensor& packed) {
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      c10::Storage(packed.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), c10::scalarTypeToTypeMeta(at::kByte));
  impl->set_sizes_contiguous({static_cast<int64_t>(packed.storage().nbytes())});
  return Tensor(std::move(impl));
}

Tensor quantized_one(const std::string& call, const c10::List<Tensor>& tensors, const c10::List<double>& numbers,
                     double scale, int64_t zero_point) {
  const std::vector<Tensor> given = tensors.vec();
  const std::vector<double> values = numbers.vec();
  const Ran ran = run(call, given, values);
  TORCH_CHECK(ran.written.empty() && ran.results.size() == 1 && ran.results[0].isTensor(),
              "quantized_one is for an operator with one result");
  const Tensor& made = ran.results[0].toTensor();
  Telling telling(given);
  if (!made.is_quantized()) {
    TORCH_CHECK(scale == 0, "the result of a quantized call is not quantized");
    return telling.fresh(made);
  }
  const bool by_channel = made.qscheme() != at::kPerTensorAffine;
  const bool as_told = by_channel ? scale == -1 && made.q_per_channel_axis() == zero_point
                                  : made.q_scale() == scale && made.q_zero_point() == zero_point;
  TORCH_CHECK(as_told, "the result of a quantized call is quantized otherwise than its client knows");
  return is_packed(made.scalar_type()) && made.is_cpu() ? bytes_of(made) : telling.integers_of(made);
}

}  // namespace

void register_quantized() {
  static const auto* const library = [] {
    auto* own = new torch::Library(torch::Library::IMPL, "waldo", std::nullopt, __FILE__, __LINE__);
    own->impl("quantized_call", quantized_call);
    own->impl("quantized_one", quantized_one);
    return own;  // never freed: our libraries are never unloaded
  }();
  static_cast<void>(library);
}

}  // namespace waldo::torch_backend
