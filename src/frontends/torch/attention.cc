#include "frontends/torch/attention.h"

#include <ATen/Context.h>
#include <ATen/ops/_fused_sdp_choice_native.h>

#include <algorithm>
#include <array>

#include "client/session.h"
#include "frontends/torch/device.h"
#include "frontends/torch/rule_outputs.h"

namespace waldo::torch_frontend {
namespace {

using at::SDPBackend;
using sdp::sdp_params;

struct Capability {
  int major = 0, minor = 0;
  int number() const { return major * 10 + minor; }
};

// Sizes may be symbolic while torch.compile traces. A head's width is made a number of the graph; rows are only
// compared.
int64_t width_of(const at::Tensor& tensor) { return tensor.sym_size(-1).guard_int(__FILE__, __LINE__); }

Capability capability_of(const at::Tensor& tensor) {
  const client::DeviceInfo& info = device_info(tensor.device().index());
  return {info.capability_major, info.capability_minor};
}

bool is_on_device(const sdp_params& params, bool debug) {
  if (params.query.is_cuda()) return true;
  if (debug) {
    TORCH_WARN("All tensors need to be on cuda device. Got query on device: ", params.query.device(),
               ", key on device: ", params.key.device(), ", value on device: ", params.value.device());
  }
  return false;
}

// Nested tensors take the math form: of their fused forms no CPU worker has any.
bool is_dense(const sdp_params& params, bool debug) {
  if (sdp::has_only_dense_inputs(params)) return true;
  if (debug) TORCH_WARN("Nested tensors take the math form on a Waldo device.");
  return false;
}

bool flash_fits_heads(const sdp_params& params, bool debug) {
  const int64_t width = width_of(params.query);
  if (width == width_of(params.key) && width == width_of(params.value) && width <= 256) return true;
  if (debug) {
    TORCH_WARN(
        "Flash attention requires q,k,v to have the same last dimension and to be less than or equal to 256. "
        "Got Query.size(-1): ",
        width, ", Key.size(-1): ", width_of(params.key), ", Value.size(-1): ", width_of(params.value), " instead.");
  }
  return false;
}

bool flash_fits_gpu(const sdp_params& params, bool debug) {
  const Capability gpu = capability_of(params.query);
  if (gpu.number() < 80 || gpu.number() > 121) {
    if (debug) {
      TORCH_WARN(
          "Flash attention only supports gpu architectures in the range [sm80, sm121]. Attempting to run on a sm ",
          gpu.major, ".", gpu.minor, " gpu.");
    }
    return false;
  }
  const bool small_shared_memory = (gpu.number() >= 86 && gpu.number() <= 89) || gpu.number() >= 120;
  const int64_t width = width_of(params.query);
  if (!small_shared_memory || !sdp::input_requires_grad(params) || width <= 192 ||
      (params.dropout == 0 && width > 224)) {
    return true;
  }
  if (debug) {
    TORCH_WARN(
        "Flash attention currently doesn't support training with head_dim ∈ (192, 224] or (head_dim ∈ (224, 256] and "
        "dropout > 0.0) on gpu architectures in the range[sm86, sm89].");
  }
  return false;
}

bool flash_fits_causal(const sdp_params& params, bool debug) {
  if (!params.is_causal || params.query.sym_size(-2) == params.key.sym_size(-2)) return true;
  if (debug) {
    TORCH_WARN("Flash attention does not support the is_causal flag when seqlen_q != seqlen_k. Got seqlen_q: ",
               params.query.sym_size(-2), " seqlen_k: ", params.key.sym_size(-2));
  }
  return false;
}

bool flash_fits_dtype(const sdp_params& params, bool debug) {
  if (capability_of(params.query).major < 8) {
    return sdp::check_tensor_dtype(params, std::array<at::ScalarType, 1>{at::kHalf}, debug);
  }
  return sdp::check_tensor_dtype(params, std::array<at::ScalarType, 2>{at::kHalf, at::kBFloat16}, debug);
}

bool efficient_fits_gpu(const sdp_params& params, bool debug) {
  const Capability gpu = capability_of(params.query);
  if (gpu.number() >= 50 && gpu.number() <= 121) return true;
  if (debug) {
    TORCH_WARN(
        "Mem Efficient Attention only supports gpu architectures in the range [sm50, sm121]. Attempting to run on a "
        "sm ",
        gpu.major, ".", gpu.minor, " gpu.");
  }
  return false;
}

bool is_half(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
}

// Elements that the matrix units load at once.
int64_t alignment_of(const at::Tensor& query) {
  const Capability gpu = capability_of(query);
  const bool tensor_cores = gpu.major >= 8 || (gpu.major == 7 && is_half(query));
  return std::max<int64_t>(gpu.major >= 8 ? 4 : 1, tensor_cores ? (is_half(query) ? 8 : 4) : 1);
}

bool efficient_fits_heads(const sdp_params& params, bool debug) {
  const int64_t alignment = alignment_of(params.query), width = width_of(params.query), out = width_of(params.value);
  if (width == width_of(params.key) && width > 0 && out > 0 && width % alignment == 0 && out % alignment == 0)
    return true;
  if (debug) {
    TORCH_WARN("Mem efficient attention requires last dimension of inputs to be divisible by ", alignment,
               ". Got Query.size(-1): ", width, ", Key.size(-1): ", width_of(params.key), ", Value.size(-1): ", out,
               " instead.");
  }
  return false;
}

bool efficient_fits_offsets(const sdp_params& params, bool debug) {
  if (capability_of(params.query).major < 8) return true;
  const int64_t alignment = alignment_of(params.query);
  for (const at::Tensor& tensor : {params.query, params.key, params.value}) {
    if (tensor.sym_storage_offset() % alignment == 0) continue;
    if (debug) {
      TORCH_WARN("Mem efficient attention on sm80 or newer requires q, k, and v storage offsets to be aligned to ",
                 alignment, " elements. Got ", tensor.sym_storage_offset());
    }
    return false;
  }
  return true;
}

bool efficient_fits_dtype(const sdp_params& params, bool debug) {
  if (capability_of(params.query).major >= 8) {
    return sdp::check_tensor_dtype(params, std::array<at::ScalarType, 3>{at::kHalf, at::kFloat, at::kBFloat16}, debug);
  }
  return sdp::check_tensor_dtype(params, std::array<at::ScalarType, 2>{at::kHalf, at::kFloat}, debug);
}

bool efficient_fits_dropout(const sdp_params& params, bool debug) {
  if (params.dropout == 0 || on_cpu_worker(params.query)) return true;
  if (debug) TORCH_WARN("Mem efficient attention with dropout is not available on a Waldo device that is a GPU.");
  return false;
}

using Check = bool (*)(const sdp_params&, bool);

bool all(std::initializer_list<Check> checks, const sdp_params& params, bool debug) {
  return std::all_of(checks.begin(), checks.end(), [&](Check check) { return check(params, debug); });
}

bool flash(const sdp_params& params, bool debug) {
  return all({&sdp::check_runtime_disabled_flash, &is_on_device, &is_dense, &sdp::check_tensor_shapes,
              &sdp::check_for_attn_mask, &flash_fits_heads, &flash_fits_gpu, &flash_fits_causal, &flash_fits_dtype,
              &sdp::check_batch_size_and_num_heads_dense<true>, &sdp::check_nonzero_sequence_lengths_dense,
              &sdp::check_last_dim_stride_equals_1_dense<true>},
             params, debug);
}

bool efficient(const sdp_params& params, bool debug) {
  return all({&sdp::check_runtime_disabled_mem_efficient, &is_on_device, &is_dense, &efficient_fits_gpu,
              &sdp::check_tensor_shapes, &efficient_fits_heads, &efficient_fits_offsets, &efficient_fits_dropout,
              &sdp::check_nonzero_sequence_lengths_dense, &sdp::check_last_dim_stride_equals_1_dense<false>,
              &sdp::check_batch_size_and_num_heads_dense<false>, &efficient_fits_dtype},
             params, debug);
}

// What the CPU would take for tensors of these sizes and strides.
bool cpu_fuses(const sdp_params& params, std::optional<double> scale) {
  return at::native::_fused_sdp_choice_cpp(params.query, params.key, params.value, params.attn_mask, params.dropout,
                                           params.is_causal, scale,
                                           params.enable_gqa) == static_cast<int64_t>(SDPBackend::flash_attention);
}

SDPBackend choose(const sdp_params& params, std::optional<double> scale) {
  at::Context& context = at::globalContext();
  const bool math = context.userEnabledMathSDP();
  const auto with_math = [&](SDPBackend fused) {
    return math && on_cpu_worker(params.query) && !cpu_fuses(params, scale) ? SDPBackend::math : fused;
  };
  for (const SDPBackend backend : context.sDPPriorityOrder()) {
    if (backend == SDPBackend::flash_attention && flash(params, false)) return with_math(backend);
    if (backend == SDPBackend::efficient_attention && efficient(params, false)) return with_math(backend);
    if (backend == SDPBackend::math && math) return backend;
  }
  TORCH_WARN("Memory efficient kernel not used because:");
  efficient(params, true);
  TORCH_WARN("Flash attention kernel not used because:");
  flash(params, true);
  TORCH_WARN("cuDNN attention kernel not used because:");
  TORCH_WARN("cuDNN attention is not available on a Waldo device.");
  TORCH_CHECK(false, "No available kernel. Aborting execution.");
}

}  // namespace

int64_t attention_choice(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         const std::optional<at::Tensor>& mask, double dropout, bool is_causal,
                         std::optional<double> scale, bool enable_gqa) {
  return static_cast<int64_t>(choose({query, key, value, mask, dropout, is_causal, enable_gqa}, scale));
}

bool can_use_flash_attention(const sdp_params& params, bool debug) { return flash(params, debug); }
bool can_use_efficient_attention(const sdp_params& params, bool debug) { return efficient(params, debug); }

}  // namespace waldo::torch_frontend
