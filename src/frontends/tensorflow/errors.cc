#include "frontends/tensorflow/errors.h"

#include <string>

namespace waldo::tensorflow_frontend {

absl::Status to_tensorflow(const Status& status) {
  if (status.ok()) return absl::OkStatus();
  std::string text = status.text();
  const auto& detail = status.detail();
  if (!detail.op.empty() && text.find(detail.op) == std::string::npos)
    text += " (raised by " + detail.op + " on the worker)";
  switch (status.kind()) {
    case StatusKind::kDevice:
      return absl::Status(detail.error_class >= 1 && detail.error_class <= 16
                              ? static_cast<absl::StatusCode>(detail.error_class)
                              : absl::StatusCode::kInternal,
                          text);
    case StatusKind::kLost:
    case StatusKind::kDisconnected:
      return absl::UnavailableError(text);
    case StatusKind::kUnsupported:
      return absl::UnimplementedError(text);
    case StatusKind::kCancelled:
      return absl::CancelledError(text);
    case StatusKind::kOverloaded:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace waldo::tensorflow_frontend
