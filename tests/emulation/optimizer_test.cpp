// The update kernels against the plain loops.

#include "vitrail/kernels/optimizer.h"

#include <cstdio>

#include <gtest/gtest.h>

#include "../kernels/arena_data.h"

namespace vitrail::kernels {
namespace {

using testing::ArenaData;

void expect_same(const ArenaData& a, const ArenaData& b) {
  // The emulation is built without contraction, so both do the same operations in the same order.
  EXPECT_EQ(a.master, b.master);
  EXPECT_EQ(a.first, b.first);
  EXPECT_EQ(a.second, b.second);
  EXPECT_EQ(a.ema, b.ema);
  EXPECT_EQ(a.weights, b.weights);
}

TEST(EmulatedOptimizer, AdamwAndSgdAreThePlainLoopsBitForBit) {
  AdamwStep adam;
  adam.weight_decay = 0.05;
  adam.ema_decay = 0.99;
  adam.update_count = 3;
  SgdStep descent;
  descent.weight_decay = 1e-4;
  descent.ema_decay = 0.9;
  const float scale = 0.75f;
  for (const int64_t count : {1, 31, 32, 4099})
    for (const bool with_ema : {false, true})
      for (const bool with_bf16 : {false, true}) {
        ArenaData plain(count), emulated(count);
        adamw_plain(plain.arena(with_ema, with_bf16), adam, &scale);
        adamw(emulated.arena(with_ema, with_bf16), adam, &scale, nullptr);
        expect_same(plain, emulated);
        EXPECT_NE(plain.master, ArenaData(count).master);
        sgd_plain(plain.arena(with_ema, with_bf16), descent, &scale);
        sgd(emulated.arena(with_ema, with_bf16), descent, &scale, nullptr);
        expect_same(plain, emulated);
      }
}

TEST(EmulatedOptimizer, AScaleOfZeroLeavesEverything) {
  ArenaData data(1000);
  const float scale = 0;
  adamw(data.arena(true, true), AdamwStep(), &scale, nullptr);
  expect_same(data, ArenaData(1000));
}

/// Every constant, bit for bit.
void expect_equal(const AdamwFactors& a, const AdamwFactors& b) {
  EXPECT_EQ(a.keep, b.keep);
  EXPECT_EQ(a.one_minus_beta1, b.one_minus_beta1);
  EXPECT_EQ(a.beta2, b.beta2);
  EXPECT_EQ(a.one_minus_beta2, b.one_minus_beta2);
  EXPECT_EQ(a.root_correction, b.root_correction);
  EXPECT_EQ(a.step_size, b.step_size);
  EXPECT_EQ(a.eps, b.eps);
  EXPECT_EQ(a.one_minus_ema, b.one_minus_ema);
}

TEST(EmulatedOptimizer, ConstantsOnTheDeviceAreThoseOfTheHost) {
  // More shares than threads, and counts from the first update to where powers vanish.
  std::vector<double> shares(300);
  for (size_t i = 0; i < shares.size(); ++i) shares[i] = 1.0 / static_cast<double>(i + 1);
  AdamwStep rule{.learning_rate = 3e-4, .weight_decay = 0.05, .ema_decay = 0.999};
  for (const int64_t updates : {0, 1, 2, 17, 999, 123'456}) {
    Pace pace{.updates = updates};
    set_pace(&pace, rule.learning_rate, 77, nullptr);
    EXPECT_EQ(pace.step, 77u);
    EXPECT_EQ(pace.updates, updates);
    for (const float scale : {0.5f, 0.0f}) {
      const int64_t before = pace.updates;
      std::vector<AdamwFactors> found(shares.size());
      const AdamwStep any{.weight_decay = 0.05, .ema_decay = 0.999};
      begin_adamw(&pace, any, shares.data(), static_cast<int64_t>(shares.size()), &scale,
                  found.data(), nullptr);
      EXPECT_EQ(pace.updates, before + (scale != 0)) << "an update that is left out is not counted";
      AdamwStep step = rule;
      step.update_count = before + 1;
      for (size_t i = 0; i < shares.size(); ++i) {
        step.learning_rate = rule.learning_rate * shares[i];
        expect_equal(found[i], factors(step));
      }
    }
  }
}

TEST(EmulatedOptimizer, UpdatesReadTheirConstantsFromMemory) {
  AdamwStep adam{.weight_decay = 0.05, .ema_decay = 0.99, .update_count = 3};
  SgdStep descent{.weight_decay = 1e-4, .ema_decay = 0.9};
  const AdamwFactors of_adam = factors(adam);
  const SgdFactors of_descent = factors(descent);
  const float scale = 0.75f;
  ArenaData given(1000), read(1000);
  adamw(given.arena(true, true), adam, &scale, nullptr);
  adamw_by(read.arena(true, true), &of_adam, &scale, nullptr);
  sgd(given.arena(true, true), descent, &scale, nullptr);
  sgd_by(read.arena(true, true), &of_descent, &scale, nullptr);
  expect_same(given, read);
}

}  // namespace
}  // namespace vitrail::kernels
