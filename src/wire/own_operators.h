// Operators of our own: what a worker computes with tensors that are made of plain ones (sparse COO and CSR), given and
// returned as those plain ones. Front end and backend both define these schemas, so their hashes agree.
//
// `coalesced` says what the sparse tensor says of itself. Sizes are those of the whole sparse tensor.
#pragma once

namespace waldo::wire {

inline constexpr const char* kOwnOperators[] = {
    "coo_coalesce(Tensor indices, Tensor values, int[] size) -> (Tensor, Tensor)",
    "coo_add(Tensor indices, Tensor values, bool coalesced, Tensor other_indices, Tensor other_values, bool "
    "other_coalesced, int[] size, Scalar alpha) -> (Tensor, Tensor)",
    "coo_add_dense(Tensor self, Tensor indices, Tensor values, bool coalesced, int[] size, Scalar alpha) -> Tensor",
    "coo_mul(Tensor indices, Tensor values, bool coalesced, Tensor other_indices, Tensor other_values, bool "
    "other_coalesced, int[] size) -> (Tensor, Tensor)",
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
    "csr_addmm(Tensor self, Tensor crow, Tensor col, Tensor values, int[] size, Tensor dense, Scalar beta, Scalar "
    "alpha) -> Tensor",
    "csr_addmm_right(Tensor self, Tensor dense, Tensor crow, Tensor col, Tensor values, int[] size, Scalar beta, "
    "Scalar "
    "alpha) -> Tensor",
    "csr_addmv(Tensor self, Tensor crow, Tensor col, Tensor values, int[] size, Tensor vector, Scalar beta, Scalar "
    "alpha) -> Tensor",
    "csr_sampled_addmm(Tensor crow, Tensor col, Tensor values, int[] size, Tensor left, Tensor right, Scalar beta, "
    "Scalar alpha) -> Tensor",
};

}  // namespace waldo::wire
