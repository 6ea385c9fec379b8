#include "vitrail/ops/rotary.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

at::Tensor random(at::IntArrayRef shape, uint16_t layer = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return uniform({9, core::Stream::test, 0, layer}, at::arange(1, at::kLong), count).view(shape) -
         0.5;
}

double largest(const at::Tensor& difference) { return difference.abs().max().item<double>(); }

/// One vector at every one of `tokens` places, turned: [T, E], fp64.
at::Tensor everywhere(const Rotary& rotary, int64_t tokens, int64_t width, uint16_t layer) {
  const at::Tensor one = random({1, 1, 1, width}, layer).to(at::kDouble);
  return rotate(one.expand({1, 1, tokens, width}), rotary).view({tokens, width});
}

TEST(Rotary, RasterScoresDependOnlyOnTheDistance) {
  constexpr int64_t kTokens = 24, kWidth = 10;
  const Rotary rotary = raster_rotary({2, 3, 4}, 0, kWidth, 100.0);
  const at::Tensor scores = at::matmul(everywhere(rotary, kTokens, kWidth, 1),
                                       everywhere(rotary, kTokens, kWidth, 2).t());
  const at::Tensor moved = scores.slice(0, 1).slice(1, 1),
                   first = scores.slice(0, 0, -1).slice(1, 0, -1);
  const double worst = largest(moved - first);
  fmt::print("worst {:.1e}, bound 1e-6 (cos and sin rounded to fp32: 6e-8 on five pairs)\n", worst);
  EXPECT_LE(worst, 1e-6);
  EXPECT_GT(largest(scores.slice(1, 0, -1) - scores.slice(1, 1)), 1e-3) << "nothing turns";
}

TEST(Rotary, AxialScoresDependOnlyOnTheDistanceAlongEachAxis) {
  constexpr int64_t kWidth = 12, kRows = 3, kColumns = 4;
  const Rotary rotary = axial_rotary({kRows, kColumns}, 0, kWidth, 100.0);
  const at::Tensor scores =
      at::matmul(everywhere(rotary, 12, kWidth, 1), everywhere(rotary, 12, kWidth, 2).t())
          .view({kRows, kColumns, kRows, kColumns});
  const at::Tensor down = scores.slice(0, 1).slice(2, 1),
                   up = scores.slice(0, 0, -1).slice(2, 0, -1);
  const at::Tensor right = scores.slice(1, 1).slice(3, 1),
                   left = scores.slice(1, 0, -1).slice(3, 0, -1);
  const double worst = std::max(largest(down - up), largest(right - left));
  fmt::print("worst {:.1e}, bound 1e-6 (cos and sin rounded to fp32)\n", worst);
  EXPECT_LE(worst, 1e-6);
}

TEST(Rotary, RasterAnglesAreIndexTimesFrequencyEvenFarOut) {
  constexpr int64_t kWidth = 96, kPrefix = 2;
  const Rotary rotary = raster_rotary({64, 64, 64}, kPrefix, kWidth, 500000.0);
  ASSERT_EQ(rotary.cos.sizes(), at::IntArrayRef({1, kPrefix + 262144, kWidth / 2}));
  ASSERT_EQ(rotary.cos.scalar_type(), at::kFloat);
  double worst = 0;
  for (const int64_t cell : {0, 1, 64, 4096, 262143})
    for (int64_t k = 0; k < kWidth / 2; ++k) {
      const long double angle = static_cast<long double>(cell) *
                                std::pow(500000.0L, -2.0L * static_cast<long double>(k) / kWidth);
      const at::Tensor row = rotary.cos[0][kPrefix + cell], other = rotary.sin[0][kPrefix + cell];
      worst =
          std::max(worst, std::abs(row[k].item<double>() - static_cast<double>(std::cos(angle))));
      worst =
          std::max(worst, std::abs(other[k].item<double>() - static_cast<double>(std::sin(angle))));
    }
  fmt::print("worst {:.1e}, bound 3.1e-8 (half a unit of fp32 below 1, fp64 angles err by 6e-11)\n",
             worst);
  EXPECT_LE(worst, 3.1e-8);
}

