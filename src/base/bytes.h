// Bytes: a movable buffer, a little-endian writer, and a reader that cannot run past the end.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace waldo {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian and is read in place");

// Leaves new bytes as they are: growing a buffer that is about to be filled from a socket must not write it twice.
template <typename T>
struct UninitializedAllocator : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  template <typename U>
  void construct(U* at) noexcept {
    ::new (static_cast<void*>(at)) U;
  }
  template <typename U, typename... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
};

// `resize()` does not zero what it adds. Cheap to move, never shared.
using Buffer = std::vector<std::byte, UninitializedAllocator<std::byte>>;

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Buffer to_buffer(std::span<const std::byte> bytes) { return Buffer(bytes.begin(), bytes.end()); }

// Appends to a buffer it does not own.
class Writer {
 public:
  explicit Writer(Buffer& out) : out_(out) {}

  template <typename T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    const size_t at = out_.size();
    out_.resize(at + sizeof(T));
    std::memcpy(out_.data() + at, &value, sizeof(T));
  }
  void put_bytes(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void put_sized(std::span<const std::byte> bytes) {  // u32 size, then the bytes
    put(static_cast<uint32_t>(bytes.size()));
    put_bytes(bytes);
  }
  void put_sized(std::string_view text) { put_sized(as_bytes(text)); }
  void pad_to(size_t alignment) {
    while (out_.size() % alignment != 0) out_.push_back(std::byte{0});
  }

 private:
  Buffer& out_;
};

// Reads from bytes it does not own. The first read past the end, or over a stated maximum, makes it failed for good:
// later reads give zeros, and ok() tells at the end. `why()` names the first thing that was wrong.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  requires std::is_arithmetic_v<T> T get(const char* what) {
    T value{};
    if (!need(sizeof(T), what)) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::span<const std::byte> get_bytes(size_t size, const char* what) {
    if (!need(size, what)) return {};
    const auto part = bytes_.subspan(at_, size);
    at_ += size;
    return part;
  }
  std::span<const std::byte> get_sized(uint32_t size_max, const char* what) {
    const auto size = get<uint32_t>(what);
    if (failed_) return {};
    if (size > size_max) {
      fail(what);
      return {};
    }
    return get_bytes(size, what);
  }
  std::string get_text(uint32_t size_max, const char* what) { return std::string(as_text(get_sized(size_max, what))); }
  std::span<const std::byte> rest() { return get_bytes(left(), ""); }
  void fail(const char* what) {
    if (!failed_) why_ = what;
    failed_ = true;
  }

  bool ok() const { return !failed_; }
  bool at_end() const { return at_ == bytes_.size(); }
  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  const char* why() const { return why_; }

 private:
  bool need(size_t size, const char* what) {
    if (failed_) return false;
    if (size > bytes_.size() - at_) {
      fail(what);
      return false;
    }
    return true;
  }

  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool failed_ = false;
  const char* why_ = "";
};

}  // namespace waldo
