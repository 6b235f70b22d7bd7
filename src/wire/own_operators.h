// Operators of our own: what a worker computes with tensors that are made of plain ones (sparse ones), given and
// returned as those plain ones. Front end and backend both define these schemas, so their hashes agree.
//
// `coalesced` says what the sparse tensor says of itself. Sizes are those of the whole sparse tensor. A list of tensors
// is one tensor in the layout of that number: itself; indices and values; or compressed indices, plain indices and
// values.
#pragma once

#include <cstdint>

namespace waldo::wire {

enum OwnLayout : int64_t { kPlain = 0, kCoo = 1, kCsr = 2, kCsc = 3, kBsr = 4, kBsc = 5 };

inline constexpr const char* kOwnOperators[] = {
    "coo_coalesce(Tensor indices, Tensor values, int[] size) -> (Tensor, Tensor)",
    "coo_add(Tensor indices, Tensor values, bool coalesced, Tensor other_indices, Tensor other_values, bool "
    "other_coalesced, int[] size, Scalar alpha) -> (Tensor, Tensor)",
    "coo_add_dense(Tensor self, Tensor indices, Tensor values, bool coalesced, int[] size, Scalar alpha) -> Tensor",
    "coo_mul(Tensor indices, Tensor values, bool coalesced, Tensor other_indices, Tensor other_values, bool "
    "other_coalesced, int[] size, int[] other_size) -> (Tensor, Tensor)",
    "coo_mul_dense(Tensor indices, Tensor values, bool coalesced, int[] size, Tensor dense) -> (Tensor, Tensor)",
    "coo_addmm(Tensor self, Tensor indices, Tensor values, bool coalesced, int[] size, Tensor dense, Scalar beta, "
    "Scalar alpha) -> Tensor",
    "coo_bmm(Tensor indices, Tensor values, bool coalesced, int[] size, Tensor dense) -> Tensor",
    "coo_matmul(Tensor indices, Tensor values, bool coalesced, int[] size, Tensor other_indices, Tensor other_values, "
    "bool other_coalesced, int[] other_size) -> (Tensor, Tensor)",
    "coo_index_select(Tensor indices, Tensor values, bool coalesced, int[] size, int dim, Tensor index) -> (Tensor, "
    "Tensor)",
    "coo_softmax(Tensor indices, Tensor values, bool coalesced, int[] size, int dim, bool half_to_float, bool log) -> "
    "(Tensor, Tensor)",
    "coo_softmax_backward(Tensor grad_indices, Tensor grad_values, Tensor indices, Tensor values, int[] size, int dim, "
    "bool log) -> (Tensor, Tensor)",
    "coo_hspmm(Tensor indices, Tensor values, bool coalesced, int[] size, Tensor dense) -> (Tensor, Tensor)",
    "compressed_addmm(Tensor[] self, Tensor[] left, Tensor[] right, int[] layouts, int[] self_size, int[] left_size, "
    "int[] right_size, Scalar beta, Scalar alpha) -> Tensor[]",
    "compressed_addmv(Tensor self, Tensor[] matrix, int layout, int[] size, Tensor vector, Scalar beta, Scalar alpha) "
    "-> Tensor",
    "compressed_add(Tensor[] self, Tensor[] other, int[] layouts, int[] self_size, int[] other_size, Scalar alpha) -> "
    "Tensor[]",
    "compressed_reduce(Tensor[] self, int layout, int[] size, int[] dim, bool keepdim, ScalarType? dtype, bool "
    "product) "
    "-> Tensor[]",
    "compressed_solve(Tensor self, Tensor[] matrix, int layout, int[] size, bool upper, bool transpose, bool "
    "unitriangular) -> Tensor",
    "csr_sampled_addmm(Tensor crow, Tensor col, Tensor values, int[] size, Tensor left, Tensor right, Scalar beta, "
    "Scalar alpha) -> Tensor",
};

}  // namespace waldo::wire
