#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/SparseTensorUtils.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <string_view>
#include <tuple>

#include "frontends/torch/forward.h"
#include "frontends/torch/kernels_made_of.h"
#include "frontends/torch/kernels_sparse.h"
#include "wire/own_operators.h"

// The operators on sparse COO tensors whose function is CUDA's own: the worker's kernel runs, through
// wire/own_operators.h.

namespace waldo::torch_frontend {
namespace {

using at::IntArrayRef;
using at::Scalar;
using at::Tensor;
using Pair = TensorPair;

Tensor coo(const Pair& parts, IntArrayRef size, const Tensor& like, bool coalesced) {
  const auto& [indices, values] = parts;
  return at::_sparse_coo_tensor_unsafe(indices, values, size, like.options().dtype(values.scalar_type()), coalesced);
}

// `made` becomes what the sparse out= argument is.
Tensor& into(Tensor& out, const Pair& parts, IntArrayRef size, bool coalesced) {
  out.sparse_resize_and_clear_(size, static_cast<int64_t>(size.size()) - std::get<1>(parts).dim() + 1,
                               std::get<1>(parts).dim() - 1);
  const Tensor values = std::get<1>(parts).to(out.scalar_type());
  at::sparse::alias_into_sparse(out, std::get<0>(parts), values);
  return out._coalesced_(coalesced);
}

Tensor coalesce(const Tensor& self) {
  if (self._nnz() < 2) {
    Tensor same = self.clone();
    same._coalesced_(true);
    return same;
  }
  return coo(own<Pair>("coo_coalesce", self._indices(), self._values(), self.sizes()), self.sizes(), self, true);
}

Tensor& add_out(const Tensor& self, const Tensor& other, const Scalar& alpha, Tensor& out) {
  TORCH_CHECK(other.is_sparse(), "add(sparse, dense) is not supported. Use add(dense, sparse) instead.");
  if (!self.is_sparse()) {
    TORCH_CHECK(self.sizes() == other.sizes(), "add: expected 'self' and 'other' to have same size, but self has size ",
                self.sizes(), " while other has size ", other.sizes(),
                " (FYI: dense-sparse addition does not currently support broadcasting)");
    return into_dense(out, own<Tensor>("coo_add_dense", self, other._indices(), other._values(), other.is_coalesced(),
                                       other.sizes(), alpha));
  }
  TORCH_CHECK(self.sizes() == other.sizes(), "add: expected sizes of 'self' and 'other' to match, but ", self.sizes(),
              " != ", other.sizes());
  return into(out,
              own<Pair>("coo_add", self._indices(), self._values(), self.is_coalesced(), other._indices(),
                        other._values(), other.is_coalesced(), self.sizes(), alpha),
              self.sizes(), self.is_coalesced() && other.is_coalesced());
}

// The dense values at the places of a sparse tensor's values, as PyTorch's mul takes them.
Tensor values_at(const Tensor& dense, const Tensor& sparse) {
  if (dense.dim() == 0) return dense;
  c10::List<std::optional<Tensor>> places;
  for (const Tensor& place : sparse._indices().unbind(0)) places.push_back(place);
  return at::index(dense.expand(sparse.sizes()), places);
}

Tensor& mul_dense_out(const Tensor& sparse, const Tensor& dense, Tensor& out) {
  if (at::is_expandable_to(dense.sizes(), sparse.sizes())) {
    return into(out, {sparse._indices().clone(), at::mul(sparse._values(), values_at(dense, sparse))}, sparse.sizes(),
                sparse.is_coalesced());
  }
  const auto size = at::infer_size_dimvector(sparse.sizes(), dense.sizes());
  return into(
      out,
      own<Pair>("coo_mul_dense", sparse._indices(), sparse._values(), sparse.is_coalesced(), sparse.sizes(), dense),
      size, sparse.is_coalesced());
}

Tensor& mul_out(const Tensor& self, const Tensor& other, Tensor& out) {
  TORCH_CHECK(out.is_sparse(), "mul: expected the result to be sparse");
  if (!self.is_sparse()) return mul_dense_out(other, self, out);
  if (!other.is_sparse()) return mul_dense_out(self, other, out);
  const Pair made = own<Pair>("coo_mul", self._indices(), self._values(), self.is_coalesced(), other._indices(),
                              other._values(), other.is_coalesced(), self.sizes(), other.sizes());
  return into(out, made, at::infer_size_dimvector(self.sizes(), other.sizes()),
              self.is_coalesced() && other.is_coalesced());
}

Tensor addmm(const Tensor& self, const Tensor& sparse, const Tensor& dense, const Scalar& beta, const Scalar& alpha) {
  if (!sparse.is_sparse() || dense.layout() != at::kStrided) return any_addmm(self, sparse, dense, beta, alpha)[0];
  const Tensor expanded = *at::expand_size(self, {sparse.size(0), dense.size(1)}, "addmm");
  return own<Tensor>("coo_addmm", expanded, sparse._indices(), sparse._values(), sparse.is_coalesced(), sparse.sizes(),
                     dense, beta, alpha);
}
Tensor& addmm_out(const Tensor& self, const Tensor& sparse, const Tensor& dense, const Scalar& beta,
                  const Scalar& alpha, Tensor& out) {
  return into_dense(out, addmm(self, sparse, dense, beta, alpha));
}
Tensor& addmm_(Tensor& self, const Tensor& sparse, const Tensor& dense, const Scalar& beta, const Scalar& alpha) {
  return self.copy_(addmm(self, sparse, dense, beta, alpha));
}

Tensor bmm(const Tensor& self, const Tensor& dense) {
  return own<Tensor>("coo_bmm", self._indices(), self._values(), self.is_coalesced(), self.sizes(), dense);
}

Tensor hspmm(const Tensor& self, const Tensor& dense) {
  const Pair made = own<Pair>("coo_hspmm", self._indices(), self._values(), self.is_coalesced(), self.sizes(), dense);
  return coo(made, {self.size(0), dense.size(1)}, self, false);
}

Tensor matmul(const Tensor& self, const Tensor& other) {
  return coo(own<Pair>("coo_matmul", self._indices(), self._values(), self.is_coalesced(), self.sizes(),
                       other._indices(), other._values(), other.is_coalesced(), other.sizes()),
             {self.size(0), other.size(1)}, self, true);
}

Tensor index_select(const Tensor& self, int64_t dim, const Tensor& index) {
  const int64_t wrapped = at::maybe_wrap_dim(dim, self.dim());
  std::vector<int64_t> size = self.sizes().vec();
  size[static_cast<size_t>(wrapped)] = index.numel();
  return coo(
      own<Pair>("coo_index_select", self._indices(), self._values(), self.is_coalesced(), self.sizes(), wrapped, index),
      size, self, false);
}

template <bool kLog>
Tensor softmax(const Tensor& self, int64_t dim, bool half_to_float) {
  return coo(own<Pair>("coo_softmax", self._indices(), self._values(), self.is_coalesced(), self.sizes(), dim,
                       half_to_float, kLog),
             self.sizes(), self, true);
}

template <bool kLog>
Tensor softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim, const Tensor&) {
  return coo(own<Pair>("coo_softmax_backward", grad._indices(), grad._values(), output._indices(), output._values(),
                       output.sizes(), dim, kLog),
             output.sizes(), output, true);
}

}  // namespace

