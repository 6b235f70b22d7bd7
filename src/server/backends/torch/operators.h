// Which operators this worker runs.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace waldo::torch_backend {

// Whether a client may name it. Left out are operators that read files, that trust sizes or indices they are given
// without a look at the storage, and that change which storage a tensor has (the client does that itself).
bool allowed(std::string_view op);

// kUnsupported, with the name in the text, when it is unknown here, not allowed, or of another schema than
// `schema_hash` says (XXH3-64 of the schema's text; 0 is not checked).
Result<c10::OperatorHandle> find_operator(const std::string& op, const std::string& overload, uint64_t schema_hash);

std::string full_name(std::string_view op, std::string_view overload);  // "aten::add.Tensor"

}  // namespace waldo::torch_backend
