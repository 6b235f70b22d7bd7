// Memory for the two objects that every operation makes and its result's death gives back: a StorageImpl and a
// TensorImpl. Each thread keeps a few blocks of both sizes, because the heap's way there and back costs as much as all
// the rest of recording an operation.
//
// Owns:    at most kKeptMax blocks per size and thread, freed when the thread ends.
// Threads: any; a block goes to the list of the thread that gives it back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "frontends/torch/api.h"

namespace waldo::torch_frontend {

class SpareMemory {
 public:
  enum class Kind : uint8_t { kStorage, kTensor };
  static constexpr uint32_t kKeptMax = 64;

  template <size_t kBytes>
  static void* take(Kind kind) {
    List& list = mine_.lists[static_cast<size_t>(kind)];
    if (list.first == nullptr) [[unlikely]]
      return ::operator new(kBytes);
    Block* block = list.first;
    list.first = block->next;
    --list.count;
    return block;
  }
  template <size_t kBytes>
  static void give_back(Kind kind, void* memory) noexcept {
    static_assert(kBytes >= sizeof(Block));
    Lists& lists = mine_;
    List& list = lists.lists[static_cast<size_t>(kind)];
    if (list.count >= kKeptMax || !lists.cleared_at_end) [[unlikely]]
      return give_back_slow(kind, memory);
    list.first = ::new (memory) Block{list.first};
    ++list.count;
  }

  static uint32_t kept(Kind kind) { return mine_.lists[static_cast<size_t>(kind)].count; }  // by this thread

 private:
  struct Block {
    Block* next;
  };
  struct List {
    Block* first;
    uint32_t count;
  };
  // No constructor and no destructor, so that looking at it is one address computation.
  struct Lists {
    List lists[2];
    bool cleared_at_end;  // somebody will free what is kept
    bool ended;           // nobody will any more
  };
  // Few bytes, so that they fit where a library loaded late finds room for the cheapest kind of thread-local variable.
  [[gnu::tls_model("initial-exec")]] static constinit thread_local Lists mine_;

  static void give_back_slow(Kind kind, void* memory) noexcept;
};

}  // namespace waldo::torch_frontend
