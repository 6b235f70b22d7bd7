// Loads a backend's shared object. In two steps, because the first (mapping libtorch) takes most of a worker's start
// and needs nothing from the client, so it runs before the client has said hello.
#pragma once

#include <string>

#include "base/status.h"
#include "server/backend.h"

namespace waldo::server {

// Maps <package_dir>/libwaldo_backend_<name>.so; it is never unloaded. kInvalid: no such file. kInternal: it does not
// load.
Result<MakeBackend> load_backend(const std::string& package_dir, const std::string& name);

// `gpus` 0: as many as there are.
Result<std::unique_ptr<Backend>> make_backend(MakeBackend make, int gpus);

}  // namespace waldo::server
