#include "server/backends/torch/sparse.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_coalesce.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/_sparse_log_softmax.h>
#include <ATen/ops/_sparse_log_softmax_backward_data.h>
#include <ATen/ops/_sparse_softmax.h>
#include <ATen/ops/_sparse_softmax_backward_data.h>
#include <ATen/ops/_sparse_sparse_matmul.h>
#include <ATen/ops/_validate_sparse_coo_tensor_args.h>
#include <ATen/ops/_validate_sparse_csr_tensor_args.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/addmv.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sparse_sampled_addmm.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "wire/own_operators.h"

namespace waldo::torch_backend {
namespace {

using at::IntArrayRef;
using at::Scalar;
using at::Tensor;
using Pair = std::tuple<Tensor, Tensor>;

Tensor coo(const Tensor& indices, const Tensor& values, IntArrayRef size, bool coalesced) {
  at::_validate_sparse_coo_tensor_args(indices, values, size);
  return at::_sparse_coo_tensor_unsafe(indices, values, size, values.options().layout(at::kSparse), coalesced);
}

Pair parts(const Tensor& sparse) { return {sparse._indices(), sparse._values()}; }

Tensor csr(const Tensor& crow, const Tensor& col, const Tensor& values, IntArrayRef size) {
  at::_validate_sparse_csr_tensor_args(crow, col, values, size);
  return at::_sparse_csr_tensor_unsafe(crow, col, values, size, values.options().layout(at::kSparseCsr));
}

Pair coo_coalesce(const Tensor& indices, const Tensor& values, IntArrayRef size) {
  return parts(at::_coalesce(coo(indices, values, size, false)));
}

Pair coo_add(const Tensor& indices, const Tensor& values, bool coalesced, const Tensor& other_indices,
             const Tensor& other_values, bool other_coalesced, IntArrayRef size, const Scalar& alpha) {
  return parts(
      at::add(coo(indices, values, size, coalesced), coo(other_indices, other_values, size, other_coalesced), alpha));
}

Tensor coo_add_dense(const Tensor& self, const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size,
                     const Scalar& alpha) {
  return at::add(self, coo(indices, values, size, coalesced), alpha);
}

Pair coo_mul(const Tensor& indices, const Tensor& values, bool coalesced, const Tensor& other_indices,
             const Tensor& other_values, bool other_coalesced, IntArrayRef size) {
  return parts(at::mul(coo(indices, values, size, coalesced), coo(other_indices, other_values, size, other_coalesced)));
}

Tensor coo_addmm(const Tensor& self, const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size,
                 const Tensor& dense, const Scalar& beta, const Scalar& alpha) {
  return at::addmm(self, coo(indices, values, size, coalesced), dense, beta, alpha);
}

Tensor coo_bmm(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size, const Tensor& dense) {
  return at::bmm(coo(indices, values, size, coalesced), dense);
}

Pair coo_matmul(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size,
                const Tensor& other_indices, const Tensor& other_values, bool other_coalesced, IntArrayRef other_size) {
  return parts(at::_sparse_sparse_matmul(coo(indices, values, size, coalesced),
                                         coo(other_indices, other_values, other_size, other_coalesced)));
}

Pair coo_index_select(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size, int64_t dim,
                      const Tensor& index) {
  return parts(at::index_select(coo(indices, values, size, coalesced), dim, index));
}

Pair coo_softmax(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size, int64_t dim,
                 bool half_to_float, bool log) {
  const Tensor sparse = coo(indices, values, size, coalesced);
  return parts(log ? at::_sparse_log_softmax(sparse, dim, half_to_float)
                   : at::_sparse_softmax(sparse, dim, half_to_float));
}

Pair coo_softmax_backward(const Tensor& grad_indices, const Tensor& grad_values, const Tensor& indices,
                          const Tensor& values, IntArrayRef size, int64_t dim, bool log) {
  const Tensor grad = coo(grad_indices, grad_values, size, false).coalesce();
  const Tensor output = coo(indices, values, size, false).coalesce();
  return parts(log ? at::_sparse_log_softmax_backward_data(grad, output, dim, output)
                   : at::_sparse_softmax_backward_data(grad, output, dim, output));
}

Tensor csr_addmm(const Tensor& self, const Tensor& crow, const Tensor& col, const Tensor& values, IntArrayRef size,
                 const Tensor& dense, const Scalar& beta, const Scalar& alpha) {
  return at::addmm(self, csr(crow, col, values, size), dense, beta, alpha);
}

Tensor csr_addmm_right(const Tensor& self, const Tensor& dense, const Tensor& crow, const Tensor& col,
                       const Tensor& values, IntArrayRef size, const Scalar& beta, const Scalar& alpha) {
  return at::addmm(self, dense, csr(crow, col, values, size), beta, alpha);
}

Tensor csr_addmv(const Tensor& self, const Tensor& crow, const Tensor& col, const Tensor& values, IntArrayRef size,
                 const Tensor& vector, const Scalar& beta, const Scalar& alpha) {
  return at::addmv(self, csr(crow, col, values, size), vector, beta, alpha);
}

Tensor csr_sampled_addmm(const Tensor& crow, const Tensor& col, const Tensor& values, IntArrayRef size,
                         const Tensor& left, const Tensor& right, const Scalar& beta, const Scalar& alpha) {
  return at::sparse_sampled_addmm(csr(crow, col, values, size), left, right, beta, alpha).values();
}

}  // namespace

void register_sparse() {
  static const auto* const library = [] {
    auto* own = new torch::Library(torch::Library::DEF, "waldo", std::nullopt, __FILE__, __LINE__);
    for (const char* schema : wire::kOwnOperators) own->def(schema);
    own->impl("coo_coalesce", coo_coalesce);
    own->impl("coo_add", coo_add);
    own->impl("coo_add_dense", coo_add_dense);
    own->impl("coo_mul", coo_mul);
    own->impl("coo_addmm", coo_addmm);
    own->impl("coo_bmm", coo_bmm);
    own->impl("coo_matmul", coo_matmul);
    own->impl("coo_index_select", coo_index_select);
    own->impl("coo_softmax", coo_softmax);
    own->impl("coo_softmax_backward", coo_softmax_backward);
    own->impl("csr_addmm", csr_addmm);
    own->impl("csr_addmm_right", csr_addmm_right);
    own->impl("csr_addmv", csr_addmv);
    own->impl("csr_sampled_addmm", csr_sampled_addmm);
    return own;  // never freed: our libraries are never unloaded
  }();
  static_cast<void>(library);
}

}  // namespace waldo::torch_backend
