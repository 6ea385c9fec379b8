// Rotary positions on the GPU against the formula on the CPU.

#include "vitrail/ops/rotary.h"

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

const at::Device kGpu(at::kCUDA, 0);

at::Tensor random(at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return uniform({9, core::Stream::test, 0, 0}, at::arange(1, at::kLong), count).view(shape) - 0.5;
}

struct Turned {
  at::Tensor out, gradient;
};

/// The middle third of a packed projection [B, T, 3 N E], turned, and the gradient of a weighted sum.
Turned turned(const at::Tensor& packed, int64_t heads, const Rotary& rotary, at::Device device,
              at::ScalarType type) {
  const at::Tensor leaf = packed.to(device, type).detach().clone().set_requires_grad(true);
  const at::Tensor x = leaf.unflatten(-1, {3, heads, -1}).select(2, 1).transpose(1, 2);
  const at::Tensor out = rotate(x, {rotary.cos.to(device), rotary.sin.to(device)});
  const at::Tensor weights = random(out.sizes()).to(device, type);
  (out * weights).sum().backward();
  return {out.detach().to(at::kCPU, at::kFloat), leaf.grad().to(at::kCPU, at::kFloat)};
}

double largest(const at::Tensor& difference) { return difference.abs().max().item<double>(); }

TEST(GpuRotary, TurnsAndTurnsBackAsTheFormulaDoes) {
  struct Case {
    int64_t batch, tokens, heads, width;
  };
  for (const Case& c :
       {Case{3, 65, 12, 32}, Case{2, 7, 3, 6}, Case{1, 1, 1, 2}, Case{2, 33, 2, 20}})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Rotary rotary = raster_rotary({c.tokens - 1}, 1, c.width, 100.0);
      const at::Tensor packed =
          random({c.batch, c.tokens, 3 * c.heads * c.width}).to(type).to(at::kFloat);
      const Turned cpu = turned(packed, c.heads, rotary, at::kCPU, type);
      const Turned gpu = turned(packed, c.heads, rotary, kGpu, type);
      const double out = largest(cpu.out - gpu.out), grad = largest(cpu.gradient - gpu.gradient);
      // fp32: fused multiply-add, one rounding of values below 1. bf16: one unit in the last place.
      const double allowed = type == at::kFloat ? 2e-7 : 4e-3;
      std::printf("%ld heads of %ld, %s: output %.1g, gradient %.1g (allowed %.1g)\n",
                  static_cast<long>(c.heads), static_cast<long>(c.width), toString(type), out, grad,
                  allowed);
      EXPECT_LE(out, allowed);
      EXPECT_LE(grad, allowed);
      EXPECT_GT(largest(cpu.gradient), 0.1);
    }
}

TEST(GpuRotary, EverySampleHasItsOwnTable) {
  const Rotary all = axial_rotary({4, 4}, 1, 16, 100.0);
  const at::Tensor ids = at::arange(16, at::kLong).view({2, 8});
  const Rotary rotary = gather(all, ids, 1);
  const at::Tensor packed = random({2, 9, 3 * 2 * 16});
  const Turned cpu = turned(packed, 2, rotary, at::kCPU, at::kFloat);
  const Turned gpu = turned(packed, 2, rotary, kGpu, at::kFloat);
  EXPECT_LE(largest(cpu.out - gpu.out), 2e-7);
  EXPECT_LE(largest(cpu.gradient - gpu.gradient), 2e-7);
}

}  // namespace
}  // namespace vitrail::ops
