#include "frontends/torch/spare_memory.h"

namespace waldo::torch_frontend {

constinit thread_local SpareMemory::Lists SpareMemory::mine_{};

void SpareMemory::give_back_slow(Kind kind, void* memory) noexcept {
  Lists& lists = mine_;
  List& list = lists.lists[static_cast<size_t>(kind)];
  if (list.count >= kKeptMax) return ::operator delete(memory);
  // A thread's first block: from now on its end clears the lists. What is given back after that goes to the heap.
  struct AtThreadEnd {
    ~AtThreadEnd() {
      mine_.cleared_at_end = false;
      mine_.ended = true;
      for (List& each : mine_.lists) {
        while (each.first != nullptr) {
          Block* block = each.first;
          each.first = block->next;
          ::operator delete(block);
        }
        each.count = 0;
      }
    }
  };
  if (lists.ended) return ::operator delete(memory);
  static thread_local AtThreadEnd at_end;
  static_cast<void>(at_end);  // named, so that it is made
  lists.cleared_at_end = true;
  list.first = ::new (memory) Block{list.first};
  ++list.count;
}

}  // namespace waldo::torch_frontend
