#include "frontends/torch/register.h"

#include <c10/util/Exception.h>
#include <pthread.h>
#include <torch/version.h>

#include <exception>
#include <string>

#include "frontends/torch/device.h"
#include "frontends/torch/storage.h"
#include "frontends/torch/takeover.h"

namespace waldo::torch_frontend {
namespace {

// In the child of a process that used devices, deleters must not touch a session that is not theirs.
void in_child() {
  for (const auto& queue : g_queues) {
    if (queue.load(std::memory_order_relaxed) != nullptr) return close_storages();
  }
}

// A CUDA build has kernels in the places of ours; that they are replaced is meant.
class Quiet final : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

std::string register_all() {
  register_hooks();
  // The hooks object is made once, at its first use: if that was before now, it is not ours and never will be.
  if (!hooks_are_ours()) {
    return "torch was loaded before Waldo; import waldo (or start with `waldo run`) before the first `import torch`";
  }
  snapshot_meta_kernels();
  Quiet quiet;
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  register_kernels();
  cover_foreign_kernels();
  register_guard();
  register_allocator();
  register_timer();
  register_profiler();
  pthread_atfork(nullptr, nullptr, in_child);
  return {};
}

}  // namespace
}  // namespace waldo::torch_frontend

extern "C" const char* waldo_torch_register(int python_torch_loaded) {
  using namespace waldo::torch_frontend;
  static bool done = false;
  static std::string problem;
  if (done) return problem.empty() ? nullptr : problem.c_str();
  done = true;
  try {
    if (python_torch_loaded != 0) {
      problem = "torch is already imported; import waldo (or start with `waldo run`) before it";
    } else {
      problem = register_all();
    }
  } catch (const std::exception& error) {
    problem = std::string("cannot take over the CUDA device type: ") + error.what();
  } catch (...) {
    problem = "cannot take over the CUDA device type";
  }
  return problem.empty() ? nullptr : problem.c_str();
}

extern "C" const char* waldo_torch_built_for() { return TORCH_VERSION; }

extern "C" void waldo_torch_before_cuda() { waldo::torch_frontend::note_kernels_before_cuda(); }

extern "C" const char* waldo_torch_foreign_kernels() {
  static auto* text = new std::string;
  text->clear();
  for (const auto& line : waldo::torch_frontend::foreign_kernels()) *text += line + "\n";
  return text->c_str();
}
