// Keys of calls, written and compared: whatever two calls are, comparing one with the other's key must say exactly
// whether their keys are equal, and must read nothing behind it.
#include "frontends/torch/plan_key.h"

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "frontends/torch/far_tensor.h"
#include "frontends/torch/generator.h"
#include "frontends/torch/kernels_made_of.h"

namespace waldo::torch_frontend {

// Of files that need a worker or all the kernels.
uint32_t generator_number(const std::optional<at::Generator>&, c10::DeviceIndex) { return 0; }
bool is_made_of_plain(std::string_view) { return false; }

namespace {

using Arguments = std::vector<c10::IValue>;

struct Shape {
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0;
  at::ScalarType dtype = at::kFloat;
};

// Storages of ours without a worker: nothing runs, and their end is nobody's business (close_storages()).
struct Storages {
  Storages() {
    close_storages();
    for (size_t i = 0; i < std::size(refs); ++i) {
      refs[i].slot = Slot::make(QueueId{0}, static_cast<uint32_t>(i));
      if (i >= 8) refs[i].device = c10::Device(c10::DeviceType::CUDA, 1);
      storages.emplace_back(c10::make_intrusive<FarStorageImpl>(uint64_t{1} << 20, data_of(&refs[i])));
    }
  }
  at::Tensor tensor(size_t storage, const Shape& shape) {
    auto impl =
        c10::make_intrusive<FarTensorImpl>(c10::Storage(storages[storage]), c10::scalarTypeToTypeMeta(shape.dtype));
    impl->set_sizes_and_strides(shape.sizes, shape.strides, shape.offset);
    return at::Tensor(std::move(impl));
  }
  StorageRef refs[16];
  std::vector<c10::Storage> storages;
};

const Operator& op(const char* name, const char* overload) {
  static auto* all = new std::map<std::string, Operator>;
  const std::string both = std::string(name) + "." + overload;
  const auto found = all->find(both);
  if (found != all->end()) return found->second;
  return all->try_emplace(both, c10::Dispatcher::singleton().findSchemaOrThrow(name, overload)).first->second;
}

struct Call {
  const Operator* op;
  Arguments arguments;
};

// A key right before memory that must not be touched.
class AtPageEnd {
 public:
  AtPageEnd() : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    memory_ =
        static_cast<std::byte*>(mmap(nullptr, 2 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_EQ(mprotect(memory_ + page_, page_, PROT_NONE), 0);
  }
  ~AtPageEnd() { munmap(memory_, 2 * page_); }
  const uint64_t* put(std::span<const uint64_t> words) {
    EXPECT_LE(words.size_bytes(), page_);
    std::byte* at = memory_ + page_ - words.size_bytes();
    std::memcpy(at, words.data(), words.size_bytes());
    return reinterpret_cast<const uint64_t*>(at);
  }

 private:
  size_t page_;
  std::byte* memory_;
};

// Every call against every other's key.
void compare_all(const std::vector<Call>& calls, bool all_differ) {
  AtPageEnd memory;
  for (size_t known = 0; known < calls.size(); ++known) {
    const CallKey key(*calls[known].op, calls[known].arguments.data());
    const uint64_t* words = memory.put(key.words());
    for (size_t i = 0; i < calls.size(); ++i) {
      const CallKey own(*calls[i].op, calls[i].arguments.data());
      const bool same = std::ranges::equal(key.words(), own.words());
      if (all_differ) {
        EXPECT_EQ(same, i == known) << "calls " << i << " and " << known;
      }
      CallParts parts;
      ASSERT_EQ(parts.matches(*calls[i].op, calls[i].arguments.data(), words), same)
          << "call " << i << " against the key of call " << known;
      if (!same) continue;
      EXPECT_TRUE(std::ranges::equal(parts.storages(), own.storages()));
      EXPECT_TRUE(std::ranges::equal(parts.scalars(), own.scalars()));
      EXPECT_EQ(parts.device(), own.device());
      EXPECT_EQ(parts.has_mask(), own.has_mask());
    }
  }
}

class PlanKey : public testing::Test {
 protected:
  at::Tensor far(size_t storage, const Shape& shape) { return storages_.tensor(storage, shape); }
  at::Tensor matrix(size_t storage) { return far(storage, {{2, 3}, {3, 1}}); }
  Call add(at::Tensor a, at::Tensor b, c10::IValue alpha = int64_t{1}) {
    return {&op("aten::add", "Tensor"), {std::move(a), std::move(b), std::move(alpha)}};
  }
  Call foreach_add(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
    return {&op("aten::_foreach_add", "List"), {c10::List<at::Tensor>(a), c10::List<at::Tensor>(b), int64_t{1}}};
  }
  std::vector<at::Tensor> matrices(size_t count, size_t storages) {
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < count; ++i) all.push_back(matrix(i % storages));
    return all;
  }

