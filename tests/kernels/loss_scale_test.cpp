#include "vitrail/kernels/loss_scale.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <gtest/gtest.h>

#include "vitrail/core/philox.h"

namespace vitrail::kernels {
namespace {

constexpr double kOverflow = std::numeric_limits<double>::infinity();

struct Scaler {
  LossScaleRules rules;
  LossScaleState state;
  float norm = -1, factor = -1, next = -1;
  LossScaleReport report{};

  void step(double sum, float max_norm = 0) {
    unscale(&sum, max_norm, rules, &state, &norm, &factor, &next, &report);
  }
};

TEST(LossScale, UnscalesAndClipsInOneFactorAsDeepSpeedDoes) {
  double worst = 0;
  for (uint32_t i = 0; i < 10000; ++i) {
    const auto uniform = [&](uint32_t what) {
      return static_cast<double>(core::uniform({3, core::Stream::test, 0, 2}, i, what));
    };
    Scaler scaler;
    scaler.state.scale = std::exp2(std::floor(30 * uniform(0)) - 4);
    const double norm = std::exp2(20 * uniform(1) - 10);
    const float clip = i % 4 == 0 ? 0.0f : static_cast<float>(std::exp2(8 * uniform(2) - 4));
    const double scaled = norm * scaler.state.scale, scale = scaler.state.scale;
    scaler.step(scaled * scaled, clip);
    // combined = scale; clip = ((norm / scale) + 1e-6) / clip_grad; if clip > 1: combined = clip scale; g *= 1 / combined
    double combined = scale;
    if (clip > 0) {
      const double c = (scaled / scale + 1e-6) / static_cast<double>(clip);
      if (c > 1) combined = c * scale;
    }
    worst = std::fmax(worst, std::fabs(static_cast<double>(scaler.factor) * combined - 1));
    EXPECT_NEAR(static_cast<double>(scaler.norm) / norm, 1.0, 1e-7);  // one rounding to fp32
    EXPECT_EQ(scaler.report.scale, static_cast<float>(scale));
  }
  // The norm and the factor are rounded to fp32 once each: 2^-24 each.
  std::printf("worst relative error of the factor %.2g (allowed 1.2e-7)\n", worst);
  EXPECT_LE(worst, 1.2e-7);
}

TEST(LossScale, AnOverflowLeavesTheUpdateOutAndHalvesWhenPatienceIsSpent) {
  Scaler scaler{.rules = {.window = 1000, .hysteresis = 2}, .state = {.scale = 65536}};
  scaler.step(kOverflow);
  EXPECT_EQ(scaler.factor, 0.0f);
  EXPECT_EQ(scaler.state.scale, 65536);  // the first one is let pass
  EXPECT_EQ(scaler.state.hysteresis, 1);
  scaler.step(NAN);
  EXPECT_EQ(scaler.state.scale, 32768);
  EXPECT_EQ(scaler.next, 32768.0f);
  EXPECT_EQ(scaler.report.scale, 65536.0f);  // that of the step itself
  scaler.step(4.0);
  EXPECT_GT(scaler.factor, 0.0f);
  EXPECT_EQ(scaler.state.last_overflow, 1);
  EXPECT_EQ(scaler.state.iteration, 3);
}

TEST(LossScale, DoublesAfterAWindowWithoutOverflow) {
  Scaler scaler{.rules = {.window = 1000, .hysteresis = 2}, .state = {.scale = 65536}};
  scaler.step(kOverflow);  // step 0
  for (int step = 1; step < 1000; ++step) scaler.step(1.0);
  EXPECT_EQ(scaler.state.scale, 65536);
  scaler.step(1.0);  // step 1000: a window after step 0
  EXPECT_EQ(scaler.state.scale, 131072);
  EXPECT_EQ(scaler.state.hysteresis, 2);  // and patience is given back
}

TEST(LossScale, AnOverflowAtTheMinimumFailsForGood) {
  Scaler scaler{.rules = {.window = 4, .hysteresis = 1, .minimum = 2}, .state = {.scale = 8}};
  for (const double expected : {4.0, 2.0}) {
    scaler.step(kOverflow);
    EXPECT_EQ(scaler.state.scale, expected);
    EXPECT_EQ(scaler.report.failed, 0.0f);
  }
  const LossScaleState before = scaler.state;
  scaler.step(kOverflow);
  EXPECT_EQ(scaler.report.failed, 1.0f);
  EXPECT_EQ(scaler.state.scale, before.scale);
  scaler.step(1.0);  // the host has not read it yet
  EXPECT_EQ(scaler.factor, 0.0f);
  EXPECT_EQ(scaler.state.iteration, before.iteration);
}

TEST(LossScale, AFixedFactorNeverChangesAndNeverFails) {
  Scaler scaler{.rules = {.window = 1, .hysteresis = 1, .minimum = 128, .is_fixed = true},
                .state = {.scale = 128}};
  for (int step = 0; step < 10; ++step) {
    scaler.step(step % 2 ? 4.0 : kOverflow);
    EXPECT_EQ(scaler.factor, step % 2 ? 1.0f / 128 : 0.0f);
    EXPECT_EQ(scaler.state.scale, 128);
    EXPECT_EQ(scaler.state.failed, 0);
  }
}

}  // namespace
}  // namespace vitrail::kernels
