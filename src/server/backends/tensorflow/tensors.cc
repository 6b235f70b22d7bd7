#include "server/backends/tensorflow/tensors.h"

#include <tensorflow/c/tf_datatype.h>
#include <tensorflow/c/tf_tensor.h>
#include <tensorflow/c/tf_tstring.h>

#include <cstring>

#include "wire/limits.h"

namespace waldo::tensorflow_backend {

using wire::tf::Input;
using wire::tf::TensorMeta;

namespace {

constexpr size_t kAlignment = 64;  // EIGEN_MAX_ALIGN_BYTES of the wheels

Status invalid(const char* text) { return Status(StatusKind::kInvalid, text); }

// The bytes a tensor like this has; kInvalid for what has no plain bytes, or too many.
Result<uint64_t> bytes_of(const TensorMeta& meta) {
  const uint64_t element = TF_DataTypeSize(static_cast<TF_DataType>(meta.dtype));
  if (element == 0) return invalid("a tensor of a type without plain bytes");
  uint64_t bytes = element;
  for (const int64_t dim : meta.dims) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes) || bytes > limits::storage_bytes_max) {
      return invalid("a tensor past storage_bytes_max");
    }
  }
  return bytes;
}

TF_Tensor* allocate(const TensorMeta& meta, size_t bytes) {
  return TF_AllocateTensor(static_cast<TF_DataType>(meta.dtype), meta.dims.data(), static_cast<int>(meta.dims.size()),
                           bytes);
}

Result<Handle> to_handle(Tensor tensor) {
  if (tensor == nullptr) return Status(StatusKind::kDevice, "out of memory");
  TfStatus status(TF_NewStatus());
  Handle handle(TFE_NewTensorHandle(tensor.get(), status.get()));
  WALDO_TRY(to_status(status.get(), ""));
  return handle;
}

Result<Handle> make_strings(const Input& input) {
  uint64_t count = 1;
  for (const int64_t dim : input.meta.dims) {
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(dim), &count)) return invalid("too many strings");
  }
  if (count != input.texts.size()) return invalid("another number of strings than the shape says");
  Tensor tensor(allocate(input.meta, count * sizeof(TF_TString)));
  if (tensor == nullptr) return Status(StatusKind::kDevice, "out of memory");
  auto* strings = static_cast<TF_TString*>(TF_TensorData(tensor.get()));
  for (size_t i = 0; i < count; ++i) {
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], input.texts[i].data(), input.texts[i].size());
  }
  return to_handle(std::move(tensor));
}

}  // namespace

Status failure(TF_Code code, const std::string& text, const std::string& op) {
  StatusDetail detail;
  detail.error_class = static_cast<uint16_t>(code);
  detail.op = op;
  return Status(StatusKind::kDevice, text, std::move(detail));
}

Status to_status(const TF_Status* status, const std::string& op) {
  const TF_Code code = TF_GetCode(status);
  return code == TF_OK ? Status() : failure(code, TF_Message(status), op);
}

TensorMeta meta_of(TFE_TensorHandle* handle, TF_Status* status) {
  TensorMeta meta;
  meta.dtype = static_cast<uint32_t>(TFE_TensorHandleDataType(handle));
  const int rank = TFE_TensorHandleNumDims(handle, status);
  for (int i = 0; i < rank && TF_GetCode(status) == TF_OK; ++i) {
    meta.dims.push_back(TFE_TensorHandleDim(handle, i, status));
  }
  return meta;
}

Result<Handle> make_tensor(const Input& input) {
  if (input.meta.dtype == wire::tf::kTypeString) return make_strings(input);
  const auto bytes = bytes_of(input.meta);
  if (!bytes.ok()) return bytes.status();
  if (*bytes != input.content.size()) return invalid("another number of bytes than the tensor's shape says");
  Tensor tensor(allocate(input.meta, *bytes));
  if (tensor != nullptr && *bytes != 0) std::memcpy(TF_TensorData(tensor.get()), input.content.data(), *bytes);
  return to_handle(std::move(tensor));
}

Result<Handle> make_tensor(const TensorMeta& meta, server::UploadedBytes bytes) {
  const auto wanted = bytes_of(meta);
  if (!wanted.ok()) return wanted.status();
  if (*wanted != bytes.size) return invalid("another number of bytes than the tensor's shape says");
  if (bytes.size == 0) return to_handle(Tensor(allocate(meta, 0)));
  auto* kept = new server::UploadedBytes(std::move(bytes));
  return to_handle(Tensor(TF_NewTensor(
      static_cast<TF_DataType>(meta.dtype), meta.dims.data(), static_cast<int>(meta.dims.size()), kept->data.get(),
      kept->size, [](void*, size_t, void* owner) { delete static_cast<server::UploadedBytes*>(owner); }, kept)));
}

Result<Handle> make_view(TFE_TensorHandle* base, const TensorMeta& meta, int64_t offset_bytes) {
  const auto bytes = bytes_of(meta);
  if (!bytes.ok()) return bytes.status();
  TfStatus status(TF_NewStatus());
  Tensor whole(TFE_TensorHandleResolve(base, status.get()));
  WALDO_TRY(to_status(status.get(), ""));
  const auto offset = static_cast<uint64_t>(offset_bytes);
  const size_t there = TF_TensorByteSize(whole.get());
  if (TF_DataTypeSize(TF_TensorType(whole.get())) == 0 || offset > there || *bytes > there - offset) {
    return invalid("a view past the end of its value");
  }
  auto* data = static_cast<std::byte*>(TF_TensorData(whole.get())) + offset;
  if (*bytes == 0 || reinterpret_cast<uintptr_t>(data) % kAlignment != 0) {
    Tensor copy(allocate(meta, *bytes));
    if (copy != nullptr && *bytes != 0) std::memcpy(TF_TensorData(copy.get()), data, *bytes);
    return to_handle(std::move(copy));
  }
  TF_Tensor* owner = whole.release();
  return to_handle(Tensor(TF_NewTensor(
      static_cast<TF_DataType>(meta.dtype), meta.dims.data(), static_cast<int>(meta.dims.size()), data, *bytes,
      [](void*, size_t, void* base_tensor) { TF_DeleteTensor(static_cast<TF_Tensor*>(base_tensor)); }, owner)));
}

}  // namespace waldo::tensorflow_backend
