// Which form scaled_dot_product_attention takes on a device of ours: the one CUDA takes on that GPU. The conditions are
// those of ATen/native/transformers/cuda/sdp_utils.cpp, which only a CUDA build of PyTorch has; most are checks of
// sdp_utils_cpp.h, called here. Three differences, each on the side of the plainer form:
//   - cuDNN's form is never chosen, though Hopper prefers it: flash attention stands in for it.
//   - on a CPU worker, a fused form is taken only where the CPU has one too, so that values stay the plain CPU's; with
//     the math form switched off (sdpa_kernel) CUDA's choice alone decides.
//   - mem-efficient attention with dropout keeps its random state in host memory: on a GPU the math form is taken.
//
// Threads: any. Asks the device's properties, which were told when it was opened; no wait of its own.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>

#include <cstdint>
#include <optional>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

// at::SDPBackend as a number, for aten::_fused_sdp_choice. Throws "No available kernel. Aborting execution." after
// warnings that say why, when what the program allows cannot run.
int64_t attention_choice(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         const std::optional<at::Tensor>& mask, double dropout, bool is_causal,
                         std::optional<double> scale, bool enable_gqa);

// torch.backends.cuda.can_use_flash_attention() and can_use_efficient_attention(); `debug`: warn of what is missing.
WALDO_TORCH_API bool can_use_flash_attention(const sdp::sdp_params& params, bool debug);
WALDO_TORCH_API bool can_use_efficient_attention(const sdp::sdp_params& params, bool debug);

}  // namespace waldo::torch_frontend
