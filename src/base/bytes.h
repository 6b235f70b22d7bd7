// Bytes: an owned buffer, a little-endian writer, and a reader that cannot run past the end.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace waldo {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian and is read in place");

// Owned bytes: what a std::vector<std::byte> would be, but `resize()` and Buffer(n) leave new bytes as they are (a
// buffer that is about to be filled from a socket must not be written twice), and it grows and copies by memcpy. A
// vector with an allocator that does the former copies byte by byte.
class Buffer {
 public:
  using value_type = std::byte;

  Buffer() = default;
  explicit Buffer(size_t size) { resize(size); }
  Buffer(size_t size, std::byte value) : Buffer(size) {
    if (size != 0) std::memset(data_, static_cast<int>(value), size);
  }
  explicit Buffer(std::span<const std::byte> bytes) { append(bytes); }
  Buffer(std::initializer_list<std::byte> bytes) { append({bytes.begin(), bytes.size()}); }
  Buffer(const Buffer& other) { append(other); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  size_t capacity() const { return capacity_; }
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::byte* begin() { return data_; }
  const std::byte* begin() const { return data_; }
  std::byte* end() { return data_ + size_; }
  const std::byte* end() const { return data_ + size_; }
  std::byte& operator[](size_t i) { return data_[i]; }
  const std::byte& operator[](size_t i) const { return data_[i]; }

  void reserve(size_t capacity) {
    if (capacity > capacity_) reallocate(capacity);
  }
  void resize(size_t size) {
    if (size > capacity_) reallocate(std::max(size, 2 * size_));
    size_ = size;
  }
  void clear() { size_ = 0; }
  void push_back(std::byte byte) {
    resize(size_ + 1);
    data_[size_ - 1] = byte;
  }
  void append(std::span<const std::byte> bytes) {  // not of its own
    if (bytes.empty()) return;
    const size_t at = size_;
    resize(at + bytes.size());
    std::memcpy(data_ + at, bytes.data(), bytes.size());
  }
  void shrink_to_fit() {
    if (size_ != capacity_) *this = Buffer(std::span<const std::byte>(data_, size_));
  }

  friend bool operator==(const Buffer& a, const Buffer& b) {
    return a.size_ == b.size_ && (a.size_ == 0 || std::memcmp(a.data_, b.data_, a.size_) == 0);
  }

 private:
  void reallocate(size_t capacity) {
    auto* larger = static_cast<std::byte*>(std::realloc(data_, capacity));
    if (larger == nullptr) throw std::bad_alloc();
    data_ = larger;
    capacity_ = capacity;
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Buffer to_buffer(std::span<const std::byte> bytes) { return Buffer(bytes); }

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
  void put_bytes(std::span<const std::byte> bytes) { out_.append(bytes); }
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
