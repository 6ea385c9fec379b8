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

TEST(EmulatedNarrowAttention, DoesNotDependOnTheOrderOfThreads) {
  const Case c{.tokens = 150, .width = 16, .heads = 2};
  const Heads x = random_heads(c);
  const Results first = run(c, x, at::kCPU);
  emulation::in_every_order(2, [&] {
    const Results again = run(c, x, at::kCPU);
    for (const auto part : {&Results::out, &Results::lse, &Results::dq, &Results::dk, &Results::dv})
      EXPECT_TRUE(at::equal(first.*part, again.*part));
  });
}

TEST(EmulatedNarrowAttention, EachHeadHasTheFormItNeeds) {
  Case c{.tokens = 100, .width = 16, .heads = 3};
  Heads x = random_heads(c);
  x.q.select(1, 1).mul_(4);    // bounded
  x.q.select(1, 2).mul_(100);  // online
  const Results got = run(c, x, at::kCPU), exact = formula(x, false), bf16 = formula(x, true);
  for (int64_t head = 0; head < 3; ++head)
    for (const auto part : {&Results::out, &Results::dq, &Results::dk, &Results::dv})
      EXPECT_LE(error((got.*part).select(1, head), (exact.*part).select(1, head)),
                kSlack * error((bf16.*part).select(1, head), (exact.*part).select(1, head)) + 1e-4)
          << head;
}

TEST(EmulatedNarrowAttention, ThePolynomialIsGoodOverItsRange) {
  double worst = 0, squares = 0;
  int64_t count = 0;
  // Every argument the bound allows: x - u from -28.1 to 0, in units of 2^-10.
  for (int64_t step = 0; step <= 28 * 1024 + 100; ++step) {
    const double exponent = -static_cast<double>(step) / 1024;
    const float t = narrow::kPolynomial + static_cast<float>(exponent);
    const uint32_t both = narrow::exp2_polynomial(t, narrow::kPolynomial);
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
  EXPECT_EQ(narrow::exp2_polynomial(narrow::kLeastT, narrow::kLeastT), 0u);
}

TEST(EmulatedNarrowAttention, RefusesWhatItCannotDo) {
  EXPECT_EQ(narrow_attention({1, 100, 2, 2, 24, false}, 0), nullptr);
  EXPECT_EQ(narrow_attention({1, 100, 2, 1, 16, false}, 0), nullptr);
  EXPECT_EQ(narrow_attention({1, 100, 2, 2, 16, true}, 0), nullptr);
}

}  // namespace
}  // namespace vitrail::kernels
