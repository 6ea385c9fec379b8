// The narrow attention kernels on a GPU against the formula in fp64 (tests/emulation/narrow_attention_cases.h).

#include "../emulation/narrow_attention_cases.h"

namespace vitrail::kernels {
namespace {

using namespace narrow_test;

const at::Device kGpu(at::kCUDA, 0);

TEST(GpuNarrowAttention, AgreesWithTheFormula) {
  for (const Case& c : small_cases()) expect_right(c, kGpu);
}

TEST(GpuNarrowAttention, OneTokenAttendsToItself) { expect_one_token_right(kGpu); }

TEST(GpuNarrowAttention, LargeLogitsLeaveLseExact) { expect_large_lse_exact(kGpu); }

TEST(GpuNarrowAttention, AHeadWhoseBoundIsFarAboveItsScoresIsDoneAgain) {
  expect_distrusted_head_right(kGpu);
}

TEST(GpuNarrowAttention, EachHeadHasTheFormItNeeds) { expect_each_form_right(kGpu); }

TEST(GpuNarrowAttention, GivesTheSameBitsTwice) {
  const Case c{.tokens = 5000, .width = 32, .heads = 2};
  const Heads x = random_heads(c);
  const Results first = run(c, x, kGpu), again = run(c, x, kGpu);
  for (const auto part : {&Results::out, &Results::lse, &Results::dq, &Results::dk, &Results::dv})
    EXPECT_TRUE(at::equal(first.*part, again.*part));
}

/// Rows `first` to `first + count` of the queries against all keys: the whole matrix would be 8 GiB in fp64. dk and dv
/// are checked with gradients of these queries only.
TEST(GpuNarrowAttention, AgreesWithTheFormulaOver32768Tokens) {
  for (const int64_t width : {16, 32}) {
    const Case c{.tokens = 32768, .width = width};
    const int64_t first = 20000, count = 512;
    Heads x = random_heads(c);
    x.dout.narrow(2, 0, first).zero_();
    x.dout.narrow(2, first + count, c.tokens - first - count).zero_();
    const Results got = run(c, x, kGpu);
    Heads part = x;
    part.q = x.q.narrow(2, first, count);
    part.dout = x.dout.narrow(2, first, count);
    const Results exact = formula(part, false), bf16 = formula(part, true);
    const auto check = [&](const char* name, const at::Tensor& result, at::Tensor Results::*which) {
      const double worst = error(result, exact.*which);
      const double limit = kSlack * error(bf16.*which, exact.*which) + 1e-4;
      std::printf("32768 tokens, width %ld: %s %.2e (%.2e)\n", static_cast<long>(width), name,
                  worst, limit);
      EXPECT_LE(worst, limit) << name;
    };
    check("out", got.out.narrow(2, first, count), &Results::out);
    check("dq", got.dq.narrow(2, first, count), &Results::dq);
    check("dk", got.dk, &Results::dk);
    check("dv", got.dv, &Results::dv);
  }
}

}  // namespace
}  // namespace vitrail::kernels
