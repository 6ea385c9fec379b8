#include "vitrail/kernels/optimizer.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <gtest/gtest.h>

#include "tests/kernels/arena_data.h"
#include "tests/kernels/ulp.h"

namespace vitrail::kernels {
namespace {

using testing::ArenaData;
using testing::ulp_distance;

const AdamwStep kStep{
    .learning_rate = 1e-2, .weight_decay = 0.1, .ema_decay = 0.99, .update_count = 3};
// Both forms do the same roundings on x86 (worst seen: 0); 2 leaves room for compilers that
// contract a*b+c.
constexpr int64_t kMostUlp = 2;

int64_t worst(const ArenaData& a, const ArenaData& b) {
  int64_t most = 0;
  for (size_t i = 0; i < a.master.size(); ++i) {
    most = std::max({most, ulp_distance(a.master[i], b.master[i]),
                     ulp_distance(a.first[i], b.first[i]), ulp_distance(a.second[i], b.second[i]),
                     ulp_distance(a.ema[i], b.ema[i])});
    most = std::max<int64_t>(most, std::abs(int{a.weights[i]} - int{b.weights[i]}));
  }
  return most;
}

TEST(Adamw, TheVectorisedLoopAgreesWithThePlainLoop) {
  int64_t most = 0;
  for (const int64_t count : {1, 31, 32, 33, 127, 128, 129, 1000, 100'003})
    for (const bool ema : {false, true})
      for (const bool bf16 : {false, true}) {
        ArenaData plain(count), fast(count);
        const float scale = 0.7f;
        adamw_plain(plain.arena(ema, bf16), kStep, &scale);
        adamw_range(fast.arena(ema, bf16), kStep, &scale, 0, count / 3);  // as two threads would
        adamw_range(fast.arena(ema, bf16), kStep, &scale, count / 3, count);
        most = std::max(most, worst(plain, fast));
      }
  std::printf("worst difference %lld ulp (allowed %lld)\n", static_cast<long long>(most),
              static_cast<long long>(kMostUlp));
  EXPECT_LE(most, kMostUlp);
}

TEST(Sgd, TheVectorisedLoopAgreesWithThePlainLoop) {
  int64_t most = 0;
  for (const int64_t count : {1, 31, 33, 128, 385, 10'007})
    for (const bool ema : {false, true}) {
      ArenaData plain(count), fast(count);
      const SgdStep step{
          .learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.05, .ema_decay = 0.9};
      const float scale = 0.7f;
      sgd_plain(plain.arena(ema, true), step, &scale);
      sgd_range(fast.arena(ema, true), step, &scale, 0, count);
      most = std::max(most, worst(plain, fast));
    }
  std::printf("worst difference %lld ulp (allowed %lld)\n", static_cast<long long>(most),
              static_cast<long long>(kMostUlp));
  EXPECT_LE(most, kMostUlp);
}

// Three steps of torch.optim.AdamW (torch 2.11, foreach=False, fp32) on p = [1, -0.5, 0.25], lr
// 0.1, betas (0.9, 0.99), eps 1e-6, weight_decay 0.2 on the first two; gradients step k: [0.5, -1,
// 0.01] * (k + 1). Written by tests/kernels/golden.py. The third lies in a group of its own.
constexpr int64_t kPlaces[] = {0, 1, kFlagGroup};
constexpr float kGolden[][3] = {{1.0f, -0.5f, 0.25f}, {0.5f, -1.0f, 0.01f}};

struct GoldenData {
  static constexpr int64_t kCount = kFlagGroup + 1;
  float p[kCount] = {}, g[kCount] = {}, first[kCount] = {}, second[kCount] = {};
  const uint8_t decay[2] = {1, 0};

  GoldenData() {
    for (int i = 0; i < 3; ++i) p[kPlaces[i]] = kGolden[0][i];
  }
  Arena at_step(int64_t k) {
    for (int i = 0; i < 3; ++i) g[kPlaces[i]] = kGolden[1][i] * static_cast<float>(k + 1);
    return {p, g, decay, first, second, nullptr, nullptr, kCount};
  }
};

TEST(Adamw, EqualsTorchOverThreeSteps) {
  GoldenData data;
  for (int64_t k = 0; k < 3; ++k) {
    const float scale = 1.0f;
    adamw_plain(data.at_step(k),
                {.learning_rate = 0.1,
                 .beta1 = 0.9,
                 .beta2 = 0.99,
                 .eps = 1e-6,
                 .weight_decay = 0.2,
                 .update_count = k + 1},
                &scale);
  }
#include "tests/kernels/golden_adamw.inc"
  for (int i = 0; i < 3; ++i) {
    // torch adds in another order (addcdiv); worst seen 1 ulp.
    EXPECT_LE(ulp_distance(data.p[kPlaces[i]], golden[i]), 2)
        << i << ": " << data.p[kPlaces[i]] << " against " << golden[i];
  }
}

TEST(Sgd, EqualsTorchOverThreeSteps) {
  GoldenData data;
  for (int64_t k = 0; k < 3; ++k) {
    const float scale = 1.0f;
    sgd_plain(data.at_step(k), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.2},
              &scale);
  }
#include "tests/kernels/golden_sgd.inc"
  for (int i = 0; i < 3; ++i)
    EXPECT_LE(ulp_distance(data.p[kPlaces[i]], golden[i]), 2)
        << i << ": " << data.p[kPlaces[i]] << " against " << golden[i];
}

TEST(Adamw, PowersBySquaringAreThoseOfTheLibrary) {
  double worst = 0;
  for (const double base : {0.5, 0.9, 0.95, 0.99, 0.999, 0.9999})
    for (int64_t t = 1; t < 1'000'000; t = t * 5 / 3 + 1) {
      const AdamwFactors found = factors({.beta1 = base, .beta2 = base, .update_count = t});
      const double expected = 1.0 - std::pow(base, static_cast<double>(t));
      worst = std::max({worst, std::abs(found.root_correction / std::sqrt(expected) - 1.0),
                        std::abs(found.step_size / (1e-3 / expected) - 1.0)});
    }
  // One rounding to fp32: half of 2^-23.
  std::printf("worst relative difference %.2g (allowed 6e-8)\n", worst);
  EXPECT_LE(worst, 6e-8);
}

TEST(Adamw, CountsOnlyUpdatesThatAreApplied) {
  Pace pace{.learning_rate = 0.1, .updates = 4};
  const double shares[2] = {1.0, 0.5};
  AdamwFactors found[2];
  const float zero = 0.0f, one = 1.0f;
  begin_adamw_cpu(&pace, kStep, shares, 2, &zero, found);
  EXPECT_EQ(pace.updates, 4);
  begin_adamw_cpu(&pace, kStep, shares, 2, &one, found);
  EXPECT_EQ(pace.updates, 5);
  AdamwStep fifth = kStep;
  fifth.update_count = 5;
  fifth.learning_rate = 0.05;
  EXPECT_EQ(found[1].step_size, factors(fifth).step_size);
  EXPECT_EQ(found[1].keep, factors(fifth).keep);
}

TEST(Adamw, AScaleOfZeroLeavesEverythingAsItIs) {
  ArenaData before(100), after(100);
  before.gradient[3] = after.gradient[3] = std::numeric_limits<float>::quiet_NaN();
  const float scale = 0.0f;
  adamw_plain(after.arena(true, true), kStep, &scale);
  adamw_range(after.arena(true, true), kStep, &scale, 0, 100);
  EXPECT_EQ(worst(before, after), 0);
}

TEST(Adamw, ZerosStayZero) {
  ArenaData data(64);
  std::fill(data.master.begin(), data.master.end(), 0.0f);
  std::fill(data.gradient.begin(), data.gradient.end(), 0.0f);
  std::fill(data.first.begin(), data.first.end(), 0.0f);
  std::fill(data.second.begin(), data.second.end(), 0.0f);
  const float scale = 1.0f;
  adamw_range(data.arena(false, true), kStep, &scale, 0, 64);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(data.master[i], 0.0f);
    EXPECT_EQ(data.weights[i], 0);
  }
}

}  // namespace
}  // namespace vitrail::kernels
