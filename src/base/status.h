// Errors as values. The kind tells the caller what to do; the text tells a human what happened.
// No exception crosses a module of ours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace waldo {

enum class StatusKind : uint8_t {
  kOk = 0,
  kInvalid = 1,       // fix the call
  kUnsupported = 2,   // take another way
  kOverloaded = 3,    // wait, then try again
  kDisconnected = 4,  // nothing; the session is coming back
  kLost = 5,          // start a new session
  kDevice = 6,        // report; values made from this one fail too
  kCancelled = 7,     // stop: the user asked
  kInternal = 8,      // report a bug to us
};

std::string_view name_of(StatusKind kind);

// What a failed call on a worker was, beyond kind and text. `error_class` is a number that only a
// front end and its backend understand (which exception to raise); 0 says nothing special.
struct StatusDetail {
  uint16_t error_class = 0;
  uint16_t queue = 0;
  uint64_t call = 0;
  std::string op;     // "aten::add.Tensor", or empty
  int exit_code = 0;  // what a command that fails for this reason exits with (people.md); 0 says nothing
};

// One pointer wide; ok is null, so returning one from a hot path costs nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(StatusKind kind, std::string text) : body_(std::make_shared<const Body>(Body{kind, std::move(text), {}})) {
    WALDO_CHECK(kind != StatusKind::kOk);
  }
  Status(StatusKind kind, std::string text, StatusDetail detail)
      : body_(std::make_shared<const Body>(Body{kind, std::move(text), std::move(detail)})) {}

  bool ok() const { return body_ == nullptr; }
  explicit operator bool() const = delete;
  StatusKind kind() const { return body_ ? body_->kind : StatusKind::kOk; }
  const std::string& text() const;  // "" when ok
  const StatusDetail& detail() const;

  // `fetch slot 812: ` + text; the kind and detail stay. Ok stays ok.
  Status with_context(std::string_view context) const;
  std::string to_string() const;  // "kLost: the worker is gone"

 private:
  struct Body {
    StatusKind kind;
    std::string text;
    StatusDetail detail;
  };
  std::shared_ptr<const Body> body_;
};

// A value or a Status that is not ok.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::in_place_index<0>, std::move(value)) {}
  Result(Status status) : value_(std::in_place_index<1>, std::move(status)) { WALDO_CHECK(!std::get<1>(value_).ok()); }

  bool ok() const { return value_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(value_); }
  T& value() & {
    WALDO_CHECK(ok());
    return std::get<0>(value_);
  }
  const T& value() const& {
    WALDO_CHECK(ok());
    return std::get<0>(value_);
  }
  T&& value() && {
    WALDO_CHECK(ok());
    return std::get<0>(std::move(value_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> value_;
};

}  // namespace waldo

// Returns early with the failure of `expression`.
#define WALDO_TRY(expression)                                                                    \
  do {                                                                                           \
    if (::waldo::Status waldo_status_ = (expression); !waldo_status_.ok()) return waldo_status_; \
  } while (false)
