#include <ATen/Dispatch_v2.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/Scalar.h>

#include <cstring>

#include "frontends/torch/bridge.h"
#include "frontends/torch/device.h"
#include "frontends/torch/errors.h"
#include "frontends/torch/forward.h"
#include "frontends/torch/graph_recording.h"
#include "frontends/torch/kernels.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {
namespace {

bool lazy(const at::Tensor& tensor) { return tensor.is_conj() || tensor.is_neg(); }

// Its elements are all of a range of its storage, each once.
bool dense(const at::Tensor& tensor) { return tensor.is_non_overlapping_and_dense(); }

bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.strides() == b.strides() || (a.is_contiguous() && b.is_contiguous()));
}

void forward_copy(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  static const auto* op = new Operator(c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", ""));
  torch::jit::Stack stack;
  stack.reserve(3);
  stack.emplace_back(self);
  stack.emplace_back(source);
  stack.emplace_back(non_blocking);
  forward(*op, &stack);
}

// `host` and the dense far tensor have the same layout.
void upload_raw(const at::Tensor& far, const at::Tensor& host) {
  const StorageRef* ref = storage_ref(*far.unsafeGetTensorImpl());
  const uint64_t size = far.element_size();
  note_unfit("uploads a value");
  WaitScope wait;
  check(ref->queue->upload(ref->slot, static_cast<uint64_t>(far.storage_offset()) * size, host.const_data_ptr(),
                           static_cast<uint64_t>(far.numel()) * size));
}

void download_raw(at::Tensor& host, const at::Tensor& far) {
  const StorageRef* ref = storage_ref(*far.unsafeGetTensorImpl());
  const uint64_t size = far.element_size();
  void* to = host.mutable_data_ptr();
  note_unfit("reads a value");
  Status status;
  {
    WaitScope wait;
    status = ref->queue->read(ref->slot, static_cast<uint64_t>(far.storage_offset()) * size, to,
                              static_cast<uint64_t>(far.numel()) * size);
  }
  check(status);
}

// Up. Bytes go straight to where they belong when that is one dense range, else through a temporary on the device.
void copy_up(at::Tensor& self, const at::Tensor& given) {
  TORCH_CHECK_NOT_IMPLEMENTED(given.is_cpu(), "Cannot copy out of ", given.device().str(),
                              " tensor into a Waldo device");
  TORCH_CHECK_NOT_IMPLEMENTED(given.layout() == at::kStrided, "Cannot copy a ", given.layout(),
                              " tensor to a Waldo device");
  at::Tensor source = given.resolve_conj().resolve_neg();
  // The smaller dtype travels; the other side converts, with the same result.
  if (source.scalar_type() != self.scalar_type() && source.element_size() > self.element_size()) {
    source = source.to(self.scalar_type());
  }
  if (source.scalar_type() == self.scalar_type() && source.sizes() == self.sizes() && dense(self) && !lazy(self)) {
    if (self.numel() == 0) return;
    if (!same_layout(self, source)) {
      at::Tensor host = at::empty_strided(self.sizes(), self.strides(), source.options());
      source = host.copy_(source);
    }
    return upload_raw(self, source);
  }
  source = source.contiguous();
  at::Tensor there = empty_far(source.sizes(), source.scalar_type(), self.device());
  if (source.numel() != 0) upload_raw(there, source);
  forward_copy(self, there, false);
}

// Down. The device converts, resolves and packs; what is one dense range of the same layout lands in place.
void copy_down(at::Tensor& self, const at::Tensor& given) {
  at::Tensor source = given;
  if (source.scalar_type() != self.scalar_type()) source = source.to(self.scalar_type());
  source = source.resolve_conj().resolve_neg();
  if (!dense(source) || (self.is_contiguous() && !source.is_contiguous())) source = source.contiguous();
  if (source.numel() == 0 && self.numel() == 0) return;
  if (!lazy(self) && dense(self) && same_layout(self, source)) return download_raw(self, source);
  at::Tensor host = at::empty_strided(source.sizes(), source.strides(), source.options().device(at::kCPU));
  if (source.numel() != 0) download_raw(host, source);
  self.copy_(host);
}

}  // namespace

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  if (self.is_same(source)) return self;
  TORCH_CHECK(self.defined() && source.defined(), "copy_: a tensor is undefined");
  TORCH_CHECK_NOT_IMPLEMENTED(!source.is_meta(), "Cannot copy out of meta tensor; no data!");
  if (!self.is_cuda()) {
    copy_down(self, source);
  } else if (!source.is_cuda()) {
    copy_up(self, source);
  } else {
    const auto* to = storage_ref(*self.unsafeGetTensorImpl());
    const auto* from = storage_ref(*source.unsafeGetTensorImpl());
    if (to != nullptr && from != nullptr && to->queue != from->queue &&
        &to->queue->session() != &from->queue->session()) {
      copy_up(self, source.cpu());  // two hosts
    } else {
      forward_copy(self, source, non_blocking);
    }
  }
  if (launch_blocking()) [[unlikely]]
    synchronize_device(-1);
  return self;
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  const StorageRef* ref = storage_ref(*self.unsafeGetTensorImpl());
  TORCH_CHECK(ref != nullptr, "a tensor without storage has no value");
  note_unfit("reads a value");
  alignas(16) std::byte value[16] = {};
  Status status;
  {
    WaitScope wait;
    status = ref->queue->read(ref->slot, static_cast<uint64_t>(self.storage_offset()) * self.element_size(), value,
                              self.element_size());
  }
  check(status);
  at::Scalar scalar;
  AT_DISPATCH_V2(self.scalar_type(), "_local_scalar_dense", AT_WRAP([&] {
                   scalar_t element;
                   std::memcpy(&element, value, sizeof element);
                   scalar = at::Scalar(element);
                 }),
                 AT_EXPAND(AT_ALL_TYPES_AND_COMPLEX), at::kComplexHalf, at::kHalf, at::kBool, at::kBFloat16,
                 AT_EXPAND(AT_BAREBONES_UNSIGNED_TYPES), AT_EXPAND(AT_FLOAT8_TYPES));
  if (self.is_conj()) scalar = scalar.conj();
  if (self.is_neg()) scalar = -scalar;
  return scalar;
}

}  // namespace waldo::torch_frontend
