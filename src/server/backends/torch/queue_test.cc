// Calls, slots and storages of the torch backend, against the same operators called plainly.
#include "server/backends/torch/queue.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include "server/backends/torch/test_support.h"

namespace waldo::torch_backend::test {
namespace {

using wire::ErrorClass;
using wire::OutputKind;
using wire::ScalarTag;

wire::PlanBody add_body(const wire::TensorMeta& a, const wire::TensorMeta& b, const wire::TensorMeta& out) {
  return body("aten::add", "Tensor", {tensor(0, a), tensor(1, b), scalar_later(ScalarTag::kInt)}, {fresh(2, out)});
}

ErrorClass class_of(const Status& status) { return static_cast<ErrorClass>(status.detail().error_class); }

// Goal: a call gives what the operator gives, again and again with the same plan and other slots.
TEST(TorchCall, AddRunsAsOftenAsItIsCalled) {
  Worker worker;
  const at::Tensor a = at::randn({3, 4}), b = at::randn({3, 4});
  worker.put(0, a);
  worker.put(1, b);
  const auto plan = worker.define(add_body(meta({3, 4}), meta({3, 4}), meta({3, 4})), 2, 1);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_OK(worker.again(*plan, {0, 1}, {2}, scalars(int64_t{1})));
  EXPECT_FALSE(worker.conformed);
  EXPECT_TRUE(same_bits(worker.get(2, meta({3, 4})), a + b));
  EXPECT_OK(worker.again(*plan, {2, 0}, {3}, scalars(int64_t{3})));
  EXPECT_TRUE(same_bits(worker.get(3, meta({3, 4})), at::add(a + b, a, 3)));
}

TEST(TorchCall, InPlaceWritesReachEveryViewOfTheStorage) {
  Worker worker;
  const at::Tensor a = at::arange(12, at::TensorOptions().dtype(at::kFloat)).reshape({3, 4});
  worker.put(0, a);
  worker.put(1, at::ones({2, 4}));
  // rows 1 and 2, by a constant offset
  wire::TensorMeta rows = meta({2, 4});
  rows.offset = 4;
  EXPECT_OK(worker.call(
      body("aten::add_", "Tensor", {tensor(0, rows), tensor(1, meta({2, 4})), scalar(10)}, {argument(0)}), {0, 1}));
  // column 0, transposed view, by an offset of the call
  wire::TensorMeta column = meta({3});
  column.strides = {4};
  column.dynamic_offset = true;
  EXPECT_OK(
      worker.call(body("aten::mul_", "Scalar", {tensor(0, column), scalar_later(ScalarTag::kFloat)}, {argument(0)}),
                  {0}, {}, scalars(int64_t{1}, 2.0)));
  at::Tensor expected = a.clone();
  expected.narrow(0, 1, 2).add_(10);
  expected.select(1, 1).mul_(2);
  EXPECT_TRUE(same_bits(worker.get(0, meta({3, 4})), expected));
}

TEST(TorchCall, MatrixProductOfATransposedView) {
  Worker worker;
  const at::Tensor x = at::randn({5, 7});
  worker.put(0, x);
  wire::TensorMeta turned = meta({7, 5});
  turned.strides = {1, 7};
  EXPECT_OK(worker.call(body("aten::mm", "", {tensor(0, meta({5, 7})), tensor(0, turned)}, {fresh(1, meta({5, 5}))}),
                        {0}, {1}));
  EXPECT_TRUE(same_bits(worker.get(1, meta({5, 5})), at::mm(x, x.t())));
}

TEST(TorchCall, ConvolutionForwardAndBackward) {
  Worker worker;
  const at::Tensor x = at::randn({2, 3, 8, 8}), w = at::randn({4, 3, 3, 3}), g = at::randn({2, 4, 8, 8});
  worker.put(0, x);
  worker.put(1, w);
  worker.put(2, g);
  const wire::TensorMeta mx = meta_of(x), mw = meta_of(w), mg = meta_of(g);
  const at::Tensor y = at::convolution(x, w, {}, {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, 1);
  EXPECT_OK(worker.call(body("aten::convolution", "",
                             {tensor(0, mx), tensor(1, mw), none(), integers({1, 1}), integers({1, 1}),
                              integers({1, 1}), truth(false), integers({0, 0}), integer(1)},
                             {fresh(2, meta_of(y))}),
                        {0, 1}, {3}));
  EXPECT_TRUE(same_bits(worker.get(3, meta_of(y)), y));

  const auto [gx, gw, gb] =
      at::convolution_backward(g, x, w, {}, {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, 1, {true, true, false});
  EXPECT_OK(worker.call(body("aten::convolution_backward", "",
                             {tensor(2, mg), tensor(0, mx), tensor(1, mw), none(), integers({1, 1}), integers({1, 1}),
                              integers({1, 1}), truth(false), integers({0, 0}), integer(1), truths({1, 1, 0})},
                             {fresh(3, meta_of(gx)), fresh(4, meta_of(gw)), wire::Output{}}),
                        {0, 1, 2}, {4, 5}));
  EXPECT_TRUE(same_bits(worker.get(4, meta_of(gx)), gx));
  EXPECT_TRUE(same_bits(worker.get(5, meta_of(gw)), gw));
}

TEST(TorchCall, ThreeResultsOfLayerNorm) {
  Worker worker;
  const at::Tensor x = at::randn({6, 5}), w = at::randn({5}), b = at::randn({5});
  worker.put(0, x);
  worker.put(1, w);
  worker.put(2, b);
  const auto [y, mean, rstd] = at::native_layer_norm(x, {5}, w, b, 1e-5);
  EXPECT_OK(worker.call(
      body("aten::native_layer_norm", "",
           {tensor(0, meta_of(x)), integers({5}), tensor(1, meta_of(w)), tensor(2, meta_of(b)), number(1e-5)},
           {fresh(3, meta_of(y)), fresh(4, meta_of(mean)), fresh(5, meta_of(rstd))}),
      {0, 1, 2}, {3, 4, 5}));
  EXPECT_TRUE(same_bits(worker.get(3, meta_of(y)), y));
  EXPECT_TRUE(same_bits(worker.get(4, meta_of(mean)), mean));
  EXPECT_TRUE(same_bits(worker.get(5, meta_of(rstd)), rstd));
}

TEST(TorchCall, ListsOfTensorsInAndOut) {
  Worker worker;
  const at::Tensor a = at::randn({4}), b = at::randn({2, 2});
  worker.put(0, a);
  worker.put(1, b);
  wire::Output list{.kind = OutputKind::kList};
  list.list = {fresh(2, meta({4})), fresh(3, meta({2, 2}))};
  EXPECT_OK(worker.call(body("aten::_foreach_add", "Scalar",
                             {tensors({0, 1}, {meta({4}), meta({2, 2})}), scalar_later(ScalarTag::kFloat)}, {list}),
                        {0, 1}, {2, 3}, scalars(0.5)));
  EXPECT_TRUE(same_bits(worker.get(2, meta({4})), a + 0.5));
  EXPECT_TRUE(same_bits(worker.get(3, meta({2, 2})), b + 0.5));
  EXPECT_OK(worker.call(
      body("aten::_foreach_add_", "List",
           {tensors({0, 1}, {meta({4}), meta({2, 2})}), tensors({0, 1}, {meta({4}), meta({2, 2})}), scalar(1)}, {}),
      {0, 1}));
  EXPECT_TRUE(same_bits(worker.get(0, meta({4})), a + a));
}

TEST(TorchCall, IndexWithAbsentTensorsInItsList) {
  Worker worker;
  const at::Tensor x = at::randn({3, 5}), at = at::tensor({4, 0, 0}, at::TensorOptions().dtype(at::kLong));
  worker.put(0, x);
  worker.put(1, at);
  EXPECT_OK(worker.call(
      body("aten::index", "Tensor",
           {tensor(0, meta({3, 5})), tensors({wire::kNoSlot, 1}, {wire::TensorMeta{}, meta({3}, wire::DType::kInt64)})},
           {fresh(2, meta({3, 3}))}),
      {0, 1}, {2}));
  EXPECT_TRUE(same_bits(worker.get(2, meta({3, 3})), x.index_select(1, at)));
}

TEST(TorchCall, NumbersFromTheHostPromoteAsTheyDoOnACpu) {
  Worker worker;
  const at::Tensor x = at::arange(4, at::TensorOptions().dtype(at::kHalf));
  worker.put(0, x);
  // a wrapped double does not make halves wider
  const auto plan = worker.define(
      body("aten::mul", "Tensor",
           {tensor(0, meta({4}, wire::DType::kFloat16)), cpu_scalar(wire::DType::kFloat64, /*wrapped=*/true)},
           {fresh(1, meta({4}, wire::DType::kFloat16))}),
      1, 1);
  for (const double value : {2.5, 2.5, -1.0}) {
    EXPECT_OK(worker.again(*plan, {0}, {1}, scalars(value, 0.0)));
    EXPECT_FALSE(worker.conformed);
    EXPECT_TRUE(same_bits(worker.get(1, meta({4}, wire::DType::kFloat16)), x * value)) << value;
  }
}

TEST(TorchCall, LazyConjugatesAreResolvedBeforeTheyAreKept) {
  Worker worker;
  const at::Tensor x = at::randn({3}, at::TensorOptions().dtype(at::kComplexFloat));
  worker.put(0, x);
  wire::TensorMeta conjugate = meta({3}, wire::DType::kComplex64);
  conjugate.conj = true;
  EXPECT_OK(worker.call(body("aten::add", "Tensor", {tensor(0, conjugate), tensor(0, conjugate), scalar(1)},
                             {fresh(1, meta({3}, wire::DType::kComplex64))}),
                        {0}, {1}));
  EXPECT_TRUE(same_bits(worker.get(1, meta({3}, wire::DType::kComplex64)), (x.conj() + x.conj()).resolve_conj()));
}

// Goal: predictions that only miss the layout or dtype are met by a copy, and said.
TEST(TorchVerify, OtherStridesOrDtypeAreConformed) {
  Worker worker;
  const at::Tensor a = at::randn({3, 4});
  worker.put(0, a);
  wire::TensorMeta turned = meta({3, 4});
  turned.strides = {1, 3};
  EXPECT_OK(worker.call(add_body(meta({3, 4}), meta({3, 4}), turned), {0, 0}, {1}, scalars(int64_t{1})));
  EXPECT_TRUE(worker.conformed);
  EXPECT_TRUE(same_bits(worker.get(1, turned), a + a));
  EXPECT_OK(worker.call(add_body(meta({3, 4}), meta({3, 4}), meta({3, 4}, wire::DType::kFloat64)), {0, 0}, {2},
                        scalars(int64_t{1})));
  EXPECT_TRUE(worker.conformed);
  EXPECT_TRUE(same_bits(worker.get(2, meta({3, 4}, wire::DType::kFloat64)), (a + a).to(at::kDouble)));
  // The conformed tensor is used as predicted from then on.
  EXPECT_OK(worker.call(add_body(turned, meta({3, 4}), turned), {1, 0}, {3}, scalars(int64_t{1})));
  EXPECT_TRUE(same_bits(worker.get(3, turned), a + a + a));
}

TEST(TorchVerify, OtherSizesFailAndAreSaid) {
  Worker worker;
  worker.put(0, at::randn({3, 4}));
  const Status status =
      worker.call(add_body(meta({3, 4}), meta({3, 4}), meta({4, 3})), {0, 0}, {1}, scalars(int64_t{1}));
  EXPECT_EQ(status.kind(), StatusKind::kDevice);
  EXPECT_NE(status.text().find("predicted sizes [4, 3]"), std::string::npos) << status.text();
  EXPECT_EQ(status.detail().op, "aten::add.Tensor");
  EXPECT_TRUE(worker.conformed);
  EXPECT_FALSE(worker.status_of_read(1, 0, 0).ok()) << "a failed call must not make its outputs";
}

TEST(TorchVerify, AnArgumentThatComesBackAsSomethingElseFails) {
  Worker worker;
  worker.put(0, at::randn({3}));
  const Status status = worker.call(
      body("aten::add", "Tensor", {tensor(0, meta({3})), tensor(0, meta({3})), scalar(1)}, {argument(0)}), {0});
  EXPECT_EQ(status.kind(), StatusKind::kDevice);
  EXPECT_NE(status.text().find("argument"), std::string::npos);
}

// Goal: an operator that returns an alias where a new tensor was promised does not tie two slots together.
TEST(TorchVerify, AliasesBecomeCopies) {
  Worker worker;
  const at::Tensor a = at::randn({4});
  worker.put(0, a);
  EXPECT_OK(worker.call(body("aten::alias", "", {tensor(0, meta({4}))}, {fresh(1, meta({4}))}), {0}, {1}));
  EXPECT_OK(worker.call(body("aten::zero_", "", {tensor(0, meta({4}))}, {argument(0)}), {0}));
  EXPECT_TRUE(same_bits(worker.get(1, meta({4})), a));
}

TEST(TorchVerify, AnOutArgumentThatWouldBeResizedFails) {
  Worker worker;
  worker.put(0, at::ones({4}));
  worker.put(1, at::ones({1}));
  const Status status =
      worker.call(body("aten::add", "out",
                       {tensor(0, meta({4})), tensor(0, meta({4})), scalar(1), tensor(1, meta({0}))}, {argument(2)}),
                  {0, 1});
  EXPECT_EQ(status.kind(), StatusKind::kDevice);
  EXPECT_NE(status.text().find("out argument"), std::string::npos) << status.text();
}

TEST(TorchAsk, ReportsWhatTheOperatorMade) {
  Worker worker;
  worker.put(0, at::tensor({0, 3, 0, 4}, at::TensorOptions().dtype(at::kLong)));
  const auto report = worker.ask(body("aten::nonzero", "", {tensor(0, meta({4}, wire::DType::kInt64))}), {0}, {1, 2});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_EQ(report->outputs.size(), 1u);
  EXPECT_EQ(report->outputs[0].kind, OutputKind::kNew);
  EXPECT_EQ(report->outputs[0].slot, 1);
  EXPECT_EQ(report->outputs[0].tensor.sizes, (std::vector<int64_t>{2, 1}));
  const at::Tensor found = worker.get(1, report->outputs[0].tensor);
  EXPECT_EQ(found.sum().item().toLong(), 4);
  EXPECT_FALSE(worker.status_of_read(2, 0, 0).ok()) << "a slot more than needed stays empty";
}

TEST(TorchAsk, ReportsTruthArgumentsAndViews) {
  Worker worker;
  worker.put(0, at::ones({4}));
  const auto equal = worker.ask(body("aten::equal", "", {tensor(0, meta({4})), tensor(0, meta({4}))}), {0});
  ASSERT_TRUE(equal.ok());
  EXPECT_EQ(equal->outputs[0].kind, OutputKind::kBool);
  EXPECT_EQ(equal->outputs[0].integer, 1);
  const auto same = worker.ask(body("aten::zero_", "", {tensor(0, meta({4}))}), {0});
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->outputs[0].kind, OutputKind::kArgument);
  const auto view = worker.ask(body("aten::alias", "", {tensor(0, meta({4}))}), {0}, {1});
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->outputs[0].kind, OutputKind::kViewOf);
  EXPECT_EQ(view->outputs[0].slot, 0);
}

TEST(TorchAsk, TooFewSlotsFail) {
  Worker worker;
  worker.put(0, at::ones({4}));
  EXPECT_FALSE(worker.ask(body("aten::neg", "", {tensor(0, meta({4}))}), {0}, {}).ok());
}

// Goal: the classes a CUDA program catches come out of the exceptions libtorch throws.
TEST(TorchErrors, ExceptionsKeepTheirClassAndNameTheirOperator) {
  Worker worker;
  worker.put(0, at::ones({4}));
  const Status index =
      worker.call(body("aten::sum", "dim_IntList", {tensor(0, meta({4})), integers({7}), truth(false), none()},
                       {fresh(1, meta({}))}),
                  {0}, {1});
  EXPECT_EQ(index.kind(), StatusKind::kDevice);
  EXPECT_EQ(class_of(index), ErrorClass::kIndex);
  EXPECT_EQ(index.detail().op, "aten::sum.dim_IntList");
  EXPECT_EQ(index.text().find("frame #"), std::string::npos) << "no backtrace";

  const Status shape = worker.call(
      body("aten::mm", "", {tensor(0, meta({2, 2})), tensor(0, meta({1, 4}))}, {fresh(1, meta({2, 4}))}), {0}, {1});
  EXPECT_EQ(class_of(shape), ErrorClass::kRuntime);

  worker.put(2, at::ones({2, 2}).zero_());
  const Status singular =
      worker.call(body("aten::linalg_cholesky_ex", "", {tensor(0, meta({2, 2})), truth(false), truth(true)},
                       {fresh(1, meta({2, 2})), fresh(2, meta({}, wire::DType::kInt32))}),
                  {2}, {3, 4});
  EXPECT_EQ(class_of(singular), ErrorClass::kLinAlg) << singular.to_string();
}

TEST(TorchErrors, AMissingKernelIsNotImplementedAndNamesOperatorAndDtype) {
  Worker worker;
  worker.put(0, at::ones({2, 2}, at::TensorOptions().dtype(at::kHalf)));
  const auto half = meta({2, 2}, wire::DType::kFloat16);
  const Status status = worker.call(body("aten::linalg_cholesky_ex", "", {tensor(0, half), truth(false), truth(false)},
                                         {fresh(1, half), fresh(2, meta({}, wire::DType::kInt32))}),
                                    {0}, {1, 2});
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.detail().op, "aten::linalg_cholesky_ex");
  EXPECT_NE(status.text().find("Half"), std::string::npos) << status.text();
}

TEST(TorchErrors, UnknownAndRefusedOperatorsAreUnsupported) {
  Worker worker;
  worker.put(0, at::ones({4}));
  for (const char* op : {"aten::no_such_thing", "aten::set_", "aten::_reshape_alias", "aten::from_file",
                         "aten::_efficientzerotensor", "aten::_sparse_coo_tensor_unsafe", "prims::add"}) {
    const Status status = worker.call(body(op, "", {tensor(0, meta({4}))}, {fresh(1, meta({4}))}), {0}, {1});
    EXPECT_EQ(status.kind(), StatusKind::kUnsupported) << op;
    EXPECT_NE(status.text().find(op), std::string::npos) << status.text();
  }
  wire::PlanBody other = add_body(meta({4}), meta({4}), meta({4}));
  other.schema_hash = 12345;
  EXPECT_EQ(worker.call(other, {0, 0}, {1}, scalars(int64_t{1})).kind(), StatusKind::kUnsupported);
}

TEST(TorchSlots, PoisonSpreadsAndNamesWhereItCameFrom) {
  Worker worker;
  worker.put(0, at::ones({4}));
  StatusDetail detail;
  detail.op = "aten::mm";
  worker.queue().poison(Worker::slot(1), Status(StatusKind::kDevice, "no such luck", detail));
  const Status status = worker.call(add_body(meta({4}), meta({4}), meta({4})), {0, 1}, {2}, scalars(int64_t{1}));
  EXPECT_EQ(status.kind(), StatusKind::kDevice);
  EXPECT_NE(status.text().find("aten::mm: no such luck"), std::string::npos) << status.text();
  EXPECT_FALSE(worker.status_of_read(1, 0, 16).ok());
  worker.queue().free(Worker::slot(1));
  worker.put(1, at::ones({4}));
  EXPECT_OK(worker.status_of_read(1, 0, 16));
}

TEST(TorchSlots, CreateResizeWriteReadFree) {
  Worker worker;
  EXPECT_OK(worker.queue().create(Worker::slot(5), 16));
  const float values[4] = {1, 2, 3, 4};
  EXPECT_OK(worker.queue().write(Worker::slot(5), 0, upload_of(values, 16)));
  EXPECT_OK(worker.queue().write(Worker::slot(5), 4, upload_of(values, 4)));  // a part, copied
  EXPECT_OK(worker.queue().resize(Worker::slot(5), 32));
  EXPECT_OK(worker.queue().write(Worker::slot(5), 16, upload_of(values, 16)));
  EXPECT_TRUE(same_bits(worker.get(5, meta({8})), at::tensor({1.f, 1.f, 3.f, 4.f, 1.f, 2.f, 3.f, 4.f})));
  EXPECT_OK(worker.queue().resize(Worker::slot(5), 8));
  EXPECT_EQ(worker.status_of_read(5, 0, 9).kind(), StatusKind::kInvalid);
  EXPECT_EQ(worker.status_of_read(5, UINT64_MAX, 2).kind(), StatusKind::kInvalid);
  EXPECT_EQ(worker.queue().write(Worker::slot(5), 6, upload_of(values, 4)).kind(), StatusKind::kInvalid);
  worker.queue().free(Worker::slot(5));
  EXPECT_FALSE(worker.status_of_read(5, 0, 0).ok());
}

TEST(TorchSlots, AnUploadBecomesTheStorageWithoutACopy) {
  Worker worker;
  const at::Tensor x = at::randn({1024});
  server::UploadedBytes upload = upload_of(x.const_data_ptr(), x.nbytes());
  const std::byte* where = upload.data.get();
  EXPECT_OK(worker.queue().write(Worker::slot(0), 0, std::move(upload)));
  EXPECT_OK(worker.queue().read(Worker::slot(0), 0, 4096, [&](std::span<const std::byte> chunk) {
    EXPECT_EQ(chunk.data(), where);
    return Status();
  }));
  // Over an existing storage of that size, seen by tensors built before.
  EXPECT_OK(worker.call(body("aten::neg_", "", {tensor(0, meta({1024}))}, {argument(0)}), {0}));
  EXPECT_OK(worker.queue().write(Worker::slot(0), 0, upload_of(x.const_data_ptr(), x.nbytes())));
  EXPECT_OK(worker.call(body("aten::neg_", "", {tensor(0, meta({1024}))}, {argument(0)}), {0}));
  EXPECT_TRUE(same_bits(worker.get(0, meta({1024})), -x));
}

// Goal: a call may use another queue's storage.
TEST(TorchSlots, CallsReadSlotsOfOtherQueues) {
  Worker worker(R"({"device": "cpu", "gpus": 2})", 2);
  const at::Tensor a = at::randn({4});
  worker.put(7, a, 0);
  const Buffer bytes = wire::encode(body("aten::neg", "", {tensor(0, meta({4}))}, {fresh(1, meta({4}))}));
  EXPECT_OK(worker.queue(1).define(PlanId{0}, 1, 1, bytes));
  bool conformed = false;
  const std::vector<Slot> slots = {Worker::slot(7, 0), Worker::slot(0, 1)};
  EXPECT_OK(worker.queue(1).call(PlanId{0}, slots, {}, &conformed, nullptr));
  EXPECT_TRUE(same_bits(worker.get(0, meta({4}), 1), -a));
  const std::vector<Slot> foreign = {Worker::slot(7, 0), Worker::slot(0, 0)};
  EXPECT_EQ(worker.queue(1).call(PlanId{0}, foreign, {}, &conformed, nullptr).kind(), StatusKind::kInvalid);
}

TEST(TorchMemory, WhatCannotFitIsOutOfMemoryAndLeavesEverythingElse) {
  Worker worker(R"({"device": "cpu", "memory_bytes": 1048576})");
  const Status huge = worker.queue().create(Worker::slot(0), uint64_t{1} << 41);
  EXPECT_EQ(huge.kind(), StatusKind::kDevice);
  EXPECT_EQ(class_of(huge), ErrorClass::kOutOfMemory);
  EXPECT_NE(huge.text().find("out of memory"), std::string::npos);
  EXPECT_OK(worker.queue().create(Worker::slot(0), 512 << 10));
  EXPECT_OK(worker.queue().create(Worker::slot(1), 512 << 10));
  EXPECT_EQ(class_of(worker.queue().create(Worker::slot(2), 1)), ErrorClass::kOutOfMemory);
  const Status output = worker.call(body("aten::neg", "", {tensor(0, meta({16}))}, {fresh(1, meta({16}))}), {0}, {2});
  EXPECT_EQ(class_of(output), ErrorClass::kOutOfMemory);
  worker.queue().free(Worker::slot(1));
  EXPECT_OK(worker.queue().create(Worker::slot(2), 64));
  const auto info = worker.command({.kind = wire::CommandKind::kMemoryInfo});
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->ints[1], 1048576);
  EXPECT_EQ(info->ints[2], (512 << 10) + 64);
}

