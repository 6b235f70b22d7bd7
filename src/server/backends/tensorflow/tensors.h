// Small owners for the C API's objects, and tensors made from bytes. No state.
#pragma once

#include <tensorflow/c/c_api.h>
#include <tensorflow/c/eager/c_api.h>
#include <tensorflow/c/eager/c_api_experimental.h>  // TFE_OpSetAttrValueProto

#include <memory>

#include "base/status.h"
#include "server/backend.h"
#include "wire/tensorflow_body.h"

namespace waldo::tensorflow_backend {

template <auto kDelete>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    kDelete(object);
  }
};
using Handle = std::unique_ptr<TFE_TensorHandle, Deleter<TFE_DeleteTensorHandle>>;
using Tensor = std::unique_ptr<TF_Tensor, Deleter<TF_DeleteTensor>>;
using Op = std::unique_ptr<TFE_Op, Deleter<TFE_DeleteOp>>;
using TfStatus = std::unique_ptr<TF_Status, Deleter<TF_DeleteStatus>>;

// What TensorFlow said; the code is the detail's error_class, for the front end to raise. Ok stays ok.
Status to_status(const TF_Status* status, const std::string& op);
Status failure(TF_Code code, const std::string& text, const std::string& op);

wire::tf::TensorMeta meta_of(TFE_TensorHandle* handle, TF_Status* status);

// kInvalid when the bytes are not as many as the shape says.
Result<Handle> make_tensor(const wire::tf::Input& input);
Result<Handle> make_tensor(const wire::tf::TensorMeta& meta, server::UploadedBytes bytes);  // no copy

// Another tensor over a part of `base`'s bytes. Copies where its beginning is not aligned.
Result<Handle> make_view(TFE_TensorHandle* base, const wire::tf::TensorMeta& meta, int64_t offset_bytes);

}  // namespace waldo::tensorflow_backend
