#include "frontends/torch/typed_kernels.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>

#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "frontends/torch/forward.h"

namespace waldo::torch_frontend {
namespace {

using at::Scalar;
using at::Tensor;

// Arguments of a call as IValues that own nothing and are not destroyed: the caller's tensors outlive the call.
template <size_t kCount>
class Lent {
 public:
  [[gnu::always_inline]] bool add(const Tensor& tensor) {
    using Pointer = c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
    new (next()) c10::IValue(Tensor(Pointer::reclaim(tensor.unsafeGetTensorImpl())));
    return true;
  }
  // False: one that would have to be owned.
  [[gnu::always_inline]] bool add(const Scalar& scalar) {
    if (scalar.isIntegral(/*includeBool=*/false) && !scalar.isSymbolic()) {
      new (next()) c10::IValue(scalar.toLong());
    } else if (scalar.isFloatingPoint() && !scalar.isSymbolic()) {
      new (next()) c10::IValue(scalar.toDouble());
    } else {
      return false;
    }
    return true;
  }
  const c10::IValue* data() const { return std::launder(reinterpret_cast<const c10::IValue*>(memory_)); }

 private:
  void* next() { return memory_ + sizeof(c10::IValue) * count_++; }

  alignas(c10::IValue) std::byte memory_[sizeof(c10::IValue) * kCount];
  size_t count_ = 0;
};

template <typename... Arguments>
[[gnu::noinline]] Tensor forward_boxed(const Operator& op, const Arguments&... arguments) {
  torch::jit::Stack stack;
  stack.reserve(sizeof...(arguments));
  (stack.emplace_back(arguments), ...);
  forward(op, &stack);
  return std::move(stack.back()).toTensor();
}

template <typename... Arguments>
Tensor make_one(const Operator& op, const Arguments&... arguments) {
  Lent<sizeof...(arguments)> lent;
  Tensor made;
  if ((lent.add(arguments) && ...) && forward_making_one(op, lent.data(), &made)) [[likely]]
    return made;
  return forward_boxed(op, arguments...);
}

template <typename... Arguments>
Tensor& write_in_place(const Operator& op, Tensor& self, const Arguments&... arguments) {
  Lent<1 + sizeof...(arguments)> lent;
  if (!(lent.add(self) && (lent.add(arguments) && ...) && forward_in_place(op, lent.data()))) [[unlikely]]
    forward_boxed(op, self, arguments...);
  return self;
}

template <typename... Arguments>
torch::CppFunction making_one(const Operator* op) {
  return torch::CppFunction([op](const Arguments&... arguments) -> Tensor { return make_one(*op, arguments...); });
}

template <typename... Arguments>
torch::CppFunction writing_in_place(const Operator* op) {
  return torch::CppFunction(
      [op](Tensor& self, const Arguments&... arguments) -> Tensor& { return write_in_place(*op, self, arguments...); });
}

// "TTS>T", "T!T>T!": tensors, numbers, and which is written. Empty: something else is in it.
std::string signature_of(const c10::FunctionSchema& schema) {
  std::string text;
  const auto add = [&text](const c10::Argument& argument) {
    const bool tensor = argument.type()->kind() == c10::TypeKind::TensorType;
    const bool number = argument.type()->kind() == c10::TypeKind::NumberType;
    if (!tensor && !number) return false;
    text += tensor ? "T" : "S";
    const auto* alias = argument.alias_info();
    if (alias != nullptr) text += alias->isWrite() ? "!" : "?";
    return true;
  };
  for (const auto& argument : schema.arguments()) {
    if (!add(argument)) return "";
  }
  text += ">";
  return schema.returns().size() == 1 && add(schema.returns()[0]) ? text : "";
}

}  // namespace

std::optional<torch::CppFunction> make_typed_kernel(const c10::OperatorHandle& handle) {
  using Make = torch::CppFunction (*)(const Operator*);
  static constexpr std::pair<std::string_view, Make> kSignatures[] = {
      {"T>T", making_one<Tensor>},          {"TT>T", making_one<Tensor, Tensor>},
      {"TS>T", making_one<Tensor, Scalar>}, {"TTS>T", making_one<Tensor, Tensor, Scalar>},
      {"T!>T!", writing_in_place<>},        {"T!T>T!", writing_in_place<Tensor>},
      {"T!S>T!", writing_in_place<Scalar>}, {"T!TS>T!", writing_in_place<Tensor, Scalar>},
  };
  const std::string signature = signature_of(handle.schema());
  for (const auto& [text, make] : kSignatures) {
    if (signature == text) return make(new Operator(handle));
  }
  return std::nullopt;
}

}  // namespace waldo::torch_frontend
