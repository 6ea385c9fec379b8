// The plain loops of residual_norm.h against ATen's autograd in fp64.

#include <ATen/ops/layer_norm.h>

#include "tests/kernels/norm_cases.h"
#include "tests/kernels/reference.h"

namespace vitrail::testing {
namespace {

constexpr int64_t kSamples = 3, kTokens = 7, kWidth = 40, kRows = kSamples * kTokens;

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                bool is_rms) {
  if (!is_rms) return at::layer_norm(x, {kWidth}, weight, bias, 1e-6);
  return x * (x.square().mean(-1, /*keepdim=*/true) + 1e-6).rsqrt() * weight;
}

/// Column sums start at bell(width, 20).
Floats gained(Floats sums) {
  const Floats start = bell(static_cast<int64_t>(sums.size()), 20);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] -= start[i];
  return sums;
}

void check(const NormCase& c) {
  NormInputs in(c);
  HostMemory host;
  const NormForward forward = run_forward(plain_norm(), c, in, host);
  const at::Tensor x = wide(in.x, {kRows, kWidth}), weight = leaf(in.weight, {kWidth});
  const at::Tensor bias = c.is_rms ? at::Tensor() : leaf(in.bias, {kWidth});
  const at::Tensor branch = leaf(in.branch, {kRows, kWidth}), gamma = leaf(in.gamma, {kWidth});
  const at::Tensor keep = wide(in.keep, {kSamples, 1}).expand({kSamples, kTokens}).reshape({-1, 1});
  expect_like(x + keep * gamma * branch, forward.sum, kRounding, kCancelled, "sum");

  // The norm is that of the sum as stored; gradients are compared there.
  const at::Tensor sum = leaf(forward.sum, {kRows, kWidth});
  const at::Tensor y = norm(sum, weight, bias, c.is_rms);
  expect_like(y, forward.y, kRounding, kCancelled, "y");
  const at::Tensor past = (sum * wide(in.dsum, {kRows, kWidth})).sum();
  ((y * wide(in.dy, {kRows, kWidth})).sum() + past).backward();
  ((keep * gamma * branch) * sum.grad()).sum().backward();

  in.x = forward.sum;
  in.mean = forward.mean;
  in.rstd = forward.rstd;
  const NormBackward backward = run_backward(plain_norm(), c, in, host);
  expect_like(sum.grad(), backward.dx, kRounding, kCancelled, "dx");
  expect_like(weight.grad(), gained(backward.dweight), 0, 2e-6, "dweight (fp32)");
  if (!c.is_rms) expect_like(bias.grad(), gained(backward.dbias), 0, 2e-6, "dbias (fp32)");
  expect_like(branch.grad(), backward.dbranch, 2 * kRounding, kCancelled, "dbranch");
  // Sums of rounded terms: each may be off by its roundings.
  const at::Tensor terms = keep * branch.detach() * sum.grad();
  const double of_terms = (terms.abs().sum(0).max() / terms.sum(0).abs().max()).item<double>();
  expect_like(gamma.grad(), gained(backward.dgamma), 0, kRounding * of_terms, "dgamma");
  const at::Tensor columns = branch.grad().sum(0);
  const double of_columns = (branch.grad().abs().sum(0).max() / columns.abs().max()).item<double>();
  expect_like(columns, gained(backward.branch_sums), 0, 2 * kRounding * of_columns, "branch sums");
}

TEST(PlainResidualNorm, IsLayerNormOfTheSumWithItsGradients) {
  check({.shape = {kSamples, kTokens, kWidth}, .gamma = true, .keep = true});
}

TEST(PlainResidualNorm, IsRmsNormOfTheSumWithItsGradients) {
  check({.shape = {kSamples, kTokens, kWidth}, .is_rms = true, .gamma = true, .keep = true});
}

TEST(PlainResidualNorm, PassesADroppedBranchNoGradient) {
  const NormCase c{.shape = {3, 2, 8}, .keep = true};  // keeps of samples: 0, 1.11, 1.11
  HostMemory host;
  const NormBackward backward = run_backward(plain_norm(), c, NormInputs(c), host);
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(kernels::from_bf16(backward.dbranch[i]), 0.0f);
  EXPECT_NE(kernels::from_bf16(backward.dbranch[16]), 0.0f);
}

}  // namespace
}  // namespace vitrail::testing
