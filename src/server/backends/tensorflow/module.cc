// The one symbol this shared object exports.
#include <memory>
#include <string>
#include <utility>

#include "server/backend.h"
#include "server/backends/tensorflow/backend.h"

extern "C" __attribute__((visibility("default"))) waldo::server::Backend* waldo_make_backend(const char* options_json,
                                                                                             std::string* error) {
  auto backend = waldo::tensorflow_backend::make_backend(options_json != nullptr ? options_json : "");
  if (backend.ok()) return std::move(backend).value().release();
  if (error != nullptr) *error = backend.status().text();
  return nullptr;
}
