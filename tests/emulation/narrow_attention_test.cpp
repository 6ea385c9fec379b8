// The narrow attention kernels, emulated, against the formula in fp64.

#include "vitrail/kernels/cuda/narrow_attention.cuh"

#include "emulator.h"
#include "narrow_attention_cases.h"

namespace vitrail::kernels {
namespace {

using namespace narrow_test;

TEST(EmulatedNarrowAttention, AgreesWithTheFormula) {
  for (const Case& c : small_cases()) expect_right(c, at::kCPU);
}

TEST(EmulatedNarrowAttention, OneTokenAttendsToItself) { expect_one_token_right(at::kCPU); }

// 600 tokens are five stages of the keys' pass at width 32: one place in shared memory is filled twice.
TEST(EmulatedNarrowAttention, DoesNotDependOnTheOrderOfThreads) {
  for (const Case& c :
       {Case{.tokens = 150, .width = 16, .heads = 2}, Case{.tokens = 600, .width = 32}}) {
    const Heads x = random_heads(c);
    const Results first = run(c, x, at::kCPU);
    emulation::in_every_order(1, [&] {
      const Results again = run(c, x, at::kCPU);
      for (const auto part :
           {&Results::out, &Results::lse, &Results::dq, &Results::dk, &Results::dv})
        EXPECT_TRUE(at::equal(first.*part, again.*part));
    });
  }
}

TEST(EmulatedNarrowAttention, LargeLogitsLeaveLseExact) { expect_large_lse_exact(at::kCPU); }

TEST(EmulatedNarrowAttention, AHeadWhoseBoundIsFarAboveItsScoresIsDoneAgain) {
  expect_distrusted_head_right(at::kCPU);
}

TEST(EmulatedNarrowAttention, EachHeadHasTheFormItNeeds) { expect_each_form_right(at::kCPU); }

template <bool kFar>
void expect_polynomial_good() {
  double worst = 0, squares = 0;
  int64_t count = 0;
  // x - u from -30 to 0, in units of 2^-10.
  for (int64_t step = 0; step <= 30 * 1024; ++step) {
    const double exponent = -static_cast<double>(step) / 1024;
    const float t = narrow::kPolynomial + static_cast<float>(exponent);
    const uint32_t both = narrow::exp2_polynomial<kFar>(t, narrow::kPolynomial);
    const double expected = std::exp2(exponent + 15);
    if (expected < 0x1p-10) continue;  // f16 has few bits left
    const double off = std::fabs(static_cast<double>(low_f16(both)) / expected - 1);
    worst = std::fmax(worst, off);
    squares += off * off;
    ++count;
    EXPECT_NEAR(static_cast<double>(high_f16(both)), 32768,
                110);  // its neighbour does not disturb it
  }
  std::printf("polynomial: worst %.2e (allowed 3.1e-3), rms %.2e (allowed 1.2e-3)\n", worst,
              std::sqrt(squares / static_cast<double>(count)));
  EXPECT_LE(worst, 3.1e-3);
  EXPECT_LE(std::sqrt(squares / static_cast<double>(count)), 1.2e-3);
  // Far below the bound it is 0 (the near one: down to 62 below), without a step up on the way.
  const double least = kFar ? -5000 : -61.875;
  for (double exponent = -29; exponent >= least; exponent -= 0.125) {
    const auto t = static_cast<float>(8192 + 68 + exponent);
    const uint32_t both = narrow::exp2_polynomial<kFar>(t, t);
    EXPECT_LE(low_f16(both),
              1.1f * std::exp2(std::fmax(static_cast<float>(exponent), -30.0f) + 15));
    if (exponent < -30) {
      EXPECT_EQ(both, 0u) << exponent;
    }
  }
}

TEST(EmulatedNarrowAttention, ThePolynomialIsGoodOverItsRange) {
  expect_polynomial_good<false>();
  expect_polynomial_good<true>();
}

TEST(EmulatedNarrowAttention, RefusesWhatItCannotDo) {
  EXPECT_EQ(narrow_attention({1, 100, 2, 2, 24, false}, 0), nullptr);
  EXPECT_EQ(narrow_attention({1, 100, 2, 1, 16, false}, 0), nullptr);
  EXPECT_EQ(narrow_attention({1, 100, 2, 2, 16, true}, 0), nullptr);
}

}  // namespace
}  // namespace vitrail::kernels
