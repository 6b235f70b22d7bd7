#include "server/backends/torch/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "server/backends/torch/errors.h"

namespace waldo::torch_backend {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kRefused = {
    // Files, foreign memory, the outside world.
    "from_file"sv,
    "_from_blob"sv,
    "_print"sv,
    "_share_memory"sv,
    "record_stream"sv,
    "_pin_memory"sv,
    "pin_memory"sv,
    "is_pinned"sv,
    "_cudnn_init_dropout_state"sv,
    // Another storage or size under a tensor, or a view that nobody checks against its storage.
    "set_"sv,
    "set_data"sv,
    "set"sv,
    "resize_"sv,
    "resize"sv,
    "resize_as_"sv,
    "resize_as"sv,
    "resize_as_sparse_"sv,
    "_resize_output_"sv,
    "_resize_output"sv,
    "_reshape_alias"sv,
    "_reshape_alias_copy"sv,
    "_reshape_copy"sv,
    "_unsafe_index"sv,
    "_unsafe_index_put"sv,
    "_unsafe_masked_index"sv,
    "_unsafe_masked_index_put_accumulate"sv,
    "_lazy_clone"sv,
    "_copy_from"sv,
    "_copy_from_and_resize"sv,
    "rename_"sv,
    "swap_"sv,
    // Tensors without memory.
    "_efficientzerotensor"sv,
    "_make_dep_token"sv,
};
// Kinds of tensors this worker does not hold.
constexpr std::array kRefusedPrefixes = {
    "_sparse_"sv,
    "sparse_"sv,
    "_nested_"sv,
    "nested_"sv,
    "_mkldnn"sv,
    "mkldnn_"sv,
    "_test_"sv,
    "quantized_"sv,
    "q_"sv,
    "_to_sparse"sv,
    "to_sparse"sv,
    "to_mkldnn"sv,
    "_make_per_"sv,
    "_empty_per_"sv,
    "_empty_affine"sv,
    "quantize_per_"sv,
    "_coalesce"sv,
    "_validate_sparse"sv,
    "_validate_compressed"sv,
    "_mps_"sv,
    "xpu_"sv,
};
constexpr std::array kUnsafeByNameOnly = {"_unsafe_view"sv, "unsafe_split"sv, "unsafe_split_with_sizes"sv,
                                          "unsafe_chunk"sv};

}  // namespace

bool allowed(std::string_view op) {
  if (op.starts_with("waldo::")) return true;  // those of wire/own_operators.h
  if (!op.starts_with("aten::")) return false;
  const std::string_view name = op.substr(6);
  if (std::ranges::find(kRefused, name) != kRefused.end()) return false;
  if (std::ranges::any_of(kRefusedPrefixes, [&](std::string_view prefix) { return name.starts_with(prefix); })) {
    return false;
  }
  return name.find("unsafe") == std::string_view::npos ||
         std::ranges::find(kUnsafeByNameOnly, name) != kUnsafeByNameOnly.end();
}

std::string full_name(std::string_view op, std::string_view overload) {
  return overload.empty() ? std::string(op) : fmt::format("{}.{}", op, overload);
}

Result<c10::OperatorHandle> find_operator(const std::string& op, const std::string& overload, uint64_t schema_hash) {
  const auto unsupported = [&](std::string text) {
    StatusDetail detail;
    detail.error_class = static_cast<uint16_t>(wire::ErrorClass::kNotImplemented);
    detail.op = full_name(op, overload);
    return Status(StatusKind::kUnsupported, std::move(text), std::move(detail));
  };
  if (!allowed(op)) {
    return unsupported(fmt::format("the worker does not run {} for a client", full_name(op, overload)));
  }
  const auto handle = c10::Dispatcher::singleton().findSchema({op, overload});
  if (!handle.has_value()) {
    return unsupported(fmt::format("the worker has no operator {}", full_name(op, overload)));
  }
  if (schema_hash != 0) {
    std::ostringstream text;
    text << handle->schema();
    const std::string schema = text.str();
    if (XXH3_64bits(schema.data(), schema.size()) != schema_hash) {
      return unsupported(fmt::format("the worker's {} has another schema: {}", full_name(op, overload), schema));
    }
  }
  return *handle;
}

}  // namespace waldo::torch_backend
