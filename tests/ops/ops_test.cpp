#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/attention.h"
#include "vitrail/ops/masking.h"
#include "vitrail/ops/norm.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/position.h"
#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

constexpr core::DrawKey kKey{5, core::Stream::test, 2, 3};

at::Tensor ids(std::initializer_list<int64_t> values) {
  return at::tensor(std::vector<int64_t>(values), at::kLong);
}

at::Tensor random(at::IntArrayRef shape, uint16_t layer = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return uniform({9, core::Stream::test, 0, layer}, ids({0}), count).view(shape) - 0.5;
}

double largest(const at::Tensor& difference) { return difference.abs().max().item<double>(); }

TEST(Uniform, IsThePhiloxValueOfItsPlace) {
  const at::Tensor values = uniform(kKey, ids({7, 1ll << 40}), 6);
  for (int64_t e = 0; e < 6; ++e) {
    EXPECT_EQ(values[0][e].item<float>(), core::uniform(kKey, 7, static_cast<uint32_t>(e)));
    EXPECT_EQ(values[1][e].item<float>(),
              core::uniform(kKey, 1ull << 40, static_cast<uint32_t>(e)));
  }
}

TEST(Uniform, ASampleDrawsTheSameInAnyBatch) {
  EXPECT_TRUE(at::equal(uniform(kKey, ids({3, 9}), 5)[1], uniform(kKey, ids({9}), 5)[0]));
}

TEST(Uniform, RefusesMissingSampleIds) {
  EXPECT_THROW(ops::uniform(kKey, at::Tensor(), 4), core::Error);
}

TEST(Dropout, KeepsTheMeanAndZeroesTheShareAskedFor) {
  const at::Tensor y = dropout(at::ones({1, 100000}), 0.3, kKey, ids({1}));
  const double zeros = y.eq(0).to(at::kDouble).mean().item<double>(),
               mean = y.mean().item<double>();
  // Standard deviation of the share is sqrt(0.21 / 1e5) = 0.0014; five of them.
  EXPECT_NEAR(zeros, 0.3, 0.0073);
  EXPECT_NEAR(mean, 1.0, 0.0073 / 0.7);
  EXPECT_FLOAT_EQ(y.max().item<float>(), 1.0f / 0.7f);
}

TEST(DropPath, DropsWholeSamples) {
  const at::Tensor y = drop_path(at::ones({64, 3, 2}), 0.5, kKey, at::arange(64, at::kLong));
  const at::Tensor first = y.select(2, 0).select(1, 0).view({64, 1, 1});
  EXPECT_TRUE(at::equal(y, first.expand({64, 3, 2})));
  const int64_t kept = first.gt(0).sum().item<int64_t>();
  EXPECT_GT(kept, 16);
  EXPECT_LT(kept, 48);
  EXPECT_FLOAT_EQ(y.max().item<float>(), 2.0f);
}

TEST(DropPath, ARateOfOneIsRefused) {
  EXPECT_THROW(drop_path(at::ones({1, 1}), 1.0, kKey, ids({1})), core::Error);
}

class Patch : public testing::TestWithParam<std::tuple<std::vector<int64_t>, PatchOrder>> {};

TEST_P(Patch, UnpatchifyIsTheInverse) {
  const auto& [sides, order] = GetParam();
  std::vector<int64_t> shape{2, 3};
  shape.insert(shape.end(), sides.begin(), sides.end());
  const at::Tensor image = random(shape);
  const at::Tensor tokens = patchify(image, 4, order);
  EXPECT_TRUE(at::equal(unpatchify(tokens, patch_grid(sides, 4), 4, order), image));
}

INSTANTIATE_TEST_SUITE_P(
    Sides, Patch,
    testing::Combine(testing::Values(std::vector<int64_t>{8, 12}, std::vector<int64_t>{4, 8, 12}),
                     testing::Values(PatchOrder::channel_first, PatchOrder::channel_last)));

TEST(Patch, OrdersAreThoseOfAConvolutionAndOfThePaper) {
  const at::Tensor image =
      at::arange(2 * 4 * 4, at::kFloat).view({1, 2, 4, 4});  // value = 16 c + 4 row + column
  const auto row = [&](PatchOrder order) {
    return patchify(image, 2, order)[0][1];
  };  // the patch right of the first
  EXPECT_TRUE(at::equal(row(PatchOrder::channel_first),
                        at::tensor({2.f, 3.f, 6.f, 7.f, 18.f, 19.f, 22.f, 23.f})));
  EXPECT_TRUE(at::equal(row(PatchOrder::channel_last),
                        at::tensor({2.f, 18.f, 3.f, 19.f, 6.f, 22.f, 7.f, 23.f})));
}

TEST(Patch, IndivisibleSidesAreRefusedByNumber) {
  try {
    patch_grid({30, 32}, 16);
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("30x32 and 16"));
  }
}

double sincos(int64_t position, int64_t width, int64_t place) {
  const int64_t half = width / 2;
  const double rate =
      std::pow(10000.0, -static_cast<double>(place % half) / static_cast<double>(half));
  return place < half ? std::sin(static_cast<double>(position) * rate)
                      : std::cos(static_cast<double>(position) * rate);
}

