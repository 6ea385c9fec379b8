// Compact moments: their numbers, their rounding, and an update beside that of AdamW in fp32.

#include "vitrail/kernels/compact_adamw.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/compact_data.h"
#include "vitrail/kernels/compact_element.h"

namespace vitrail::kernels {
namespace {

using testing::CompactData;

constexpr uint64_t kSeed = 7;

TEST(CompactMoments, Fp8CodesAreTheirOwnRounding) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7F) == 0x7F) continue;  // NaN
    const float value = from_fp8(static_cast<uint8_t>(code));
    for (const uint32_t bits : {0u, 0x8000u, 0xFFFFu})
      EXPECT_EQ(int{to_fp8_stochastic(value, bits)}, code) << value;
  }
  EXPECT_EQ(from_fp8(0x7E), 448.0f);
  EXPECT_EQ(from_fp8(0x08), 0.015625f);                     // the least normal one
  EXPECT_EQ(from_fp8(0x01), 0.001953125f);                  // the least of all
  EXPECT_EQ(int{to_fp8_stochastic(447.9f, 0xFFFF)}, 0x7E);  // never NaN
}

/// Mean of all 65,536 roundings of a value, and the largest distance of one of them in units of the step there.
template <class Round>
void expect_unbiased(float value, float step, const Round& round) {
  double mean = 0, most = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double rounded = round(value, bits);
    mean += rounded / 65536;
    most = std::max(most, std::abs(rounded - value) / step);
  }
  // A threshold of 16 bits errs by at most a step of 2^-16, that is within 2e-5.
  EXPECT_NEAR((mean - value) / step, 0, 2e-5) << value;
  EXPECT_LT(most, 1.0) << value;
}

TEST(CompactMoments, RoundingIsRightOnAverage) {
  const auto fp8 = [](float x, uint32_t bits) {
    return double{from_fp8(to_fp8_stochastic(x, bits))};
  };
  const auto bf16 = [](float x, uint32_t bits) {
    return double{from_bf16(to_bf16_stochastic(x, bits))};
  };
  for (const float x : {1.01f, -1.99f, 1.06251f}) expect_unbiased(x, 0.125f, fp8);
  for (const float x : {300.3f, -447.0f}) expect_unbiased(x, 32.0f, fp8);
  for (const float x : {0.0011f, 0.0155f, -0.0001f}) expect_unbiased(x, 0.001953125f, fp8);
  for (const float x : {1.001f, -1.999f}) expect_unbiased(x, 0.0078125f, bf16);
}

TEST(CompactMoments, ABlocksLargestValueFits) {
  for (const float largest : {1e-30f, 3.1e-7f, 447.0f, 448.0f, 448.1f, 1e20f}) {
    const float scaled = largest * power_of_two(-block_exponent(largest));
    EXPECT_LE(scaled, 448.0f);
    EXPECT_GE(scaled, 223.0f) << largest;  // no bit is given away
  }
  EXPECT_EQ(int{block_exponent(0.0f)}, -120);
}

TEST(CompactMoments, SurviveAFileOfFloats) {
  for (const StateType type : {StateType::bf16, StateType::fp8}) {
    CompactData data(4 * kCompactBlock, type);
    const float scale = 1.0f;
    for (int64_t step = 1; step <= 5; ++step)
      compact_adamw_range(data.arena(true, true), {.update_count = step}, kSeed, &scale, 0, 4);
    std::vector<float> first(data.master.size()), second(first), again1(first), again2(first);
    expand_moments(data.arena(true, true), first.data(), second.data());
    compact_moments(data.arena(true, true), first.data(), second.data());
    expand_moments(data.arena(true, true), again1.data(), again2.data());
    EXPECT_EQ(first, again1);
    EXPECT_EQ(second, again2);
    EXPECT_GT(*std::ranges::max_element(second), 0.0f);
  }
}

/// The way to the least of sum (p - target)^2 under noise, with either state.
TEST(CompactAdamw, GoesTheWayOfFloats) {
  constexpr int64_t kCount = 64 * kCompactBlock;
  for (const StateType type : {StateType::bf16, StateType::fp8}) {
    CompactData compact(kCount, type), whole(kCount, type);
    const std::vector<float> target = whole.gradient, start = whole.master;
    std::vector<float> m(kCount), v(kCount);
    std::vector<uint8_t> decay(kCount, 0);
    double apart = 0, along = 0, moved = 0;
    for (int64_t step = 1; step <= 400; ++step) {
      for (int64_t i = 0; i < kCount; ++i) {
        const float noise = core::normal({9, core::Stream::test, static_cast<uint32_t>(step), 0}, 0,
                                         static_cast<uint32_t>(i));
        compact.gradient[i] = compact.master[i] - target[i] + 0.3f * noise;
        whole.gradient[i] = whole.master[i] - target[i] + 0.3f * noise;
      }
      const AdamwStep options{.learning_rate = 3e-3, .update_count = step};
      const float scale = 1.0f;
      compact_adamw_range(compact.arena(false, false), options, kSeed, &scale, 0,
                          kCount / kCompactBlock);
      Arena arena;
      arena.master = whole.master.data(), arena.gradient = whole.gradient.data();
      arena.decay = decay.data(), arena.count = kCount;
      arena.first = m.data(), arena.second = v.data();
      adamw_plain(arena, options, &scale);
    }
    for (int64_t i = 0; i < kCount; ++i) {
      const double difference = compact.master[i] - whole.master[i];
      const double way = whole.master[i] - start[i];
      apart += difference * difference, along += difference * way, moved += way * way;
    }
    // A moment wanders by its rounding, each element on its own: that is noise. What all of them share is a bias: of
    // 8,192 elements with this noise it is known to about a hundredth of the noise. Fp8 has one: the mean of 1 / root lies above
    // 1 / mean by the square of the root's noise of some percent. Rounding to the nearest gives 0.07 and 1.1.
    const bool is_bf16 = type == StateType::bf16;
    const double noise = std::sqrt(apart / moved), bias = std::abs(along / moved);
    const double most_noise = is_bf16 ? 0.02 : 0.15, most_bias = is_bf16 ? 1e-3 : 1.5e-2;
    std::printf("%s: noise %.1e of the way (allowed %.0e), bias %.1e (allowed %.0e)\n",
                is_bf16 ? "bf16" : "fp8", noise, most_noise, bias, most_bias);
    EXPECT_LE(noise, most_noise);
    EXPECT_LE(bias, most_bias);
    EXPECT_GT(noise, 0.0);
  }
}

TEST(CompactAdamw, LeavesEverythingAsItIsForAScaleOfZero) {
  CompactData data(kCompactBlock, StateType::fp8), before(kCompactBlock, StateType::fp8);
  const float zero = 0.0f;
  compact_adamw_range(data.arena(true, true), {}, kSeed, &zero, 0, 1);
  EXPECT_TRUE(data == before);
}

}  // namespace
}  // namespace vitrail::kernels
