#include "server/collectives/load_mesh.h"

#include <dlfcn.h>

namespace waldo::server {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int kBinding = 0;  // its run-time library does not bear the other
#else
// Its Gloo is the one it was linked with, whatever Gloo a libtorch in this process shows.
constexpr int kBinding = RTLD_DEEPBIND;
#endif

Result<MakeMesh> load() {
  Dl_info here{};
  std::string path = "libwaldo_gloo.so";
  if (dladdr(reinterpret_cast<const void*>(&make_mesh), &here) != 0 && here.dli_fname != nullptr) {
    const std::string own = here.dli_fname;
    if (const size_t slash = own.rfind('/'); slash != std::string::npos) path = own.substr(0, slash + 1) + path;
  }
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | kBinding);
#ifdef WALDO_GLOO_PATH  // where it was built; tests are linked elsewhere
  if (library == nullptr) library = ::dlopen(WALDO_GLOO_PATH, RTLD_NOW | RTLD_LOCAL | kBinding);
#endif
  if (library == nullptr) {
    return Status(StatusKind::kUnsupported,
                  std::string("collectives need Gloo on the worker's host (Debian: libgloo0): ") + ::dlerror());
  }
  void* symbol = ::dlsym(library, kMakeMeshSymbol);
  if (symbol == nullptr) return Status(StatusKind::kInternal, path + " has no " + kMakeMeshSymbol);
  return reinterpret_cast<MakeMesh>(symbol);
}

}  // namespace

Result<std::unique_ptr<Mesh>> make_mesh(const MeshOptions& options) {
  static const Result<MakeMesh> make = load();
  if (!make.ok()) return make.status();
  std::string error;
  std::unique_ptr<Mesh> mesh((*make)(options, &error));
  if (mesh == nullptr) return Status(StatusKind::kDisconnected, "cannot listen for the other ranks: " + error);
  return mesh;
}

}  // namespace waldo::server
