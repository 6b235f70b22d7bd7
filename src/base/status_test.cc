#include "base/status.h"

#include <gtest/gtest.h>

namespace waldo {
namespace {

TEST(Status, ContextIsAddedInFrontAndKeepsKindAndDetail) {
  StatusDetail detail;
  detail.call = 41;
  detail.op = "aten::add.Tensor";
  const Status inner(StatusKind::kDevice, "out of memory", detail);
  const Status outer = inner.with_context("read slot 812");
  EXPECT_EQ(outer.to_string(), "kDevice: read slot 812: out of memory");
  EXPECT_EQ(outer.detail().call, 41u);
  EXPECT_EQ(outer.detail().op, "aten::add.Tensor");
  EXPECT_TRUE(Status().with_context("x").ok());
}

TEST(Status, EveryKindHasAName) {
  for (int kind = 0; kind <= 8; ++kind) EXPECT_NE(name_of(static_cast<StatusKind>(kind)), "kUnknown");
  EXPECT_EQ(name_of(static_cast<StatusKind>(99)), "kUnknown");
}

Result<int> half(int value) {
  if (value % 2 != 0) return Status(StatusKind::kInvalid, "odd");
  return value / 2;
}

TEST(Result, HoldsAValueOrAFailure) {
  EXPECT_EQ(*half(8), 4);
  EXPECT_TRUE(half(8).status().ok());
  EXPECT_EQ(half(3).status().kind(), StatusKind::kInvalid);
}

TEST(CheckDeathTest, ABrokenPromiseStopsTheProcessAndNamesTheLine) {
  EXPECT_DEATH(WALDO_CHECK(1 == 2), "status_test.cc:[0-9]+: 1 == 2");
  EXPECT_DEATH(static_cast<void>(half(3).value()), "ok\\(\\)");
}

}  // namespace
}  // namespace waldo
