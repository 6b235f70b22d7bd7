// What one operation costs the program: `a + b` and `a.add_(b)` with a known plan, against an empty boxed kernel on the
// same dispatch key, which is what any implementation of a device type pays at least.
//
//   op_latency [--rounds N] [--json]      times, medians of interleaved batches
//   op_latency --count NAME CALLS         does CALLS of one of them and nothing else, for counting instructions
//
// The worker is real and runs what is recorded; it catches up between rounds, outside the clock.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

extern "C" const char* waldo_torch_register(int python_torch_loaded);

namespace {

using Clock = std::chrono::steady_clock;
using at::Tensor;

void empty_kernel(const c10::OperatorHandle&, c10::DispatchKeySet, torch::jit::Stack* stack) { stack->pop_back(); }

struct Measured {
  const char* name;
  std::function<void(int)> run;  // that many operations
  std::vector<double> ns = {};   // per operation, one of each batch
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Kept out of line: the boundary that --toggle-collect names.
__attribute__((noinline)) void counted_operations(const Measured& what, int calls) { what.run(calls); }

}  // namespace

int main(int argc, char** argv) {
  int rounds = 60;
  bool json = false;
  std::string count_name;
  int count_calls = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--rounds" && i + 1 < argc) {
      rounds = std::atoi(argv[++i]);
    } else if (word == "--json") {
      json = true;
    } else if (word == "--count" && i + 2 < argc) {
      count_name = argv[++i];
      count_calls = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: op_latency [--rounds N] [--json] | --count NAME CALLS\n");
      return 2;
    }
  }
  setenv("WALDO_ON", "local", /*overwrite=*/0);
  if (const char* wrong = waldo_torch_register(/*python_torch_loaded=*/0)) {
    std::fprintf(stderr, "op_latency: %s\n", wrong);
    return 1;
  }

  torch::Library library(torch::Library::DEF, "waldo_bench", std::nullopt, __FILE__, __LINE__);
  library.def("empty_boxed(Tensor self, Tensor other) -> Tensor");
  library.impl("empty_boxed",
               torch::dispatch(c10::DispatchKey::CUDA, torch::CppFunction::makeFromBoxedFunction<&empty_kernel>()));
  const auto empty_boxed = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("waldo_bench::empty_boxed", "")
                               .typed<Tensor(const Tensor&, const Tensor&)>();

  c10::InferenceMode inference;
  const Tensor a = at::ones({8, 64}, at::kCUDA), b = at::ones({8, 64}, at::kCUDA);
  Tensor sum = at::ones({8, 64}, at::kCUDA);
  const auto catch_up = [&] { (void)sum.cpu(); };

  std::vector<Measured> all = {
      {"empty boxed kernel",
       [&](int n) {
         while (n-- > 0) (void)empty_boxed.call(a, b);
       }},
      {"a + b",
       [&](int n) {
         while (n-- > 0) (void)at::add(a, b);
       }},
      {"a.add_(b)",
       [&](int n) {
         while (n-- > 0) (void)sum.add_(b);
       }},
  };
  for (Measured& what : all) what.run(2000);
  catch_up();

  if (!count_name.empty()) {
    for (const Measured& what : all) {
      if (count_name == what.name) {
        counted_operations(what, count_calls);
        catch_up();
        return 0;
      }
    }
    std::fprintf(stderr, "op_latency: nothing is called '%s'\n", count_name.c_str());
    return 2;
  }

  // Short batches in turn, so that all meet the same clock rate and the same worker at work beside them.
  constexpr int kBatch = 100, kBatchesPerRound = 20;
  for (int round = 0; round < rounds; ++round) {
    for (int batch = 0; batch < kBatchesPerRound; ++batch) {
      for (Measured& what : all) {
        const Clock::time_point start = Clock::now();
        what.run(kBatch);
        what.ns.push_back(std::chrono::duration<double, std::nano>(Clock::now() - start).count() / kBatch);
      }
    }
    catch_up();
  }
  const double floor = median(all[0].ns);
  for (const Measured& what : all) {
    const double ns = median(what.ns);
    if (json) {
      std::printf("{\"name\": \"%s\", \"ns\": %.1f, \"times_empty\": %.3f}\n", what.name, ns, ns / floor);
    } else {
      std::printf("%-20s %8.1f ns  %5.2f x an empty boxed kernel\n", what.name, ns, ns / floor);
    }
  }
  return 0;
}
