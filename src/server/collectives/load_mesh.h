// Finds the engine behind a Mesh: libwaldo_gloo.so beside this code's own library.
#pragma once

#include "server/collectives/mesh.h"

namespace waldo::server {

// kUnsupported: there is none, and what to install. Loads once; the library stays. Any thread.
Result<std::unique_ptr<Mesh>> make_mesh(const MeshOptions& options);

}  // namespace waldo::server