TEST(TorchMemory, TheAllocatorsOwnRefusalIsOutOfMemoryToo) {
  Worker worker(R"({"device": "cpu", "memory_bytes": 4611686018427387904})");
  const Status status = worker.queue().create(Worker::slot(0), uint64_t{1} << 42);
  EXPECT_EQ(class_of(status), ErrorClass::kOutOfMemory) << status.to_string();
  const Status in_call = worker.call(
      body("aten::empty", "memory_format", {integers({int64_t{1} << 44}), none(), none(), device(0), none(), none()},
           {fresh(0, meta({1}))}),
      {}, {0});
  EXPECT_EQ(class_of(in_call), ErrorClass::kOutOfMemory) << in_call.to_string();
}

TEST(TorchRandom, SeedStateAndGeneratorsBehaveAsOnACpu) {
  Worker worker(R"({"device": "cpu", "gpus": 2})", 2);
  const at::Tensor x = at::ones({64});
  const auto dropout = body("aten::native_dropout", "", {tensor(0, meta({64})), number(0.5), truth(true)},
                            {fresh(1, meta({64})), fresh(2, meta({64}, wire::DType::kBool))});
  auto expected = at::detail::createCPUGenerator(7);
  const at::Tensor first = at::empty({64}).uniform_(0, 1, expected), second = at::empty({64}).uniform_(0, 1, expected);
  const auto uniform = [&](wire::Argument g) {
    return body("aten::uniform_", "", {tensor(0, meta({64})), number(0), number(1), std::move(g)}, {argument(0)});
  };
  for (const uint16_t q : {uint16_t{0}, uint16_t{1}}) {
    worker.put(0, x, q);
    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kSeed, .value = 7}, q).ok());
    EXPECT_OK(worker.call(uniform(none()), {0}, {}, {}, q));
    EXPECT_TRUE(same_bits(worker.get(0, meta({64}), q), first)) << q;
    const auto state = worker.command({.kind = wire::CommandKind::kGetGeneratorState}, q);
    ASSERT_TRUE(state.ok());
    EXPECT_OK(worker.call(uniform(generator(0)), {0}, {}, {}, q));
    EXPECT_TRUE(same_bits(worker.get(0, meta({64}), q), second));
    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kSetGeneratorState, .bytes = state->bytes}, q).ok());
    EXPECT_OK(worker.call(uniform(none()), {0}, {}, {}, q));
    EXPECT_TRUE(same_bits(worker.get(0, meta({64}), q), second));

    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kNewGenerator, .generator = 3, .value = 7}, q).ok());
    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kCopyGenerator, .generator = 4, .value = 3}, q).ok());
    for (const int64_t g : {3, 4}) {
      EXPECT_OK(worker.call(uniform(generator(g)), {0}, {}, {}, q));
      EXPECT_TRUE(same_bits(worker.get(0, meta({64}), q), first));
    }
    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kFreeGenerator, .generator = 3}, q).ok());
    EXPECT_EQ(worker.call(uniform(generator(3)), {0}, {}, {}, q).kind(), StatusKind::kInvalid);
  }
  // An operator without a generator argument draws from the queue's own default generator.
  at::Tensor masks[2];
  for (const uint16_t q : {uint16_t{0}, uint16_t{1}}) {
    worker.put(0, x, q);
    EXPECT_TRUE(worker.command({.kind = wire::CommandKind::kSeed, .value = 11}, q).ok());
  }
  for (const uint16_t q : {uint16_t{0}, uint16_t{1}}) {
    EXPECT_OK(worker.call(dropout, {0}, {1, 2}, {}, q));
    masks[q] = worker.get(2, meta({64}, wire::DType::kBool), q);
  }
  EXPECT_TRUE(same_bits(masks[0], masks[1]));
}

