#include "vitrail/parallel/ulysses.h"

#include <cstdio>

#include <gtest/gtest.h>

#include "tests/parallel/divided_attention.h"
#include "vitrail/core/error.h"

namespace vitrail::parallel {
namespace {

using testing::AttentionCase;

// The same sums in the same order but for the gradients of repeated heads.
constexpr double kAllowed64 = 1e-12, kAllowed32 = 2e-6;

/// The exchange around the formula.
at::Tensor exchanged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const nn::Attending& how, comm::Communicator& group) {
  const Heads heads = gather_tokens(q, k, v, group);
  const auto cut = [&](const at::Tensor& x) { return x.narrow(2, 0, how.tokens); };
  const at::Tensor y =
      ops::plain_attention(cut(heads.q), cut(heads.k), cut(heads.v), how.key_mask_BL);
  return gather_heads(padded_narrow(y, 2, 0, heads.q.size(2)), group);
}

double worst_over_cases(at::ScalarType type, const std::vector<int64_t>& lengths) {
  double worst = 0;
  for (const int ranks : {2, 3, 4, 8})
    for (const int64_t tokens : lengths)
      for (const bool masked : {false, true})
        for (const int64_t shared : {1, 2, 4, 24}) {  // query heads that share keys
          const AttentionCase c{.ranks = ranks,
                                .tokens = tokens,
                                .heads = 24,
                                .kv_heads = 24 / shared,
                                .masked = masked,
                                .type = type};
          for (const double difference : testing::largest_differences(c, exchanged_attention))
            worst = std::max(worst, difference);
        }
  return worst;
}

TEST(Ulysses, IsTheFormulaInFp64AtEveryLength) {
  const double worst = worst_over_cases(at::kDouble, {1, 2, 3, 5, 7, 8, 16, 31, 97});
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed64);
  EXPECT_LE(worst, kAllowed64);
}

TEST(Ulysses, IsTheFormulaInFp32) {
  const double worst = worst_over_cases(at::kFloat, {1, 5, 97});
  std::printf("worst difference %.2g (allowed %.0e)\n", worst, kAllowed32);
  EXPECT_LE(worst, kAllowed32);
}

TEST(Ulysses, TheWayBackUndoesTheWayThere) {
  const testing::WholeAttention whole({.tokens = 12, .kv_heads = 2});
  comm::run_thread_group(4, [&](comm::Communicator& group) {
    const auto own = [&](const at::Tensor& x) { return x.narrow(2, group.rank() * 3, 3); };
    const Heads heads = gather_tokens(own(whole.q), own(whole.k), own(whole.v), group);
    EXPECT_TRUE(heads.q.equal(whole.q.narrow(1, group.rank(), 1)));
    EXPECT_TRUE(heads.k.equal(whole.k.narrow(1, group.rank() / 2, 1)));
    EXPECT_TRUE(gather_heads(heads.q, group).equal(own(whole.q)));
  });
}

TEST(Ulysses, RefusesHeadsThatDoNotDivide) {
  const testing::WholeAttention whole({.tokens = 12});
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    EXPECT_THROW(gather_tokens(whole.q, whole.k, whole.v, group), core::Error);
  });
}

}  // namespace
}  // namespace vitrail::parallel
