// The objects behind a tensor on a worker: an ordinary StorageImpl and an ordinary TensorImpl, but for where their
// memory comes from, and that a tensor can be made from a prototype whose sizes and strides were worked out once per
// plan. Nothing may depend on their types: PyTorch makes plain ones too (views, detach).
#pragma once

#include <c10/core/InferenceMode.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>

#include <utility>

#include "frontends/torch/spare_memory.h"
#include "frontends/torch/storage.h"

namespace waldo::torch_frontend {

// Objects of an Impl in the thread's spare memory.
template <typename Impl, SpareMemory::Kind kKind>
struct FromSpareMemory {
  static void* operator new([[maybe_unused]] size_t bytes) { return SpareMemory::take<sizeof(Impl)>(kKind); }
  static void operator delete(void* memory) noexcept { SpareMemory::give_back<sizeof(Impl)>(kKind, memory); }
};

class FarStorageImpl final : public c10::StorageImpl,
                             public FromSpareMemory<c10::StorageImpl, SpareMemory::Kind::kStorage> {
 public:
  [[gnu::always_inline]] FarStorageImpl(uint64_t bytes, c10::DataPtr&& data)
      : c10::StorageImpl(use_byte_size_t(), c10::SymInt(c10::SymInt::UNCHECKED, static_cast<int64_t>(bytes)),
                         std::move(data), torch_frontend::allocator(), true) {}
};
static_assert(sizeof(FarStorageImpl) == sizeof(c10::StorageImpl));

class FarTensorImpl final : public c10::TensorImpl,
                            public FromSpareMemory<c10::TensorImpl, SpareMemory::Kind::kTensor> {
 public:
  FarTensorImpl(c10::Storage&& storage, caffe2::TypeMeta dtype)
      : c10::TensorImpl(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype) {}
  // Without a storage: a prototype.
  FarTensorImpl(caffe2::TypeMeta dtype, c10::DeviceIndex device)
      : c10::TensorImpl(c10::DispatchKeySet(c10::DispatchKey::CUDA), dtype,
                        c10::Device(c10::DeviceType::CUDA, device)) {}
  // Sizes, strides, offset and dtype as the prototype's, and the device, which must be its storage's too. The base's
  // constructor for views takes the keys as they are, the others work them out anew, for a fifth of all this.
  FarTensorImpl(c10::Storage&& storage, const FarTensorImpl& prototype)
      : c10::TensorImpl(c10::TensorImpl::VIEW, std::move(storage), prototype.keys_now(), prototype.data_type_) {
    sizes_and_strides_ = prototype.sizes_and_strides_;
    storage_offset_ = prototype.storage_offset_;
    numel_ = prototype.numel_;
    is_contiguous_ = prototype.is_contiguous_;
    is_channels_last_ = prototype.is_channels_last_;
    is_channels_last_contiguous_ = prototype.is_channels_last_contiguous_;
    is_channels_last_3d_ = prototype.is_channels_last_3d_;
    is_channels_last_3d_contiguous_ = prototype.is_channels_last_3d_contiguous_;
    is_non_overlapping_and_dense_ = prototype.is_non_overlapping_and_dense_;
  }

 private:
  // Of a tensor made now; a prototype is made outside of inference mode.
  c10::DispatchKeySet keys_now() const {
    return c10::InferenceMode::is_enabled() ? key_set_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView : key_set_;
  }
};
static_assert(sizeof(FarTensorImpl) == sizeof(c10::TensorImpl));

}  // namespace waldo::torch_frontend
