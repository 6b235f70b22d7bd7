// Operators that the CUDA key does not forward as they are: those that only make or re-shape tensors (nothing is sent,
// or one CREATE), those that move bytes between here and a worker, and those whose answer is known here.
//
// Threads: any.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <cstdint>

namespace waldo::torch_frontend {

// `library` is aten on the CUDA key.
void register_hand_kernels(torch::Library& library);

void register_collective_operators();  // process_group.cc; wire/collectives.h

// A tensor that exists at once on the worker (CREATE), uninitialised.
at::Tensor empty_far(at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device);

// kernels_copy.cc. copy_ in every direction: up, down, on a device, between devices of one or of two workers.
at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking);
at::Scalar local_scalar_dense(const at::Tensor& self);

}  // namespace waldo::torch_frontend
