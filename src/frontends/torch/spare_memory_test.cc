#include "frontends/torch/spare_memory.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace waldo::torch_frontend {
namespace {

constexpr auto kStorage = SpareMemory::Kind::kStorage;
constexpr auto kTensor = SpareMemory::Kind::kTensor;
constexpr size_t kBytes = 64;

// Each test has a thread of its own: what a thread keeps ends with it.
void in_a_thread(const auto& body) { std::thread(body).join(); }

TEST(SpareMemory, ABlockGivenBackIsTakenAgain) {
  in_a_thread([] {
    void* block = SpareMemory::take<kBytes>(kStorage);
    SpareMemory::give_back<kBytes>(kStorage, block);
    EXPECT_EQ(SpareMemory::kept(kStorage), 1u);
    EXPECT_EQ(SpareMemory::take<kBytes>(kStorage), block);
    EXPECT_EQ(SpareMemory::kept(kStorage), 0u);
    SpareMemory::give_back<kBytes>(kStorage, block);
  });
}

TEST(SpareMemory, TheTwoKindsAreApart) {
  in_a_thread([] {
    SpareMemory::give_back<kBytes>(kStorage, SpareMemory::take<kBytes>(kStorage));
    EXPECT_EQ(SpareMemory::kept(kTensor), 0u);
    void* tensor = SpareMemory::take<2 * kBytes>(kTensor);
    EXPECT_EQ(SpareMemory::kept(kStorage), 1u);
    SpareMemory::give_back<2 * kBytes>(kTensor, tensor);
  });
}

TEST(SpareMemory, OnlySoManyAreKept) {
  in_a_thread([] {
    std::vector<void*> blocks;
    for (uint32_t i = 0; i < 3 * SpareMemory::kKeptMax; ++i) blocks.push_back(SpareMemory::take<kBytes>(kStorage));
    for (void* block : blocks) SpareMemory::give_back<kBytes>(kStorage, block);
    EXPECT_EQ(SpareMemory::kept(kStorage), SpareMemory::kKeptMax);
  });
}

TEST(SpareMemory, ABlockMayBeGivenBackByAnotherThread) {
  in_a_thread([] {
    void* block = SpareMemory::take<kBytes>(kStorage);
    in_a_thread([block] {
      SpareMemory::give_back<kBytes>(kStorage, block);
      EXPECT_EQ(SpareMemory::kept(kStorage), 1u);
    });
    EXPECT_EQ(SpareMemory::kept(kStorage), 0u);
  });
}

// A tensor in a thread_local of the program dies after our list did. Under ASan a block that is kept by nobody shows.
TEST(SpareMemory, WhatIsGivenBackAfterTheThreadsEndGoesToTheHeap) {
  struct DiesLate {
    void* block = nullptr;
    ~DiesLate() {
      if (block == nullptr) return;
      SpareMemory::give_back<kBytes>(kStorage, block);
      EXPECT_EQ(SpareMemory::kept(kStorage), 0u);
    }
  };
  in_a_thread([] {
    static thread_local DiesLate late;
    late.block = SpareMemory::take<kBytes>(kStorage);  // made before the list, so destroyed after it
    SpareMemory::give_back<kBytes>(kStorage, SpareMemory::take<kBytes>(kStorage));
  });
}

}  // namespace
}  // namespace waldo::torch_frontend
