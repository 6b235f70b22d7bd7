#include "frontends/torch/kernels_made_of.h"

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "frontends/torch/op_table.h"
#include "frontends/torch/takeover.h"

namespace waldo::torch_frontend {
namespace {

using c10::DispatchKey;

struct Shared {
  const char* name;
  DispatchKey cpu, cuda;
};
constexpr Shared kShared[] = {
#define WALDO_OP(name, kind)
#define WALDO_SHARED(name, cpu, cuda) {name, DispatchKey::cpu, DispatchKey::cuda},
#include "frontends/torch/op_table.inc"
#undef WALDO_SHARED
#undef WALDO_OP
};

// The CPU's kernel, called for tensors of ours: it looks at sizes and calls operators on the plain tensors within.
class SharedKernel final : public c10::OperatorKernel {
 public:
  explicit SharedKernel(c10::SafeKernelFunction kernel) : kernel_(std::move(kernel)) {}
  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    kernel_.callBoxed(op, keys, stack);
  }

 private:
  const c10::SafeKernelFunction kernel_;
};

}  // namespace

torch::Library& library_of(DispatchKey key) {
  static auto* libraries = new std::unordered_map<DispatchKey, std::unique_ptr<torch::Library>>();
  auto& library = (*libraries)[key];
  if (!library) library = std::make_unique<torch::Library>(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
  return *library;
}

bool is_made_of_plain(std::string_view name) {
  for (const auto& entry : kShared) {
    if (entry.cuda == DispatchKey::CUDA && name == entry.name) return true;
  }
  return false;
}

void register_made_of_kernels() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& entry : kShared) {
    const std::string name(entry.name);
    const size_t dot = name.find('.');
    const auto handle =
        dispatcher.findSchema({name.substr(0, dot), dot == std::string::npos ? std::string() : name.substr(dot + 1)});
    if (!handle || !handle->hasKernelForDispatchKey(entry.cpu)) continue;
    if (entry.cuda != DispatchKey::CUDA && has_kernel_but_cudas(*handle, entry.cuda)) continue;
    library_of(entry.cuda)
        .impl(name.substr(6).c_str(),
              torch::CppFunction::makeFromBoxedKernel(c10::BoxedKernel::makeFromFunctor(
                  std::make_unique<SharedKernel>(handle->getComputedKernelForDispatchKey(entry.cpu)))));
  }
}

}  // namespace waldo::torch_frontend
