#include "vitrail/kernels/flat.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "vitrail/kernels/bf16.h"

namespace vitrail::kernels {
namespace {

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(to_bf16(1.0f), 0x3F80);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f), 0x3F80);            // a tie goes to the even neighbour below
  EXPECT_EQ(to_bf16(1.0f + 0x1p-7f + 0x1p-8f), 0x3F82);  // and here above
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81);
  EXPECT_EQ(to_bf16(-0.0f), 0x8000);
  EXPECT_TRUE(std::isnan(from_bf16(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(from_bf16(to_bf16(std::numeric_limits<float>::infinity())),
            std::numeric_limits<float>::infinity());
}

TEST(SumSquares, IsExactToDoubleRounding) {
  for (const int64_t count : {0, 1, 7, 8, 9, 1000, 32768}) {
    std::vector<float> x(count);
    double expected = 0;
    for (int64_t i = 0; i < count; ++i) {
      x[i] = std::sin(static_cast<float>(i));
      expected += static_cast<double>(x[i]) * x[i];
    }
    // Order of additions differs; n eps = 32768 * 1.1e-16 at most.
    EXPECT_NEAR(sum_squares_cpu(x.data(), count), expected, 4e-12 * (expected + 1));
  }
}

TEST(ClipScale, FollowsTorchAndMarksNonFinite) {
  float norm = 0, scale = 0;
  double sum = 9.0;
  clip_scale_cpu(&sum, 1.0f, &norm, &scale);
  EXPECT_EQ(norm, 3.0f);
  EXPECT_FLOAT_EQ(scale, 1.0f / 3.000001f);
  clip_scale_cpu(&sum, 5.0f, &norm, &scale);
  EXPECT_EQ(scale, 1.0f);
  clip_scale_cpu(&sum, 0.0f, &norm, &scale);
  EXPECT_EQ(scale, 1.0f);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    clip_scale_cpu(&bad, 1.0f, &norm, &scale);
    EXPECT_EQ(scale, 0.0f);
    clip_scale_cpu(&bad, 0.0f, &norm, &scale);
    EXPECT_EQ(scale, 0.0f);
  }
}

TEST(SumSquares, CountsWhatItsGroupsFlagSays) {
  for (const int64_t count : {1, 127, 128, 129, 300, 1000}) {
    std::vector<float> x(count);
    const std::vector<uint8_t> flags{1, 0, 1, 1, 0, 0, 1, 0};
    double expected = 0;
    for (int64_t i = 0; i < count; ++i) {
      x[i] = std::sin(static_cast<float>(i) + 1.0f);
      if (flags[i / kFlagGroup]) expected += static_cast<double>(x[i]) * x[i];
    }
    // Order of additions differs, as above.
    EXPECT_NEAR(sum_squares_cpu(x.data(), count, flags.data()), expected, 4e-12 * (expected + 1));
  }
}

TEST(SumSquares, WhatDoesNotCountMayStillSayNaN) {
  std::vector<float> x(256, 1.0f);
  x[200] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<uint8_t> flags{1, 0};
  EXPECT_TRUE(std::isnan(sum_squares_cpu(x.data(), 256, flags.data())));
}

TEST(AddBf16, AddsItsRange) {
  std::vector<float> sum(37, 0.5f);
  const std::vector<uint16_t> part(37, to_bf16(0.25f));
  add_bf16_cpu(sum.data(), part.data(), 1, 36);
  EXPECT_EQ(sum[0], 0.5f);
  EXPECT_EQ(sum[36], 0.5f);
  for (int i = 1; i < 36; ++i) EXPECT_EQ(sum[i], 0.75f);
}

TEST(CastBf16, WritesItsRange) {
  std::vector<float> in(19, 1.5f);
  std::vector<uint16_t> out(19, 7);
  cast_bf16_cpu(out.data(), in.data(), 2, 19);
  EXPECT_EQ(out[1], 7);
  EXPECT_EQ(out[2], to_bf16(1.5f));
  EXPECT_EQ(out[18], to_bf16(1.5f));
}

}  // namespace
}  // namespace vitrail::kernels
