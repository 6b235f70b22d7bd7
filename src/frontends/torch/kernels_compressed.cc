#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/ops/_sparse_csr_tensor_unsafe.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Contiguity.h>

#include "frontends/torch/kernels_made_of.h"
#include "frontends/torch/kernels_sparse.h"
#include "wire/own_operators.h"

// The operators on compressed sparse tensors (CSR, CSC, BSR, BSC) whose function is CUDA's own: the worker's kernel
// runs, through wire/own_operators.h.

namespace at::native {
// PyTorch exports the stub and ships no header that declares it.
using flatten_indices_fn = Tensor (*)(const Tensor& indices, IntArrayRef size);
DECLARE_DISPATCH(flatten_indices_fn, flatten_indices_stub)
}  // namespace at::native

namespace waldo::torch_frontend {
namespace {

using at::IntArrayRef;
using at::Scalar;
using at::Tensor;
using Tensors = std::vector<Tensor>;

int64_t number_of(at::Layout layout) {
  switch (layout) {
    case at::kStrided:
      return wire::kPlain;
    case at::kSparse:
      return wire::kCoo;
    case at::kSparseCsr:
      return wire::kCsr;
    case at::kSparseCsc:
      return wire::kCsc;
    case at::kSparseBsr:
      return wire::kBsr;
    case at::kSparseBsc:
      return wire::kBsc;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "tensors of layout ", layout, " are not available on a Waldo device");
  }
}

Tensors parts_of(const Tensor& tensor) {
  if (tensor.layout() == at::kStrided) return {tensor};
  if (tensor.layout() == at::kSparse) return {tensor._indices(), tensor._values()};
  const auto* impl = at::sparse_csr::get_sparse_csr_impl(tensor);
  return {impl->compressed_indices(), impl->plain_indices(), impl->values()};
}

// `made`, of `size`, becomes what out= is.
Tensor& into(Tensor& out, const Tensors& made, IntArrayRef size) {
  if (out.layout() == at::kStrided && made.size() == 1) return into_dense(out, made[0]);
  TORCH_CHECK(at::sparse_csr::is_sparse_compressed(out) && made.size() == 3, "the result is no tensor of layout ",
              out.layout());
  at::sparse_csr::get_sparse_csr_impl(out)->set_member_tensors(made[0], made[1], made[2].to(out.scalar_type()), size);
  return out;
}

Tensor& addmm_out(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta, const Scalar& alpha,
                  Tensor& out) {
  const Tensors made = any_addmm(self, left, right, beta, alpha);
  return into(out, made, {left.size(0), right.size(1)});
}

Tensor& addmv_out(const Tensor& self, const Tensor& matrix, const Tensor& vector, const Scalar& beta,
                  const Scalar& alpha, Tensor& out) {
  return into_dense(out, own<Tensor>("compressed_addmv", self, parts_of(matrix), number_of(matrix.layout()),
                                     matrix.sizes(), vector, beta, alpha));
}

Tensor& add_out(const Tensor& self, const Tensor& other, const Scalar& alpha, Tensor& out) {
  const std::vector<int64_t> layouts = {number_of(self.layout()), number_of(other.layout())};
  return into(
      out, own<Tensors>("compressed_add", parts_of(self), parts_of(other), layouts, self.sizes(), other.sizes(), alpha),
      self.sizes());
}

template <bool kProduct>
Tensor reduce(const Tensor& self, IntArrayRef dim, bool keepdim, std::optional<at::ScalarType> dtype) {
  const Tensors made = own<Tensors>("compressed_reduce", parts_of(self), number_of(self.layout()), self.sizes(), dim,
                                    keepdim, dtype, kProduct);
  std::vector<int64_t> size = self.sizes().vec();
  for (const int64_t d : dim) size[static_cast<size_t>(at::maybe_wrap_dim(d, self.dim()))] = 1;
  return at::_sparse_csr_tensor_unsafe(made[0], made[1], made[2], size, self.options().dtype(made[2].scalar_type()));
}

std::tuple<Tensor&, Tensor&> triangular_solve_out(const Tensor& self, const Tensor& matrix, bool upper, bool transpose,
                                                  bool unitriangular, Tensor& out, Tensor& copied) {
  into_dense(out, own<Tensor>("compressed_solve", self, parts_of(matrix), number_of(matrix.layout()), matrix.sizes(),
                              upper, transpose, unitriangular));
  return {out, copied};
}

Tensor sampled_values(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta,
                      const Scalar& alpha) {
  TORCH_CHECK(self.layout() == at::kSparseCsr, "sampled_addmm: Expected self to have sparse csr layout, but got ",
              self.layout());
  return own<Tensor>("csr_sampled_addmm", self.crow_indices(), self.col_indices(), self.values(), self.sizes(), left,
                     right, beta, alpha);
}

Tensor sampled_addmm(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta,
                     const Scalar& alpha) {
  const Tensor values = sampled_values(self, left, right, beta, alpha);
  return at::_sparse_csr_tensor_unsafe(self.crow_indices().clone(), self.col_indices().clone(), values, self.sizes(),
                                       self.options());
}

Tensor& sampled_addmm_out(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta,
                          const Scalar& alpha, Tensor& out) {
  TORCH_CHECK(out.layout() == at::kSparseCsr, "sampled_addmm: Expected result to have sparse csr layout, but got ",
              out.layout());
  const Tensor values = sampled_values(self, left, right, beta, alpha);
  if (!out.is_same(self)) {
    out.resize_as_sparse_(self);
    out.copy_(self);
  }
  out.values().copy_(values);
  return out;
}

// Where each column of `indices` lies in a tensor of `size` that is stored in rows. Conversions between layouts, which
// are operators on the plain tensors otherwise, ask for it.
Tensor flatten_indices(const Tensor& indices, IntArrayRef size) {
  Tensor flat = at::zeros({indices.size(1)}, indices.options().dtype(at::kLong));
  int64_t stride = 1;
  for (int64_t d = static_cast<int64_t>(size.size()) - 1; d >= 0; --d) {
    flat.add_(indices.select(0, d), stride);
    stride *= std::max<int64_t>(size[static_cast<size_t>(d)], 1);
  }
  return flat;
}

}  // namespace

Tensors any_addmm(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta,
                  const Scalar& alpha) {
  const std::vector<int64_t> layouts = {number_of(self.layout()), number_of(left.layout()), number_of(right.layout())};
  return own<Tensors>("compressed_addmm", parts_of(self), parts_of(left), parts_of(right), layouts, self.sizes(),
                      left.sizes(), right.sizes(), beta, alpha);
}

void register_compressed_kernels() {
  auto& compressed = library_of(c10::DispatchKey::SparseCsrCUDA);
  compressed.impl("addmm.out", TORCH_FN(addmm_out));
  compressed.impl("addmv.out", TORCH_FN(addmv_out));
  compressed.impl("add.out", TORCH_FN(add_out));
  compressed.impl("_sparse_csr_sum.dim_dtype", TORCH_FN(reduce<false>));
  compressed.impl("_sparse_csr_prod.dim_dtype", TORCH_FN(reduce<true>));
  compressed.impl("triangular_solve.X", TORCH_FN(triangular_solve_out));
  compressed.impl("sparse_sampled_addmm", TORCH_FN(sampled_addmm));
  compressed.impl("sparse_sampled_addmm.out", TORCH_FN(sampled_addmm_out));
  at::native::flatten_indices_stub.set_cuda_dispatch_ptr(&flatten_indices);
}

}  // namespace waldo::torch_frontend
