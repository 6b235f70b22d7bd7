#include "frontends/torch/takeover.h"

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "frontends/torch/op_table.h"

namespace waldo::torch_frontend {
namespace {

using c10::DispatchKey;

// The kinds of tensors on `cuda` that have kernels of their own.
constexpr std::array kKeys = {DispatchKey::CUDA, DispatchKey::SparseCUDA, DispatchKey::SparseCsrCUDA,
                              DispatchKey::NestedTensorCUDA, DispatchKey::QuantizedCUDA};

struct Before {
  std::array<bool, kKeys.size()> direct{};  // a kernel for just this key: libtorch_cpu's
  std::array<std::optional<c10::SafeKernelFunction>, kKeys.size()> composite;
  std::optional<c10::SafeKernelFunction> autograd;  // where that is the composite too
};

struct Kernels {
  bool noted = false;
  std::unordered_map<c10::OperatorName, Before> before;
  std::map<std::pair<std::string, DispatchKey>, std::unique_ptr<torch::Library>> libraries;
};
Kernels& kernels() {
  static auto* all = new Kernels;  // never destroyed: what it registered must stay
  return *all;
}

using Visit = std::function<void(const c10::OperatorHandle&, const Before*)>;
void each_operator(const Visit& visit) {
  auto& dispatcher = c10::Dispatcher::singleton();
  const auto& before = kernels().before;
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto handle = dispatcher.findSchema(name);
    if (!handle) continue;
    const auto found = before.find(name);
    visit(*handle, found == before.end() ? nullptr : &found->second);
  }
}

// Where a kernel comes from is in the text that torch::Library keeps with it.
std::string origin(const c10::OperatorHandle& handle, DispatchKey key) {
  return handle.getComputedKernelForDispatchKey(key).debug();
}
bool is_ours(const std::string& origin) { return origin.find("frontends/torch/") != std::string::npos; }
// What `import torch` registers from Python on top: decompositions into other operators, no code for a GPU.
bool is_python(const std::string& origin) { return origin.find(".py") != std::string::npos; }

bool is_foreign(const c10::OperatorHandle& handle, const Before* before, size_t key) {
  if (!handle.hasKernelForDispatchKey(kKeys[key])) return false;
  if (before != nullptr && before->direct[key]) return false;
  const std::string from = origin(handle, kKeys[key]);
  return !is_ours(from) && !is_python(from);
}

torch::Library& library_of(const std::string& name_space, DispatchKey key) {
  auto& library = kernels().libraries[{name_space, key}];
  if (!library) library = std::make_unique<torch::Library>(torch::Library::IMPL, name_space, key, __FILE__, __LINE__);
  return *library;
}

class Composite final : public c10::OperatorKernel {
 public:
  explicit Composite(c10::SafeKernelFunction kernel) : kernel_(std::move(kernel)) {}
  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    kernel_.callBoxed(op, keys, stack);
  }

 private:
  const c10::SafeKernelFunction kernel_;
};

class Refusal final : public c10::OperatorKernel {
 public:
  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
    TORCH_CHECK_NOT_IMPLEMENTED(false, toString(op.operator_name()),
                                " is not available on a Waldo device: only a GPU in this machine has it");
  }
};

template <typename Functor, typename... Arguments>
void put(const c10::OperatorHandle& handle, DispatchKey key, Arguments&&... arguments) {
  const auto& name = handle.operator_name();
  const size_t colons = name.name.find("::");
  std::string own = name.name.substr(colons + 2);
  if (!name.overload_name.empty()) own += "." + name.overload_name;
  library_of(name.name.substr(0, colons), key)
      .impl(own.c_str(), torch::CppFunction::makeFromBoxedKernel(c10::BoxedKernel::makeFromFunctor(
                             std::make_unique<Functor>(std::forward<Arguments>(arguments)...))));
}

}  // namespace

void note_kernels_before_cuda() {
  kernels().noted = true;
  std::unordered_map<c10::OperatorName, Before> noted;
  each_operator([&](const c10::OperatorHandle& handle, const Before*) {
    Before before;
    for (size_t i = 0; i < kKeys.size(); ++i) {
      before.direct[i] = handle.hasKernelForDispatchKey(kKeys[i]);
      if (!before.direct[i] && handle.hasComputedKernelForDispatchKey(kKeys[i]))
        before.composite[i] = handle.getComputedKernelForDispatchKey(kKeys[i]);
    }
    // An implicit composite is differentiated through what it calls; with a kernel for CUDA it would have a formula
    // instead.
    if (handle.hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd) &&
        handle.hasComputedKernelForDispatchKey(DispatchKey::AutogradCUDA))
      before.autograd = handle.getComputedKernelForDispatchKey(DispatchKey::AutogradCUDA);
    noted.emplace(handle.operator_name(), std::move(before));
  });
  kernels().before = std::move(noted);
}

bool has_kernel_but_cudas(const c10::OperatorHandle& handle, DispatchKey key) {
  if (!handle.hasKernelForDispatchKey(key)) return false;
  if (!kernels().noted || is_ours(origin(handle, key))) return true;
  const auto place = std::find(kKeys.begin(), kKeys.end(), key);
  const auto found = kernels().before.find(handle.operator_name());
  return place == kKeys.end() ||
         (found != kernels().before.end() && found->second.direct[static_cast<size_t>(place - kKeys.begin())]);
}

void cover_foreign_kernels() {
  if (!kernels().noted) return;
  each_operator([](const c10::OperatorHandle& handle, const Before* before) {
    const bool forwarded =
        handle.hasKernelForDispatchKey(DispatchKey::CUDA) && is_ours(origin(handle, DispatchKey::CUDA));
    bool covered = false;
    for (size_t i = 0; i < kKeys.size(); ++i) {
      if (!is_foreign(handle, before, i)) continue;
      covered = true;
      if (before != nullptr && before->composite[i]) {
        put<Composite>(handle, kKeys[i], *before->composite[i]);
      } else {
        put<Refusal>(handle, kKeys[i]);
      }
    }
    if (covered && !forwarded && before != nullptr && before->autograd)
      put<Composite>(handle, DispatchKey::AutogradCUDA, *before->autograd);
  });
}

std::vector<std::string> foreign_kernels() {
  std::vector<std::string> found;
  const auto add = [&](const c10::OperatorHandle& handle, DispatchKey key) {
    found.push_back(toString(handle.operator_name()) + " " + toString(key) + ": " + origin(handle, key));
  };
  for (const auto& handle : forwarded_operators()) {
    if (!is_ours(origin(handle, DispatchKey::CUDA))) add(handle, DispatchKey::CUDA);
  }
  if (!kernels().noted) return found;
  each_operator([&](const c10::OperatorHandle& handle, const Before* before) {
    for (size_t i = 0; i < kKeys.size(); ++i) {
      if (is_foreign(handle, before, i)) add(handle, kKeys[i]);
    }
  });
  return found;
}

}  // namespace waldo::torch_frontend
