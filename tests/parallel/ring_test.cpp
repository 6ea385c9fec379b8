#include "vitrail/parallel/ring.h"

#include <cstdio>

#include <gtest/gtest.h>

#include "tests/parallel/divided_attention.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/ring_block.h"

namespace vitrail::parallel {
namespace {

using testing::AttentionCase;

// Values lie in [-2, 2]; sums of at most 97 terms in another order. Worst seen 2e-15 and 1.7e-6.
constexpr double kAllowed64 = 1e-12, kAllowed32 = 5e-6;

double worst_of(const AttentionCase& c) {
  const std::vector<double> differences = testing::largest_differences(
      c, [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const nn::Attending& how,
            comm::Communicator& group) { return ring_attention(q, k, v, how, group); });
  return *std::max_element(differences.begin(), differences.end());
}

/// The worst over lengths, heads of keys and masks.
double worst_over_cases(at::ScalarType type, double drop, const std::vector<int64_t>& lengths) {
  double worst = 0;
  for (const int ranks : {2, 3, 4, 8})
    for (const int64_t tokens : lengths)
      for (const bool masked : {false, true})
        for (const int64_t kv_heads : {4, 2, 1})
          worst = std::max(worst, worst_of({.ranks = ranks,
                                            .tokens = tokens,
                                            .kv_heads = kv_heads,
                                            .masked = masked,
                                            .drop = drop,
                                            .type = type}));
  return worst;
}

TEST(Ring, IsTheFormulaInFp64AtEveryLength) {
  const double worst =
      worst_over_cases(at::kDouble, 0.0, {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 64, 97});
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed64);
  EXPECT_LE(worst, kAllowed64);
}

TEST(Ring, IsTheFormulaInFp32) {
  const double worst = worst_over_cases(at::kFloat, 0.0, {1, 5, 16, 97});
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed32);
  EXPECT_LE(worst, kAllowed32);
}

TEST(Ring, DropsTheProbabilitiesThatOneRankDrops) {
  const double worst = worst_over_cases(at::kDouble, 0.3, {1, 5, 16, 33});
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed64);
  EXPECT_LE(worst, kAllowed64);
}

TEST(Ring, LargeScoresDoNotOverflow) {
  testing::WholeAttention whole({.tokens = 12});
  const at::Tensor q = whole.q * 200;  // scores of several hundred: e^score is infinite
  const at::Tensor expected = ops::plain_attention(q, whole.k, whole.v);
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    at::set_num_threads(1);
    const auto own = [&](const at::Tensor& x) { return x.narrow(2, group.rank() * 4, 4); };
    const at::Tensor y = ring_attention(own(q), own(whole.k), own(whole.v), whole.how, group);
    const double difference = (y - own(expected)).abs().max().item().toDouble();
    EXPECT_LE(difference, kAllowed64);  // false for NaN too
  });
}

TEST(Ring, RefusesRunsThatDoNotHoldAllTokens) {
  testing::WholeAttention whole({.tokens = 12});
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    const auto own = [&](const at::Tensor& x) { return x.narrow(2, group.rank() * 4, 4); };
    EXPECT_THROW(ring_attention(own(whole.q), own(whole.k), own(whole.v), whole.how, group),
                 core::Error);
  });
}

TEST(RingBlock, MergedBlocksAreOneInAnyOrder) {
  const testing::WholeAttention whole({.tokens = 20, .kv_heads = 2, .masked = true});
  const at::Tensor expected =
      ops::plain_attention(whole.q, whole.k, whole.v, whole.how.key_mask_BL);
  for (const std::vector<int64_t>& order : {std::vector<int64_t>{0, 1, 2, 3}, {3, 1, 0, 2}}) {
    Attended sum;
    for (const int64_t block : order)  // the last has no real token in the first sample
      merge(sum,
            attend_block(whole.q, {.k = whole.k.narrow(2, 5 * block, 5),
                                   .v = whole.v.narrow(2, 5 * block, 5),
                                   .key_mask_BM = whole.how.key_mask_BL.narrow(1, 5 * block, 5)}));
    EXPECT_LE((sum.out - expected).abs().max().item().toDouble(), kAllowed64);
  }
}

}  // namespace
}  // namespace vitrail::parallel
