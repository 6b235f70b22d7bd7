// Operators of our own: what a worker computes with tensors that are made of plain ones (sparse ones), given and
// returned as those plain ones. Front end and backend both define these schemas, so their hashes agree.
//
// `coalesced` says what the sparse tensor says of itself. Sizes are those of the whole sparse tensor. A list of tensors
// is one tensor in the layout of that number: itself; indices and values; or compressed indices, plain indices and
// values.
//
// Of quantized tensors travel the integers, as a plain tensor over the same storage. `call` says what is called with
// them: "aten::relu||" (operator, overload) and its arguments one after the other, each a letter and what follows it:
//   N                        None                  U            an undefined tensor
//   T i ;                    tensors[i]
//   Q dtype , i , n ;        those integers, with scale numbers[n] and zero point numbers[n + 1]; where a byte holds
//                            several elements, their sizes before the semicolon as ":2x3"
//   C dtype , i , s , z , a ;  by channel along `a`, with scales tensors[s] and zero points tensors[z]
//   I value ;   B 0|1 ;   F n ; (numbers[n])   S length : bytes   D dtype ;   V (the worker's device)
//   ( values )  a tuple      [ kind values ]  a list of t, o (optional tensors), i, f, b, s, or c class ; (objects)
//   O class ; state          an object of torch.classes.quantized or .rnn, as it is pickled
//   { t , n ; value }        numbers of tensors and of numbers within start at t and n more than those around
// quantized_call runs it on copies of what it writes, and gives those and the results as plain tensors, then a tensor
// of four float64 per value: see QuantizedValue. quantized_one gives the only result, and fails unless that has just
// this scale and zero point (scale 0: it is not quantized; -1: by channel, `zero_point` is the axis).
#pragma once

#include <cstdint>

namespace waldo::wire {

enum OwnLayout : int64_t { kPlain = 0, kCoo = 1, kCsr = 2, kCsc = 3, kBsr = 4, kBsc = 5 };

// The first of four numbers, and what the others are.
enum QuantizedValue : int64_t {
  kUndefined = 0,
  kPlainTensor = 1,  // takes one tensor
  kPerTensor = 2,    // one; dtype, scale, zero point
  kPerChannel = 3,   // three: integers, scales, zero points; dtype, axis
  kIntValue = 4,     // the value
  kFloatValue = 5,
  kBoolValue = 6,
  kTensorListOf = 7,  // how many values follow
};
inline constexpr const char* kQuantizedDTypes[] = {"QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4"};

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
    "quantized_call(str call, Tensor[] tensors, float[] numbers) -> Tensor[]",
    "quantized_one(str call, Tensor[] tensors, float[] numbers, float scale, int zero_point) -> Tensor",
    "csr_sampled_addmm(Tensor crow, Tensor col, Tensor values, int[] size, Tensor left, Tensor right, Scalar beta, "
    "Scalar alpha) -> Tensor",
};

}  // namespace waldo::wire
