// The fused attention against the formula, with shared heads and key masks, values and gradients.

#include "vitrail/ops/attention.h"

#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

struct Case {
  int64_t tokens, kv_heads;
  bool masked;
  at::ScalarType type;
};

class AttentionCores : public testing::TestWithParam<Case> {};

constexpr int64_t kBatch = 3, kHeads = 6, kHeadWidth = 16;

at::Tensor random(const Case& c, int64_t heads, uint16_t layer) {
  const at::Tensor values = uniform({9, core::Stream::test, 0, layer},
                                    at::arange(kBatch, at::kLong), heads * c.tokens * kHeadWidth) -
                            0.5;
  return (values.view({kBatch, heads, c.tokens, kHeadWidth}) * 4.0)
      .to(c.type)
      .detach()
      .set_requires_grad(true);
}

/// Result and gradients of q, k, v.
template <class Core>
std::vector<at::Tensor> run(const Case& c, Core&& core) {
  at::set_num_threads(1);  // tensors this small gain nothing, and busy machines lose much
  const at::Tensor q = random(c, kHeads, 1), k = random(c, c.kv_heads, 2),
                   v = random(c, c.kv_heads, 3);
  at::Tensor mask;
  if (c.masked)
    mask = at::arange(c.tokens).unsqueeze(0).lt(
        at::tensor({c.tokens, int64_t{1}, c.tokens / 2 + 1}, at::kLong).unsqueeze(1));
  const at::Tensor y = core(q, k, v, mask);
  (y.to(at::kDouble) * random({c.tokens, 0, false, at::kDouble}, kHeads, 4).detach())
      .sum()
      .backward();
  return {y.detach(), q.grad(), k.grad(), v.grad()};
}

TEST_P(AttentionCores, FusedFollowsTheFormula) {
  const Case& c = GetParam();
  const auto fused = run(c, [](auto&&... x) { return sdpa(x...); });
  Case wide = c;
  wide.type = at::kDouble;
  const auto plain = run(wide, [](auto&&... x) { return plain_attention(x...); });
  // fp32: roundings of 6e-8 in scores up to 10, which the softmax passes on as they are; sums over the queries add them
  // up. fp64 in proportion.
  const double bound =
      (c.type == at::kDouble ? 1e-14 : 5e-6) * std::sqrt(static_cast<double>(c.tokens) / 33.0);
  double worst = 0;
  for (size_t i = 0; i < fused.size(); ++i) {
    ASSERT_EQ(fused[i].scalar_type(), c.type);
    worst = std::max(
        worst,
        ((fused[i].to(at::kDouble) - plain[i]).abs().max() / plain[i].abs().max()).item<double>());
  }
  fmt::print("{} tokens, {} kv heads{}: worst {:.1e} of the largest, bound {:.0e}\n", c.tokens,
             c.kv_heads, c.masked ? ", masked" : "", worst, bound);
  EXPECT_LE(worst, bound);
}

TEST_P(AttentionCores, MaskedKeysGetExactlyNoGradient) {
  const Case& c = GetParam();
  if (!c.masked) return;
  for (const bool fused : {true, false}) {
    const auto results =
        run(c, [&](auto&&... x) { return fused ? sdpa(x...) : plain_attention(x...); });
    for (const at::Tensor& gradient : {results[2], results[3]})
      EXPECT_TRUE(gradient[1].slice(1, 1).eq(0.0).all().item<bool>());
    for (const at::Tensor& result : results) EXPECT_TRUE(result.isfinite().all().item<bool>());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionCores,
    testing::Values(Case{31, 6, false, at::kFloat}, Case{33, 6, true, at::kFloat},
                    Case{33, 2, false, at::kFloat}, Case{33, 2, true, at::kFloat},
                    Case{33, 1, true, at::kFloat}, Case{300, 3, true, at::kFloat},
                    Case{33, 3, false, at::kDouble}, Case{300, 6, true, at::kDouble}));

TEST(Attention, SharedHeadsServeNeighbouringQueryHeads) {
  const Case c{5, 2, false, at::kDouble};
  const at::Tensor q = random(c, kHeads, 1), k = random(c, 2, 2), v = random(c, 2, 3);
  const at::Tensor y = sdpa(q, k, v);
  for (int64_t n = 0; n < kHeads; ++n) {
    const int64_t shared = n / 3;
    const at::Tensor alone = plain_attention(q.slice(1, n, n + 1), k.slice(1, shared, shared + 1),
                                             v.slice(1, shared, shared + 1));
    EXPECT_LE((y.slice(1, n, n + 1) - alone).abs().max().item<double>(), 1e-14)
        << "fp64 sums of five terms";
  }
}

}  // namespace
}  // namespace vitrail::ops
