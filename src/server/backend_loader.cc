#include "server/backend_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

#include <nlohmann/json.hpp>

namespace waldo::server {

Result<MakeBackend> load_backend(const std::string& package_dir, const std::string& name) {
  if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos) {
    return Status(StatusKind::kInvalid, "\"" + name + "\" is not a backend's name");
  }
  const std::string path = package_dir + "/libwaldo_backend_" + name + ".so";
  if (package_dir.empty() || ::access(path.c_str(), R_OK) != 0) {
    return Status(StatusKind::kInvalid, "no backend \"" + name + "\" in this installation (" + path + ")");
  }
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Status(StatusKind::kInternal, std::string("load the backend: ") + ::dlerror());
  void* symbol = ::dlsym(library, kMakeBackendSymbol);
  if (symbol == nullptr) return Status(StatusKind::kInternal, path + " has no " + kMakeBackendSymbol);
  return reinterpret_cast<MakeBackend>(symbol);
}

Result<std::unique_ptr<Backend>> make_backend(MakeBackend make, int gpus) {
  nlohmann::json options = {{"gpus", gpus}};
  // Said by who owns this host, never by a client: where collectives may listen (docs/design/0003-collectives.md).
  if (const char* net = std::getenv("WALDO_COLLECTIVE_NET"); net != nullptr && *net != 0)
    options["collective_net"] = net;
  std::string error;
  std::unique_ptr<Backend> backend(make(options.dump().c_str(), &error));
  if (backend == nullptr) return Status(StatusKind::kInternal, "start the backend: " + error);
  return backend;
}

}  // namespace waldo::server