  Storages storages_;
};

// Goal: each of these is another call, although most differ in one thing only.
TEST_F(PlanKey, WhatDecidesIsInTheKey) {
  const at::Tensor a = matrix(0), b = matrix(1);
  at::Tensor conj = far(1, {{2, 3}, {3, 1}, 0, at::kComplexFloat}), neg = matrix(1), wrapped = far(1, {{}, {}});
  const at::Tensor plain_complex = far(1, {{2, 3}, {3, 1}, 0, at::kComplexFloat});
  conj.unsafeGetTensorImpl()->_set_conj(true);
  neg.unsafeGetTensorImpl()->_set_neg(true);
  wrapped.unsafeGetTensorImpl()->set_wrapped_number(true);
  constexpr int64_t kLarge = int64_t{1} << 32;
  const auto reduced = [&](std::vector<int64_t> dims, bool keep, c10::IValue dtype = {}) {
    return Call{&op("aten::sum", "dim_IntList"), {a, c10::List<int64_t>(dims), keep, std::move(dtype)}};
  };
  const auto divided = [&](c10::IValue mode) { return Call{&op("aten::div", "Tensor_mode"), {a, b, std::move(mode)}}; };
  const auto cpu = [](at::ScalarType dtype) { return at::scalar_tensor(3, at::TensorOptions(dtype)); };
  std::vector<Call> calls = {
      add(a, b),
      add(a, a),
  };
  for (const at::Tensor& other : {
           far(1, {{3, 2}, {2, 1}}),
           far(1, {{2, 3}, {1, 2}}),
           far(1, {{2, 3}, {0, 1}}),
           far(1, {{2, 3}, {3, 1}, 5}),
           far(0, {{2, 3}, {3, 1}, 5}),
           far(1, {{3}, {1}}),
           far(1, {{}, {}}),
           far(1, {{1, 2, 3}, {6, 3, 1}}),
           far(1, {{2, 3, 1}, {3, 1, 1}}),
           far(1, {{1, 1, 1, 1, 2, 3}, {6, 6, 6, 6, 3, 1}}),
           far(1, {{0, 3}, {3, 1}}),
           far(1, {{0, 3}, {5, 1}}),
           far(1, {{2, 3}, {3, 1}, 0, at::kDouble}),
           far(1, {{2, 3}, {3, 1}, 0, at::kLong}),
           far(1, {{kLarge + 2, 3}, {3, 1}}),
           far(1, {{2, kLarge + 3}, {3, 1}}),
           far(1, {{2, 3}, {kLarge + 3, 1}}),
           far(1, {{kLarge - 1, 1}, {1, 1}}),
           far(1, {{kLarge - 2, 1}, {1, 1}}),
           far(1, {{kLarge - 1, 2}, {kLarge - 1, kLarge - 1}}),
           plain_complex,
           conj,
           neg,
           wrapped,
           cpu(at::kFloat),
           cpu(at::kDouble),
           cpu(at::kLong),
           cpu(at::kBool),
       }) {
    calls.push_back(add(a, other));
  }
  calls.push_back({&op("aten::sub", "Tensor"), {a, b, int64_t{1}}});
  for (const c10::IValue& alpha : {c10::IValue(1.0), c10::IValue(true), c10::IValue(c10::complex<double>(1, 0))}) {
    calls.push_back(add(a, b, alpha));
  }
  calls.push_back(reduced({}, false));
  calls.push_back(reduced({0}, false));
  calls.push_back(reduced({0}, true));
  calls.push_back(reduced({1}, false));
  calls.push_back(reduced({0, 1}, false));
  calls.push_back(reduced({0}, false, static_cast<int64_t>(at::kDouble)));
  calls.push_back({&op("aten::sum", "dim_IntList"), {a, c10::IValue(), false, c10::IValue()}});
  for (const char* mode : {"", "trunc", "floor", "truncated", "exactly8", "exactly8exactly8"}) {
    calls.push_back(divided(std::string(mode)));
  }
  calls.push_back(divided(c10::IValue()));
  for (const size_t count : {0u, 1u, 2u, 3u, 12u, 20u, 60u}) {
    for (const size_t storages : {1u, 2u, 7u}) {
      if (count >= storages) calls.push_back(foreach_add(matrices(count, storages), matrices(count, 1)));
    }
  }
  calls.push_back(foreach_add({a, a, b}, {a, b, b}));
  calls.push_back(foreach_add({a, b, a}, {a, b, b}));
  calls.push_back({&op("aten::clamp", ""), {a, int64_t{1}, c10::IValue()}});
  calls.push_back({&op("aten::clamp", ""), {a, c10::IValue(), int64_t{1}}});
  calls.push_back({&op("aten::clamp", ""), {a, int64_t{1}, int64_t{1}}});
  for (const int64_t end : {10, 11}) {
    const c10::IValue none;
    const Operator& arange = op("aten::arange", "start_step");
    ASSERT_TRUE(arange.scalars_in_key);
    calls.push_back({&arange, {int64_t{0}, end, int64_t{1}, none, none, none, none}});
    calls.push_back({&arange, {int64_t{0}, static_cast<double>(end), int64_t{1}, none, none, none, none}});
  }
  compare_all(calls, /*all_differ=*/true);
}

// Goal: what does not decide is not in the key, and comes out beside it.
TEST_F(PlanKey, NamesOffsetsAndValuesAreNotInTheKey) {
  const auto wide = [&](size_t storage, int64_t offset) { return far(storage, {{2, 3}, {3, 1}, offset}); };
  const auto number = [](double value) { return at::scalar_tensor(value, at::TensorOptions(at::kFloat)); };
  const std::vector<std::vector<Call>> alike = {
      {add(matrix(0), matrix(1)), add(matrix(5), matrix(2), int64_t{7}), add(matrix(8), matrix(9))},
      {add(wide(0, 4), matrix(1)), add(wide(1, 900), matrix(0))},
      {add(matrix(0), number(1)), add(matrix(3), number(2))},
      {foreach_add(matrices(20, 6), matrices(20, 2)), foreach_add(matrices(20, 6), matrices(20, 2))},
  };
  for (const auto& calls : alike) {
    const CallKey first(*calls[0].op, calls[0].arguments.data());
    for (const Call& call : calls) {
      CallParts parts;
      EXPECT_TRUE(parts.matches(*call.op, call.arguments.data(), first.words().data()));
    }
    compare_all(calls, /*all_differ=*/false);
  }
  CallParts on_second;
  const CallKey on_first(*alike[0][0].op, alike[0][0].arguments.data());
  ASSERT_TRUE(on_second.matches(*alike[0][2].op, alike[0][2].arguments.data(), on_first.words().data()));
  EXPECT_EQ(on_first.device(), 0);
  EXPECT_EQ(on_second.device(), 1);
}

// Goal: a call that must be made another one first has a key of its own, which no plan has.
TEST_F(PlanKey, AnIndexOnTheCpuIsAnotherCall) {
  c10::List<std::optional<at::Tensor>> there, here;
  there.push_back(far(1, {{2}, {1}, 0, at::kLong}));
  here.push_back(at::zeros({2}, at::TensorOptions(at::kLong)));
  const Operator& index = op("aten::index", "Tensor");
  const std::vector<Call> calls = {{&index, {matrix(0), there}}, {&index, {matrix(0), here}}};
  EXPECT_EQ(CallKey(index, calls[0].arguments.data()).detour(), CallKey::Detour::kNone);
  EXPECT_EQ(CallKey(index, calls[1].arguments.data()).detour(), CallKey::Detour::kUpload);
  compare_all(calls, /*all_differ=*/true);
}

// Goal: lists that no device can take whole are no call of one device, however much they look like one that is.
TEST_F(PlanKey, ForeachOverSeveralDevicesIsTakenOneByOne) {
  const std::vector<at::Tensor> mine{matrix(0), matrix(1)}, apart{matrix(0), matrix(8)};
  const std::vector<at::Tensor> numbers{at::zeros({}), at::zeros({})};
  const std::vector<Call> calls = {foreach_add(mine, mine), foreach_add(apart, apart), foreach_add(mine, numbers)};
  EXPECT_EQ(CallKey(*calls[0].op, calls[0].arguments.data()).detour(), CallKey::Detour::kNone);
  EXPECT_EQ(CallKey(*calls[1].op, calls[1].arguments.data()).detour(), CallKey::Detour::kOneByOne);
  EXPECT_EQ(CallKey(*calls[2].op, calls[2].arguments.data()).detour(), CallKey::Detour::kOneByOne);
  compare_all(calls, /*all_differ=*/true);
}

// Goal: tensors of two devices are refused in the same words, whichever way the call is looked at.
TEST_F(PlanKey, TwoDevicesAreRefused) {
  const Call mixed = add(matrix(0), matrix(8)), plain = add(matrix(0), matrix(1));
  const CallKey key(*plain.op, plain.arguments.data());
  EXPECT_THROW(CallKey(*mixed.op, mixed.arguments.data()), c10::Error);
  CallParts parts;
  EXPECT_THROW(parts.matches(*mixed.op, mixed.arguments.data(), key.words().data()), c10::Error);
}

// Goal: the same for calls nobody thought of. Method: random lists of random tensors, few values of everything so that
// equal ones are common; every pair.
TEST_F(PlanKey, RandomCallsCompareAsTheirKeysDo) {
  uint64_t state = 4711;
  const auto below = [&state](uint64_t bound) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % bound;
  };
  const auto random_tensor = [&] {
    Shape shape;
    for (uint64_t dims = below(4); dims > 0; --dims) {
      shape.sizes.push_back(static_cast<int64_t>(below(3)));
      shape.strides.push_back(static_cast<int64_t>(below(2) + (below(20) == 0 ? uint64_t{1} << 33 : 0)));
    }
    shape.offset = static_cast<int64_t>(below(2) * below(3));
    shape.dtype = below(4) == 0 ? at::kBool : at::kFloat;
    return far(below(3), shape);
  };
  std::vector<Call> calls;
  for (int i = 0; i < 250; ++i) {
    if (below(2) == 0) {
      calls.push_back(
          add(random_tensor(), random_tensor(), below(2) == 0 ? c10::IValue(2.5) : c10::IValue(int64_t{0})));
    } else {
      std::vector<at::Tensor> a, b;
      for (uint64_t count = below(3); count > 0; --count) a.push_back(random_tensor()), b.push_back(random_tensor());
      calls.push_back(foreach_add(a, b));
    }
  }
  compare_all(calls, /*all_differ=*/false);
}

}  // namespace
}  // namespace waldo::torch_frontend
