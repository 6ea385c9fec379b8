// The plain loops of activation.h against ATen's autograd in fp64.

#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include "tests/kernels/activation_cases.h"
#include "tests/kernels/reference.h"

namespace vitrail::testing {
namespace {

constexpr int64_t kRows = 50, kWidth = 64;

at::Tensor activation(ActivationKind kind, const at::Tensor& pre, const at::Tensor& gate) {
  switch (kind) {
    case ActivationKind::gelu_erf:
      return at::gelu(pre, "none");
    case ActivationKind::gelu_tanh:
      return at::gelu(pre, "tanh");
    case ActivationKind::silu_gate:
      return at::silu(gate) * pre;
  }
  return {};
}

void check(ActivationKind kind) {
  const ActivationCase c{kind, kRows, kWidth, /*again=*/true};
  const ActivationInputs in(c);
  HostMemory host;
  const at::Tensor pre = leaf(in.pre, {kRows, kWidth});
  const at::Tensor gate = in.gate.empty() ? at::Tensor() : leaf(in.gate, {kRows, kWidth});
  const at::Tensor out = activation(kind, pre, gate);
  // Far below zero the value is small against |x|, and fp32 loses of |x|.
  expect_like(out, run_forward(plain_activation(), c, in, host), kRounding, 1e-7, "out");
  (out * wide(in.dout, {kRows, kWidth})).sum().backward();
  const ActivationGradients backward = run_backward(plain_activation(), c, in, host);
  expect_like(out, backward.out, kRounding, 1e-7, "out again");
  expect_like(pre.grad(), backward.dpre, kRounding, 1e-7, "dpre");
  if (gate.defined()) expect_like(gate.grad(), backward.dgate, kRounding, 2e-7, "dgate");
  const at::Tensor sums =
      wide(backward.dpre, {kRows, kWidth}).sum(0) + wide(bell(kWidth, 34), {kWidth});
  expect_like(sums, backward.pre_sums, 0, 1e-7, "sums of dpre as rounded (fp32)");
  if (gate.defined())
    expect_like(wide(backward.dgate, {kRows, kWidth}).sum(0) + wide(bell(kWidth, 34), {kWidth}),
                backward.gate_sums, 0, 1e-7, "sums of dgate as rounded (fp32)");
}

TEST(PlainActivation, IsExactGeluWithItsGradient) { check(ActivationKind::gelu_erf); }
TEST(PlainActivation, IsTanhGeluWithItsGradient) { check(ActivationKind::gelu_tanh); }
TEST(PlainActivation, IsASiluGateWithBothGradients) { check(ActivationKind::silu_gate); }

}  // namespace
}  // namespace vitrail::testing
