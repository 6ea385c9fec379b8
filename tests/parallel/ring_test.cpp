#include "vitrail/parallel/ring.h"

#include <cstdio>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/parallel/divided_attention.h"
#include "vitrail/core/error.h"
#include "vitrail/ops/attention_kept.h"
#include "vitrail/parallel/ring_block.h"
#include "vitrail/parallel/timeline.h"

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

/// Shifts that this thread has started.
int64_t shifts(const Timeline& timeline) {
  int64_t count = 0;
  for (const TimedRange& range : timeline.ranges()) count += range.name == "ring";
  return count;
}

TEST(Ring, ASecondPassTakesTheKeptResultAndSendsNothing) {
  for (const double drop : {0.0, 0.3})
    for (const int64_t tokens : {4, 7, 12}) {  // of 4 the last rank has none
      const testing::WholeAttention whole({.tokens = tokens, .drop = drop});
      comm::run_thread_group(3, [&](comm::Communicator& group) {
        at::set_num_threads(1);
        const int64_t run = run_length(tokens, 3);
        const auto own = [&](const at::Tensor& x) {
          return padded_narrow(x, 2, group.rank() * run, run).contiguous();
        };
        using testing::WholeAttention;
        Timeline timeline(at::kCPU);
        const Recording recording(timeline);
        const auto pass = [&](std::vector<at::Tensor>& leaves) {
          leaves = {WholeAttention::leaf(own(whole.q)), WholeAttention::leaf(own(whole.k)),
                    WholeAttention::leaf(own(whole.v))};
          return ring_attention(leaves[0], leaves[1], leaves[2], whole.how, group);
        };
        std::vector<at::Tensor> plain, again;
        const at::Tensor expected = pass(plain);
        expected.backward(own(whole.dy));
        EXPECT_EQ(shifts(timeline), 2 + 2 + 3);

        std::vector<ops::KeptCore> cores;
        {
          const at::NoGradGuard no_grad;
          const ops::KeepCores keep(cores);
          pass(again);
        }
        ASSERT_EQ(cores.size(), 1);
        EXPECT_TRUE(cores[0].is_kept());
        EXPECT_EQ(shifts(timeline), 7 + 2);
        at::Tensor y;
        {
          const ops::TakeCores take(cores);
          y = pass(again);
        }
        EXPECT_EQ(shifts(timeline), 7 + 2);
        y.backward(own(whole.dy));
        EXPECT_EQ(shifts(timeline), 7 + 2 + 5);
        EXPECT_TRUE(y.equal(expected));
        for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(again[i].grad().equal(plain[i].grad())) << i;
      });
    }
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