TEST(Rotary, AxesTurnTheirOwnPartsInOrder) {
  constexpr int64_t kWidth = 12;  // two pairs an axis
  const Rotary rotary = axial_rotary({2, 3, 4}, 0, kWidth, 100.0);
  double worst = 0;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t place[3] = {i, j, k};
        for (int64_t pair = 0; pair < kWidth / 2; ++pair) {
          const double angle = static_cast<double>(place[pair / 2]) * (pair % 2 ? 0.1 : 1.0);
          worst = std::max(worst, std::abs(rotary.sin[0][(i * 3 + j) * 4 + k][pair].item<double>() -
                                           std::sin(angle)));
        }
      }
  fmt::print("worst {:.1e}, bound 3.1e-8 (half a unit of fp32 below 1)\n", worst);
  EXPECT_LE(worst, 3.1e-8);
}

TEST(Rotary, TurnsNeighbouringChannelsAndLeavesThePrefixAlone) {
  const Rotary rotary = raster_rotary({3}, 1, 4, 100.0);
  const at::Tensor x = random({2, 3, 4, 4}), y = rotate(x, rotary);
  EXPECT_TRUE(at::equal(y.select(2, 0), x.select(2, 0)));
  EXPECT_TRUE(at::equal(y.select(2, 1), x.select(2, 1))) << "patch 0 has angle 0";
  const auto a = x[1][2][3][2].item<double>(), b = x[1][2][3][3].item<double>();
  EXPECT_NEAR(y[1][2][3][2].item<double>(), a * std::cos(0.2) - b * std::sin(0.2), 1e-7);
  EXPECT_NEAR(y[1][2][3][3].item<double>(), a * std::sin(0.2) + b * std::cos(0.2), 1e-7);
}

TEST(Rotary, TurnsInFp32AndReturnsTheTypeOfItsInput) {
  const Rotary rotary = raster_rotary({5}, 0, 8, 100.0);
  const at::Tensor x = random({2, 3, 5, 8}).to(at::kBFloat16);
  const at::Tensor y = rotate(x, rotary);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(y, rotate(x.to(at::kFloat), rotary).to(at::kBFloat16)));
  EXPECT_EQ(rotate(x.to(at::kDouble), rotary).scalar_type(), at::kDouble);
}

TEST(Rotary, AStridedViewTurnsLikeItsCopy) {
  const Rotary rotary = raster_rotary({5}, 0, 8, 100.0);
  const at::Tensor view = random({2, 5, 3 * 8}).view({2, 5, 3, 8}).slice(2, 1).transpose(1, 2);
  EXPECT_LE(largest(rotate(view, rotary) - rotate(view.contiguous(), rotary)), 6e-8)
      << "vector and scalar kernels may round a product of values below 1 differently";
}

TEST(Rotary, GatherTakesThePrefixAndTheRowsAskedFor) {
  const Rotary rotary = axial_rotary({2, 3}, 2, 8, 100.0);
  const at::Tensor ids = at::tensor({5, 0, 3, 1, 1, 4}, at::kLong).view({2, 3});
  const Rotary some = gather(rotary, ids, 2);
  ASSERT_EQ(some.cos.sizes(), at::IntArrayRef({2, 5, 4}));
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t t = 0; t < 5; ++t) {
      const int64_t row = t < 2 ? t : 2 + ids[b][t - 2].item<int64_t>();
      EXPECT_TRUE(at::equal(some.cos[b][t], rotary.cos[0][row]));
      EXPECT_TRUE(at::equal(some.sin[b][t], rotary.sin[0][row]));
    }
  const at::Tensor x = random({2, 3, 5, 8});
  const Rotary second{some.cos.slice(0, 1), some.sin.slice(0, 1)};
  EXPECT_TRUE(at::equal(rotate(x, some).slice(0, 1), rotate(x.slice(0, 1), second)));
}

TEST(Rotary, RefusesWidthsThatDoNotDivide) {
  EXPECT_THROW(raster_rotary({4}, 0, 7, 100.0), core::ConfigError);
  EXPECT_THROW(axial_rotary({4, 4}, 0, 6, 100.0), core::ConfigError);
  EXPECT_THROW(axial_rotary({4, 4, 4}, 0, 8, 100.0), core::ConfigError);
}

TEST(Rotary, RefusesATableOfOtherTokens) {
  EXPECT_THROW(rotate(random({1, 1, 5, 8}), raster_rotary({4}, 0, 8, 100.0)), core::Error);
  EXPECT_THROW(rotate(random({1, 1, 4, 6}), raster_rotary({4}, 0, 8, 100.0)), core::Error);
}

}  // namespace
}  // namespace vitrail::ops
