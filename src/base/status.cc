#include "base/status.h"

namespace waldo {

std::string_view name_of(StatusKind kind) {
  switch (kind) {
    case StatusKind::kOk:
      return "kOk";
    case StatusKind::kInvalid:
      return "kInvalid";
    case StatusKind::kUnsupported:
      return "kUnsupported";
    case StatusKind::kOverloaded:
      return "kOverloaded";
    case StatusKind::kDisconnected:
      return "kDisconnected";
    case StatusKind::kLost:
      return "kLost";
    case StatusKind::kDevice:
      return "kDevice";
    case StatusKind::kCancelled:
      return "kCancelled";
    case StatusKind::kInternal:
      return "kInternal";
  }
  return "kUnknown";
}

const std::string& Status::text() const {
  static const std::string empty;
  return body_ ? body_->text : empty;
}

const StatusDetail& Status::detail() const {
  static const StatusDetail none;
  return body_ ? body_->detail : none;
}

Status Status::with_context(std::string_view context) const {
  if (ok()) return *this;
  return Status(kind(), std::string(context) + ": " + text(), detail());
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  return std::string(name_of(kind())) + ": " + text();
}

}  // namespace waldo