TEST(TorchInfo, SaysWhatItIs) {
  Worker worker(R"({"device": "cpu", "gpus": 3, "memory_bytes": 1000})");
  const std::string info = worker.backend().info_json();
  for (const char* part : {"\"kind\":\"torch\"", "\"version\":\"2.", "\"total_memory\":1000", "\"capability\":[8,0]"}) {
    EXPECT_NE(info.find(part), std::string::npos) << part << " in " << info;
  }
  EXPECT_FALSE(worker.backend().open_queue(QueueId{3}).ok());
  EXPECT_FALSE(make_backend("[1]").ok());
  EXPECT_FALSE(make_backend(R"({"gpus": -1})").ok());
  EXPECT_FALSE(make_backend(R"({"gpus": 1000})").ok());
}

// Goal: the program's number of threads is taken over by the thread that computes; 0 leaves it; nonsense is refused.
TEST(TorchCommand, SetsTheNumberOfThreads) {
  Worker worker;
  const auto set = [&](uint64_t threads) {
    return worker.command({.kind = wire::CommandKind::kSetFlags, .value = threads << wire::context_threads_shift});
  };
  const int before = at::get_num_threads();
  EXPECT_TRUE(set(3).ok());
  EXPECT_EQ(at::get_num_threads(), 3);
  EXPECT_TRUE(set(0).ok());
  EXPECT_EQ(at::get_num_threads(), 3);
  EXPECT_EQ(set(wire::context_threads_max + 1).status().kind(), StatusKind::kInvalid);
  at::set_num_threads(before);
}

}  // namespace
}  // namespace waldo::torch_backend::test