TEST(SinCos, TwoDimensionsPutTheColumnFirst) {
  const at::Tensor table = sincos_table({2, 3}, 8);
  double worst = 0;
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t column = 0; column < 3; ++column)
      for (int64_t d = 0; d < 8; ++d)
        worst = std::max(worst, std::abs(table[row * 3 + column][d].item<double>() -
                                         sincos(d < 4 ? column : row, 4, d % 4)));
  EXPECT_LE(worst, 6e-8) << "the table is rounded once, to fp32";
}

TEST(SinCos, ThreeDimensionsGoInAxisOrder) {
  const at::Tensor table = sincos_table({2, 3, 4}, 12);
  double worst = 0;
  for (int64_t cell = 0; cell < 24; ++cell)
    for (int64_t d = 0; d < 12; ++d) {
      const int64_t place[3] = {cell / 12, cell / 4 % 3, cell % 4};
      worst =
          std::max(worst, std::abs(table[cell][d].item<double>() - sincos(place[d / 4], 4, d % 4)));
    }
  EXPECT_LE(worst, 6e-8) << "the table is rounded once, to fp32";
}

TEST(SinCos, AnUnsuitableWidthIsAConfigError) {
  EXPECT_THROW(sincos_table({2, 2}, 10), core::ConfigError);
  EXPECT_THROW(sincos_table({2, 2, 2}, 16), core::ConfigError);
}

TEST(Masking, KeepsTheSmallestNoiseInAscendingOrder) {
  const at::Tensor noise = at::tensor({0.5f, 0.1f, 0.9f, 0.3f, 0.2f}).view({1, 5});
  const Masking masking = random_masking(noise, 2);
  EXPECT_TRUE(at::equal(masking.keep_BK, ids({1, 4}).view({1, 2})));
  EXPECT_TRUE(at::equal(masking.mask_BL, at::tensor({1.f, 0.f, 1.f, 1.f, 0.f}).view({1, 5})));
}

TEST(Masking, TiesGoToTheLowerIndex) {
  const Masking masking = random_masking(at::zeros({1, 100}), 3);
  EXPECT_TRUE(at::equal(masking.keep_BK, ids({0, 1, 2}).view({1, 3})));
}

TEST(Masking, RestoringPutsEveryTokenBack) {
  const at::Tensor x = random({2, 6, 3});
  const Masking masking = random_masking(random({2, 6}, 1), 4);
  const at::Tensor kept = gather_tokens(x, masking.keep_BK);
  const at::Tensor back =
      gather_tokens(at::cat({kept, at::zeros({2, 2, 3})}, 1), masking.restore_BL);
  EXPECT_TRUE(at::equal(back, x * (1.0 - masking.mask_BL).unsqueeze(-1)));
}

TEST(Masking, KeepsTheFloorOfTheVisibleShare) {
  EXPECT_EQ(kept_tokens(196, 0.75), 49);
  EXPECT_EQ(kept_tokens(10, 0.75), 2);
  EXPECT_EQ(kept_tokens(10, 0.0), 10);
}

TEST(Attention, LibraryAndFormulaAgree) {
  const at::Tensor q = random({2, 3, 33, 16}, 1), k = random({2, 3, 33, 16}, 2),
                   v = random({2, 3, 33, 16}, 3);
  const double worst = largest(sdpa(q, k, v) - plain_attention(q, k, v));
  RecordProperty("worst", std::to_string(worst));
  // 33 probabilities weigh values below 0.5: sums of 33 terms, a few roundings of 3e-8.
  EXPECT_LE(worst, 3e-7);
}

TEST(RmsNorm, FollowsTheFormula) {
  const at::Tensor x = random({4, 31}) * 10.0, weight = random({31}, 1);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor expected =
      wide / (wide.square().mean(-1, true) + 1e-6).sqrt() * weight.to(at::kDouble);
  EXPECT_LE(largest(rms_norm(x, weight, 1e-6).to(at::kDouble) - expected), 3e-7)
      << "values up to 1, a few fp32 roundings";
}

TEST(Norms, KeepStatisticsInFp32ForBf16Input) {
  // A mean of 100 with a spread of 1: statistics in bf16 (8 bits) would lose the spread.
  const at::Tensor x = (random({2, 4096}) * 4.0 + 100.0).to(at::kBFloat16),
                   wide = x.to(at::kDouble);
  const at::Tensor ones = at::ones({4096}, at::kBFloat16), zeros = at::zeros({4096}, at::kBFloat16);
  const at::Tensor centred = wide - wide.mean(-1, true);
  const at::Tensor expected = centred / (centred.square().mean(-1, true) + 1e-6).sqrt();
  EXPECT_LE(largest(layer_norm(x, ones, zeros, 1e-6).to(at::kDouble) - expected), 0.01)
      << "bf16 rounds 2 to 0.008";
  const at::Tensor rms = wide / (wide.square().mean(-1, true) + 1e-6).sqrt();
  EXPECT_LE(largest(rms_norm(x, ones, 1e-6).to(at::kDouble) - rms), 0.004)
      << "bf16 rounds 1 to 0.004";
}

}  // namespace
}  // namespace vitrail::ops
