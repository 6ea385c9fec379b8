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

}  // namespace
}  // namespace vitrail::kernels
