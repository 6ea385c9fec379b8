#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

const core::DrawKey kKey{5, core::Stream::dropout, 2, 9};

at::Tensor ids() { return at::tensor({int64_t{3}, int64_t{11}}, at::kLong); }

/// The whole is drawn for and cut; what lies past its end is zero.
at::Tensor cut_of_whole(const at::Tensor& x, double rate, const Window& window) {
  std::vector<int64_t> shape{x.size(0)};
  shape.insert(shape.end(), window.whole.begin(), window.whole.end());
  at::Tensor keep = dropout(at::ones(shape, x.options()), rate, kKey, ids());
  for (size_t axis = 0; axis < window.whole.size(); ++axis) {
    const auto a = static_cast<int64_t>(axis) + 1;
    std::vector<int64_t> more = keep.sizes().vec();
    more[a] = x.size(a) + window.start[axis];
    keep = at::cat({keep, at::zeros(more, keep.options())}, a)
               .narrow(a, window.start[axis], x.size(a));
  }
  return x * keep;
}

TEST(Uniform, ReadsItsStepWhereTheKeySays) {
  at::Tensor place = at::tensor({int32_t{7}}, at::kInt);
  core::DrawKey here = kKey, there = kKey;
  there.step_place = static_cast<const uint32_t*>(place.const_data_ptr());
  for (const int32_t step : {7, 8}) {
    place.fill_(step);
    here.step = static_cast<uint32_t>(step);
    EXPECT_TRUE(at::equal(uniform(there, ids(), 100), uniform(here, ids(), 100)));
  }
  EXPECT_FALSE(at::equal(uniform(there, ids(), 100), uniform(kKey, ids(), 100)));
}

TEST(DropoutOfAPart, EqualsThePartOfTheWhole) {
  struct Case {
    std::vector<int64_t> shape;
    Window window;
  };
  const std::vector<Case> cases{
      {{7}, {{5}, {12}}},                    // to the end, not at a multiple of four
      {{3, 5}, {{2, 6}, {9, 11}}},           // tokens and channels
      {{4, 6}, {{7, 0}, {9, 6}}},            // two of the tokens are past the end
      {{4, 6}, {{12, 3}, {9, 8}}},           // all tokens, some channels
      {{2, 3, 5}, {{2, 4, 0}, {4, 7, 7}}},   // heads, queries, keys
      {{2, 5, 9}, {{2, 4, 3}, {4, 7, 10}}},  // queries and keys past the end
      {{2, 2, 3, 33}, {{1, 0, 2, 1}, {3, 2, 8, 64}}},
  };
  for (const Case& test : cases) {
    std::vector<int64_t> shape = test.shape;
    shape.insert(shape.begin(), 2);
    const at::Tensor x = at::ones(shape) * 1.5;
    const at::Tensor part = dropout(x, 0.4, kKey, ids(), test.window);
    EXPECT_TRUE(at::equal(part, cut_of_whole(x, 0.4, test.window))) << x.sizes();
    EXPECT_TRUE(at::equal(dropout(x, 0.0, kKey, ids(), test.window), x));
  }
}

TEST(DropoutOfAPart, OfEverythingIsPlainDropout) {
  const at::Tensor x = at::ones({2, 5, 7}, at::kBFloat16);
  EXPECT_TRUE(
      at::equal(dropout(x, 0.3, kKey, ids(), {{0, 0}, {5, 7}}), dropout(x, 0.3, kKey, ids())));
}

TEST(DropoutOfAPart, NeedsAWindowOfItsAxes) {
  EXPECT_THROW(dropout(at::ones({2, 5, 7}), 0.3, kKey, ids(), {{0}, {5}}), core::Error);
}

}  // namespace
}  // namespace vitrail::ops