void register_sparse_kernels() {
  auto* schemas = new torch::Library(torch::Library::DEF, "waldo", std::nullopt, __FILE__, __LINE__);
  for (const char* schema : wire::kOwnOperators) schemas->def(schema);
  auto* far = new torch::Library(torch::Library::IMPL, "waldo", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  for (const std::string_view schema : wire::kOwnOperators) {
    const std::string name(schema.substr(0, schema.find('(')));
    const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(("waldo::" + name).c_str(), "");
    far->impl(name.c_str(), torch::CppFunction::makeFromBoxedKernel(
                                c10::BoxedKernel::makeFromFunctor(std::make_unique<ForwardKernel>(handle))));
  }
  auto& coo = library_of(c10::DispatchKey::SparseCUDA);
  coo.impl("_coalesce", TORCH_FN(coalesce));
  coo.impl("add.out", TORCH_FN(add_out));
  coo.impl("mul.out", TORCH_FN(mul_out));
  coo.impl("addmm", TORCH_FN(addmm));
  coo.impl("addmm.out", TORCH_FN(addmm_out));
  coo.impl("addmm_", TORCH_FN(addmm_));
  coo.impl("bmm", TORCH_FN(bmm));
  coo.impl("hspmm", TORCH_FN(hspmm));
  coo.impl("_sparse_sparse_matmul", TORCH_FN(matmul));
  coo.impl("index_select", TORCH_FN(index_select));
  coo.impl("_sparse_softmax", TORCH_FN(softmax<false>));
  coo.impl("_sparse_log_softmax", TORCH_FN(softmax<true>));
  coo.impl("_sparse_softmax_backward_data", TORCH_FN(softmax_backward<false>));
  coo.impl("_sparse_log_softmax_backward_data", TORCH_FN(softmax_backward<true>));
  register_compressed_kernels();
}

}  // namespace waldo::torch_frontend
