// The plain loops of heads.h against ATen's autograd in fp64.

#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/stack.h>

#include "tests/kernels/heads_cases.h"
#include "tests/kernels/reference.h"

namespace vitrail::testing {
namespace {

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps,
                bool is_rms) {
  if (!is_rms) return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
  return x * (x.square().mean(-1, /*keepdim=*/true) + eps).rsqrt() * weight;
}

/// x [..., N, E], angles' cos and sin [..., 1, E / 2].
at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor pairs = x.unflatten(-1, {-1, 2});
  const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return at::stack({a * cos - b * sin, a * sin + b * cos}, -1).flatten(-2);
}

Floats gained(Floats sums) {
  const Floats start = bell(static_cast<int64_t>(sums.size()), 58);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] -= start[i];
  return sums;
}

void check(const HeadsCase& c) {
  const auto& [B, T, N, K, E] = c.shape;
  const HeadsInputs in(c);
  HostMemory host;
  const at::Tensor qkv = leaf(in.qkv, {B, T, N + 2 * K, E});
  const at::Tensor q_weight = leaf(in.q_weight, {E}), k_weight = leaf(in.k_weight, {E});
  const at::Tensor q_bias = c.is_rms ? at::Tensor() : leaf(in.q_bias, {E}),
                   k_bias = c.is_rms ? at::Tensor() : leaf(in.k_bias, {E});
  const at::Tensor q = norm(qkv.slice(2, 0, N), q_weight, q_bias, 1e-6, c.is_rms),
                   k = norm(qkv.slice(2, N, N + K), k_weight, k_bias, 1e-5, c.is_rms);
  const int64_t tables = c.own_tables ? B : 1;
  const at::Tensor qk = turned(at::cat({q, k}, 2), wide(in.cos, {tables, T, 1, E / 2}),
                               wide(in.sin, {tables, T, 1, E / 2}));
  expect_like(qk, run_forward(plain_heads(), c, in, host), kRounding, kCancelled, "qk");

  const at::Tensor given = wide(in.dqkv, {B, T, N + 2 * K, E});
  (qk * given.slice(2, 0, N + K)).sum().backward();
  const at::Tensor expected = at::cat({qkv.grad().slice(2, 0, N + K), given.slice(2, N + K)}, 2);
  const HeadsGradients backward = run_backward(plain_heads(), c, in, host);
  expect_like(expected, backward.dqkv, kRounding, kCancelled, "dqkv, that of v as it was");
  expect_like(q_weight.grad(), gained(backward.dq_weight), 0, kCancelled, "dq_weight (fp32)");
  expect_like(k_weight.grad(), gained(backward.dk_weight), 0, kCancelled, "dk_weight (fp32)");
  if (c.is_rms) return;
  expect_like(q_bias.grad(), gained(backward.dq_bias), 0, kCancelled, "dq_bias (fp32)");
  expect_like(k_bias.grad(), gained(backward.dk_bias), 0, kCancelled, "dk_bias (fp32)");
}

TEST(PlainHeads, AreLayerNormedAndTurned) {
  check({.shape = {2, 9, 4, 2, 24}, .own_tables = true});
}
TEST(PlainHeads, AreRmsNormedAndTurned) { check({.shape = {2, 9, 3, 3, 16}, .is_rms = true}); }

}  // namespace
}  // namespace vitrail::testing
