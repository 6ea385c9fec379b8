// The kernels over flat arenas against their CPU forms.

#include "vitrail/kernels/flat.h"

#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "emulator.h"
#include "vitrail/core/philox.h"
#include "vitrail/kernels/bf16.h"

namespace vitrail::kernels {
namespace {

constexpr int64_t kCounts[] = {3, 1023, 70001};

// 16-byte aligned as device memory is: std::vector's allocation is.
std::vector<float> random(int64_t count, uint16_t layer) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    values[i] =
        4.0f * core::uniform({8, core::Stream::test, 0, layer}, 0, static_cast<uint32_t>(i)) - 2.0f;
  return values;
}

TEST(EmulatedFlat, SumOfSquaresIsThatOfFp64) {
  double worst = 0;
  for (const int64_t count : kCounts) {
    const std::vector<float> x = random(count, 0);
    std::vector<uint8_t> counted(x.size() / kFlagGroup + 1);
    for (size_t i = 0; i < counted.size(); ++i) counted[i] = i % 3 != 1;
    for (const uint8_t* mask :
         {static_cast<const uint8_t*>(nullptr), std::as_const(counted).data()}) {
      double expected = 0, sum = NAN;
      for (size_t i = 0; i < x.size(); ++i)
        if (!mask || mask[i / kFlagGroup]) expected += static_cast<double>(x[i]) * x[i];
      std::vector<double> partials(kSumPartials, NAN);
      sum_squares(x.data(), count, partials.data(), &sum, nullptr, mask);
      worst = std::fmax(worst, std::fabs(sum - expected) / std::fmax(expected, 1e-30));
    }
  }
  // One thread adds few squares in fp32, half a unit of 2^-24 each.
  std::printf("worst relative error of a sum of squares %.2g (allowed 1e-7)\n", worst);
  EXPECT_LE(worst, 1e-7);
}

TEST(EmulatedFlat, TheSumDoesNotDependOnTheOrderOfThreads) {
  const std::vector<float> x = random(70001, 0);
  std::vector<double> sums;
  emulation::in_every_order(1, [&] {
    std::vector<double> partials(kSumPartials);
    sum_squares(x.data(), 70001, partials.data(), &sums.emplace_back(), nullptr, nullptr);
  });
  for (const double sum : sums) EXPECT_EQ(sum, sums[0]);
}

TEST(EmulatedFlat, ClippingAndCastsAreThoseOfTheCpu) {
  for (const double sum : {4.0, 1e-9, HUGE_VAL})
    for (const float most : {0.0f, 1.0f}) {
      float norm[2], scale[2];
      clip_scale_cpu(&sum, most, &norm[0], &scale[0]);
      clip_scale(&sum, most, &norm[1], &scale[1], nullptr);
      EXPECT_EQ(norm[0], norm[1]);
      EXPECT_EQ(scale[0], scale[1]);
    }
  for (const int64_t count : kCounts) {
    const std::vector<float> x = random(count, 1);
    std::vector<uint16_t> narrow[2] = {std::vector<uint16_t>(x.size(), 0xFFFF),
                                       std::vector<uint16_t>(x.size(), 0xFFFF)};
    cast_bf16_cpu(narrow[0].data(), x.data(), 0, count);
    cast_bf16(narrow[1].data(), x.data(), count, nullptr);
    EXPECT_EQ(narrow[0], narrow[1]);
    std::vector<float> wide[2] = {x, x};
    expand_bf16_cpu(wide[0].data(), narrow[0].data(), 0, count);
    expand_bf16(wide[1].data(), narrow[1].data(), count, nullptr);
    EXPECT_EQ(wide[0], wide[1]);
    add_f32_cpu(wide[0].data(), x.data(), 0, count);
    add_f32(wide[1].data(), x.data(), count, nullptr);
    EXPECT_EQ(wide[0], wide[1]);
    add_bf16_cpu(wide[0].data(), narrow[0].data(), 0, count);
    add_bf16(wide[1].data(), narrow[1].data(), count, nullptr);
    EXPECT_EQ(wide[0], wide[1]);
  }
}

}  // namespace
}  // namespace vitrail::kernels
