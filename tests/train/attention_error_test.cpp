// What the benchmark and the GPU tests of attention measure errors with.

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "vitrail/train/attention_contenders.h"

namespace vitrail::train {
namespace {

/// Results as a kernel without any rounding would give them, of every sample.
AttentionResult exact_result(const AttentionValues& values) {
  const kernels::AttentionShape& s = values.shape;
  const auto options = at::TensorOptions(at::kDouble);
  AttentionResult result;
  result.out = at::zeros({s.samples, s.tokens, s.heads, s.head_width}, options);
  result.dq = at::zeros_like(result.out);
  result.lse = at::zeros({s.samples, s.heads, s.tokens}, options);
  result.dk = at::zeros({s.samples, s.tokens, s.kv_heads, s.head_width}, options);
  result.dv = at::zeros_like(result.dk);
  const int64_t group = s.heads / s.kv_heads;
  for (int64_t sample = 0; sample < s.samples; ++sample)
    for (int64_t head = 0; head < s.kv_heads; ++head) {
      const AttentionTruth truth = attention_truth(values, sample, head, true);
      result.out[sample].narrow(1, head * group, group).copy_(truth.out);
      result.dq[sample].narrow(1, head * group, group).copy_(truth.dq);
      result.lse[sample].narrow(0, head * group, group).copy_(truth.lse);
      result.dk[sample].select(1, head).copy_(truth.dk);
      result.dv[sample].select(1, head).copy_(truth.dv);
    }
  return result;
}

// The first of three samples has one key: P = 1 and dP = D, so dq and dk are 0, and a kernel's are what rounding leaves.
TEST(AttentionError, OfGradientsThatCancelToNothingIsMeasuredAgainstWhatCancels) {
  const AttentionValues values({3, 50, 4, 2, 64, true}, at::kCPU, 1);
  ASSERT_EQ(values.lengths[0].item<int64_t>(), 1);
  AttentionResult result = exact_result(values);
  const double exact = attention_error(values, result, 0, 0, true).dq;
  // fp32 sums of 64 products of about 1.
  result.dq = result.dq + 1e-7;
  result.dk.narrow(1, 0, 1).add_(1e-6);
  const AttentionError rounded = attention_error(values, result, 0, 0, true);
  // As a kernel that forgets D.
  result.dq = at::full_like(result.dq, 0.1);
  const AttentionError wrong = attention_error(values, result, 0, 0, true);
  std::printf("one key: exact %.1e, rounded dq %.1e dk %.1e, wrong dq %.1e\n", exact, rounded.dq,
              rounded.dk, wrong.dq);
  EXPECT_LE(exact, 1e-12);
  EXPECT_LE(rounded.dq, 1e-3);
  EXPECT_LE(rounded.dk, 1e-3);
  EXPECT_GE(wrong.dq, 1);
}

TEST(AttentionError, OfOtherSamplesIsRelativeToTheGradients) {
  const AttentionValues values({3, 50, 4, 2, 64, true}, at::kCPU, 1);
  AttentionResult result = exact_result(values);
  result.dq = result.dq * 1.01;
  result.dk = result.dk * 1.02;
  const AttentionError error = attention_error(values, result, 2, 1, true);
  EXPECT_NEAR(error.dq, 0.01, 1e-10);
  EXPECT_NEAR(error.dk, 0.02, 1e-10);
  EXPECT_LE(error.out, 1e-12);
  EXPECT_LE(error.dv, 1e-12);
}

TEST(AttentionError, OfAGradientPastTheLengthIsInfinite) {
  const AttentionValues values({3, 50, 4, 2, 64, true}, at::kCPU, 1);
  AttentionResult result = exact_result(values);
  result.dk[0][49][0][0] = 1e-20;
  EXPECT_GT(attention_error(values, result, 0, 0, true).dk, 1e300);
}

}  // namespace
}  // namespace vitrail::train
