// What TensorFlow calls when `import tensorflow` loads this library, and what the start-up hook calls at exit.
//
// Acts under `waldo run` or WALDO_ON alone, and once: a second copy of this library in one process stands back.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "client/session.h"
#include "frontends/tensorflow/device.h"
#include "frontends/tensorflow/kernels.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/core/common_runtime/device_factory.h"

namespace {

namespace frontend = waldo::tensorflow_frontend;

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] != 0;
}

// "2.21" of "2.21.0"
std::string minor_of(const std::string& version) {
  const size_t first = version.find('.');
  return version.substr(0, version.find('.', first + 1));
}

void start() {
  if (!is_set("WALDO_ON") && !is_set("WALDO_GPUS") && !is_set("WALDO_BROKER")) return;
  const std::string mark = "WALDO_TENSORFLOW_LOADED_" + std::to_string(::getpid());  // says so to a second copy
  if (is_set(mark.c_str())) return;
  ::setenv(mark.c_str(), "1", 1);
  if (minor_of(TF_Version()) != WALDO_TENSORFLOW_MINOR) {
    std::fprintf(stderr, "waldo: no GPU devices here: Waldo was built for TensorFlow %s, but this is %s\n",
                 WALDO_TENSORFLOW_MINOR, TF_Version());
    return;
  }
  waldo::client::Options options;
  options.frontend = "tensorflow";
  options.frontend_version = TF_Version();
  auto& runtime = frontend::runtime();
  runtime.configure(options);
  if (runtime.device_count() == 0) return;  // the runtime said why, in one line
  frontend::register_device();
  frontend::register_kernels();
  frontend::register_functions();
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void TF_InitKernel() { start(); }

// Was the worker lost? Then the program's uncaught UnavailableError is ours, and `waldo run` ends with code 9.
extern "C" __attribute__((visibility("default"))) int waldo_tensorflow_lost() {
  auto& runtime = frontend::runtime();
  if (!runtime.connected()) return 0;
  auto queue = runtime.queue(0);
  return queue.ok() && (*queue)->session().lost() ? 1 : 0;
}

// Flush and goodbye, then what WALDO_STATS asks for.
extern "C" __attribute__((visibility("default"))) void waldo_tensorflow_shutdown() { frontend::runtime().shutdown(); }
