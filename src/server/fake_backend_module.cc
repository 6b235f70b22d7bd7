// The fake backend as a worker loads it (`waldo worker --backend fake`), for tests that want a real worker without
// torch.
#include <nlohmann/json.hpp>

#include "server/fake_backend.h"

extern "C" __attribute__((visibility("default"))) waldo::server::Backend* waldo_make_backend(const char* options_json,
                                                                                             std::string* error) {
  const auto options = nlohmann::json::parse(options_json, nullptr, false);
  const int gpus = options.is_object() ? options.value("gpus", 0) : -1;
  if (gpus < 0 || gpus > 64) {
    *error = "bad options";
    return nullptr;
  }
  return new waldo::server::FakeBackend(gpus == 0 ? 1 : gpus);
}
