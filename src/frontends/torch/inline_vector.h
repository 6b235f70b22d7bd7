// A growing array of plain values whose first N live inside it, uninitialised: on the stack of a call it costs nothing
// until it is used, and allocates only past N.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace waldo::torch_frontend {

template <typename T, size_t N>
class InlineVector {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  InlineVector() : data_(reinterpret_cast<T*>(inside_)) {}
  ~InlineVector() {
    if (capacity_ != N) [[unlikely]]
      delete[] reinterpret_cast<std::byte*>(data_);
  }
  InlineVector(const InlineVector&) = delete;
  InlineVector& operator=(const InlineVector&) = delete;

  void push_back(T value) {
    if (size_ == capacity_) [[unlikely]]
      grow(size_ + 1);
    data_[size_++] = value;
  }
  // `count` more values, not initialised; they are to be written at once.
  T* append(size_t count) {
    if (size_ + count > capacity_) [[unlikely]]
      grow(size_ + count);
    T* first = data_ + size_;
    size_ += count;
    return first;
  }
  void drop_last(size_t count) { size_ -= count; }
  size_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  std::span<const T> span() const { return {data_, size_}; }
  std::span<T> span() { return {data_, size_}; }

 private:
  [[gnu::noinline]] void grow(size_t wanted) {
    const size_t capacity = std::max(wanted, capacity_ * 2);
    auto* larger = reinterpret_cast<T*>(new std::byte[capacity * sizeof(T)]);
    std::memcpy(larger, data_, size_ * sizeof(T));
    if (capacity_ != N) delete[] reinterpret_cast<std::byte*>(data_);
    data_ = larger;
    capacity_ = capacity;
  }

  T* data_;  // inside_, or ours when capacity_ is more than N
  size_t size_ = 0;
  size_t capacity_ = N;
  alignas(T) std::byte inside_[N * sizeof(T)];
};

}  // namespace waldo::torch_frontend
