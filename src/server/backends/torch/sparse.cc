#include "server/backends/torch/sparse.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_coalesce.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_sparse_csr_prod.h>
#include <ATen/ops/_sparse_csr_sum.h>
#include <ATen/ops/_sparse_log_softmax.h>
#include <ATen/ops/_sparse_log_softmax_backward_data.h>
#include <ATen/ops/_sparse_softmax.h>
#include <ATen/ops/_sparse_softmax_backward_data.h>
#include <ATen/ops/_sparse_sparse_matmul.h>
#include <ATen/ops/_validate_sparse_compressed_tensor_args.h>
#include <ATen/ops/_validate_sparse_coo_tensor_args.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/addmv.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/hspmm.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sparse_sampled_addmm.h>
#include <ATen/ops/triangular_solve.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

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
             const Tensor& other_values, bool other_coalesced, IntArrayRef size, IntArrayRef other_size) {
  return parts(
      at::mul(coo(indices, values, size, coalesced), coo(other_indices, other_values, other_size, other_coalesced)));
}

Pair coo_mul_dense(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size, const Tensor& dense) {
  return parts(at::mul(coo(indices, values, size, coalesced), dense));
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

Pair coo_hspmm(const Tensor& indices, const Tensor& values, bool coalesced, IntArrayRef size, const Tensor& dense) {
  return parts(at::hspmm(coo(indices, values, size, coalesced), dense));
}

// Tensors of any layout.

Tensor whole(const c10::List<Tensor>& parts, int64_t layout, IntArrayRef size) {
  constexpr at::Layout kCompressed[] = {at::kSparseCsr, at::kSparseCsc, at::kSparseBsr, at::kSparseBsc};
  TORCH_CHECK(layout >= wire::kPlain && layout <= wire::kBsc, "no layout has the number ", layout);
  const size_t count = layout == wire::kPlain ? 1 : layout == wire::kCoo ? 2 : 3;
  TORCH_CHECK(parts.size() == count, "a tensor of layout ", layout, " is made of ", count, " tensors");
  if (layout == wire::kPlain) return parts.get(0);
  if (layout == wire::kCoo) return coo(parts.get(0), parts.get(1), size, false);
  const at::Layout kind = kCompressed[layout - wire::kCsr];
  const Tensor compressed = parts.get(0), plain = parts.get(1), values = parts.get(2);
  at::_validate_sparse_compressed_tensor_args(compressed, plain, values, size, kind);
  return at::_sparse_compressed_tensor_unsafe(compressed, plain, values, size, values.options().layout(kind));
}

std::vector<Tensor> parts_of(const Tensor& made) {
  if (made.layout() == at::kStrided) return {made};
  if (made.layout() == at::kSparse) return {made._indices(), made._values()};
  if (made.layout() == at::kSparseCsr || made.layout() == at::kSparseBsr) {
    return {made.crow_indices(), made.col_indices(), made.values()};
  }
  return {made.ccol_indices(), made.row_indices(), made.values()};
}

std::vector<Tensor> compressed_addmm(const c10::List<Tensor>& self, const c10::List<Tensor>& left,
                                     const c10::List<Tensor>& right, IntArrayRef layouts, IntArrayRef self_size,
                                     IntArrayRef left_size, IntArrayRef right_size, const Scalar& beta,
                                     const Scalar& alpha) {
  TORCH_CHECK(layouts.size() == 3, "three layouts belong to three tensors");
  return parts_of(at::addmm(whole(self, layouts[0], self_size), whole(left, layouts[1], left_size),
                            whole(right, layouts[2], right_size), beta, alpha));
}

Tensor compressed_addmv(const Tensor& self, const c10::List<Tensor>& matrix, int64_t layout, IntArrayRef size,
                        const Tensor& vector, const Scalar& beta, const Scalar& alpha) {
  return at::addmv(self, whole(matrix, layout, size), vector, beta, alpha);
}

std::vector<Tensor> compressed_add(const c10::List<Tensor>& self, const c10::List<Tensor>& other, IntArrayRef layouts,
                                   IntArrayRef self_size, IntArrayRef other_size, const Scalar& alpha) {
  TORCH_CHECK(layouts.size() == 2, "two layouts belong to two tensors");
  return parts_of(at::add(whole(self, layouts[0], self_size), whole(other, layouts[1], other_size), alpha));
}

std::vector<Tensor> compressed_reduce(const c10::List<Tensor>& self, int64_t layout, IntArrayRef size, IntArrayRef dim,
                                      bool keepdim, std::optional<at::ScalarType> dtype, bool product) {
  const Tensor sparse = whole(self, layout, size);
  return parts_of(product ? at::_sparse_csr_prod(sparse, dim, keepdim, dtype)
                          : at::_sparse_csr_sum(sparse, dim, keepdim, dtype));
}

Tensor compressed_solve(const Tensor& self, const c10::List<Tensor>& matrix, int64_t layout, IntArrayRef size,
                        bool upper, bool transpose, bool unitriangular) {
  return std::get<0>(at::triangular_solve(self, whole(matrix, layout, size), upper, transpose, unitriangular));
}

Tensor csr_sampled_addmm(const Tensor& crow, const Tensor& col, const Tensor& values, IntArrayRef size,
                         const Tensor& left, const Tensor& right, const Scalar& beta, const Scalar& alpha) {
  return at::sparse_sampled_addmm(whole(c10::List<Tensor>({crow, col, values}), wire::kCsr, size), left, right, beta,
                                  alpha)
      .values();
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
    own->impl("coo_mul_dense", coo_mul_dense);
    own->impl("coo_addmm", coo_addmm);
    own->impl("coo_bmm", coo_bmm);
    own->impl("coo_matmul", coo_matmul);
    own->impl("coo_index_select", coo_index_select);
    own->impl("coo_softmax", coo_softmax);
    own->impl("coo_softmax_backward", coo_softmax_backward);
    own->impl("coo_hspmm", coo_hspmm);
    own->impl("compressed_addmm", compressed_addmm);
    own->impl("compressed_addmv", compressed_addmv);
    own->impl("compressed_add", compressed_add);
    own->impl("compressed_reduce", compressed_reduce);
    own->impl("compressed_solve", compressed_solve);
    own->impl("csr_sampled_addmm", csr_sampled_addmm);
    return own;  // never freed: our libraries are never unloaded
  }();
  static_cast<void>(library);
}

}  // namespace waldo::torch_backend
