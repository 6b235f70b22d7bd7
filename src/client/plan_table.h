// A map from a 128-bit key (two hashes of an operator and its argument metadata) to a 64-bit value: a pointer to what
// the front end knows of a plan, or a number. Open addressing, linear probing; entries are never removed.
//
// Threads: find() from any thread without a lock; insert() by one writer at a time (the front end's lock).
// Ownership: what a value points to is the caller's. Tables that were outgrown are kept until the end, because a reader
//            may still look into one; together they are smaller than the newest.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "base/check.h"

namespace waldo::client {

struct PlanKey {
  uint64_t low = 0, high = 0;
  friend bool operator==(const PlanKey&, const PlanKey&) = default;
};

// V: a pointer or an integer of at most 64 bits. The value whose bits are all zero means "not there" and cannot be put
// in.
template <typename V>
class PlanTable {
  static_assert(std::is_trivially_copyable_v<V> && sizeof(V) <= sizeof(uint64_t));

 public:
  explicit PlanTable(size_t capacity = 1024) { grow(std::bit_ceil(capacity < 16 ? 16 : capacity)); }
  PlanTable(const PlanTable&) = delete;
  PlanTable& operator=(const PlanTable&) = delete;

  // Hot: once per operation. V{} when there is none.
  V find(PlanKey key) const {
    const Table& table = *table_.load(std::memory_order_acquire);
    for (size_t at = key.low & table.mask;; at = (at + 1) & table.mask) {
      const Entry& entry = table.entries[at];
      const uint64_t bits = entry.value.load(std::memory_order_acquire);
      if (bits == 0) return V{};
      if (entry.key == key) [[likely]]
        return from_bits(bits);
    }
  }

  // False when the key is there already (its value stays).
  bool insert(PlanKey key, V value) {
    WALDO_CHECK(to_bits(value) != 0);
    if (from_bits(0) != find(key)) return false;
    Table* table = table_.load(std::memory_order_relaxed);
    if ((size_ + 1) * 2 > table->mask + 1) {
      grow((table->mask + 1) * 2);
      table = table_.load(std::memory_order_relaxed);
    }
    put(*table, key, to_bits(value));
    ++size_;
    return true;
  }

  size_t size() const { return size_; }

 private:
  struct Entry {
    PlanKey key;  // written before `value`, then never again
    std::atomic<uint64_t> value{0};
  };
  struct Table {
    explicit Table(size_t capacity) : mask(capacity - 1), entries(std::make_unique<Entry[]>(capacity)) {}
    const size_t mask;
    const std::unique_ptr<Entry[]> entries;
  };

  static uint64_t to_bits(V value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static V from_bits(uint64_t bits) {
    V value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  static void put(Table& table, PlanKey key, uint64_t bits) {
    size_t at = key.low & table.mask;
    while (table.entries[at].value.load(std::memory_order_relaxed) != 0) at = (at + 1) & table.mask;
    table.entries[at].key = key;
    table.entries[at].value.store(bits, std::memory_order_release);
  }
  void grow(size_t capacity) {
    auto table = std::make_unique<Table>(capacity);
    if (const Table* old = table_.load(std::memory_order_relaxed)) {
      for (size_t at = 0; at <= old->mask; ++at) {
        if (const uint64_t bits = old->entries[at].value.load(std::memory_order_relaxed)) {
          put(*table, old->entries[at].key, bits);
        }
      }
    }
    table_.store(table.get(), std::memory_order_release);
    tables_.push_back(std::move(table));
  }

  std::atomic<Table*> table_{nullptr};
  // The writer.
  size_t size_ = 0;
  std::vector<std::unique_ptr<Table>> tables_;
};

}  // namespace waldo::client
