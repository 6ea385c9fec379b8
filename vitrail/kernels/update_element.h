#pragma once
/// One element of an AdamW or SGD update, shared by the vectorised CPU loop and the CUDA kernel.
///
/// Products and sums are rounded one by one (no fused multiply-add) so that CPU and GPU give the
/// same bits; both loops are bound by memory, so it costs nothing.

#include <cmath>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/optimizer.h"

namespace vitrail::kernels {

#if defined(__CUDA_ARCH__)
__device__ inline float times(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float root(float a) { return __fsqrt_rn(a); }
__device__ inline float over(float a, float b) { return __fdiv_rn(a, b); }
#else
VT_HOST_DEVICE inline float times(float a, float b) { return a * b; }
VT_HOST_DEVICE inline float plus(float a, float b) { return a + b; }
VT_HOST_DEVICE inline float root(float a) { return sqrtf(a); }
VT_HOST_DEVICE inline float over(float a, float b) { return a / b; }
#endif

struct SgdFactors {
  float learning_rate, momentum, weight_decay, one_minus_ema;
};
SgdFactors factors(const SgdStep& step);

/// The values of one element; unused ones are optimised away.
struct Element {
  float p, g, m, v, ema;
  bool decay;
};

VT_HOST_DEVICE inline void update(Element& e, const AdamwFactors& f, float scale) {
  const float g = times(e.g, scale);
  const float p = times(e.p, e.decay ? f.keep : 1.0f);
  e.m = plus(e.m, times(f.one_minus_beta1, plus(g, -e.m)));
  e.v = plus(times(f.beta2, e.v), times(times(f.one_minus_beta2, g), g));
  const float denominator = plus(over(root(e.v), f.root_correction), f.eps);
  e.p = plus(p, -over(times(f.step_size, e.m), denominator));
  e.ema = plus(e.ema, times(f.one_minus_ema, plus(e.p, -e.ema)));
}

VT_HOST_DEVICE inline void update(Element& e, const SgdFactors& f, float scale) {
  const float decayed = times(e.decay ? f.weight_decay : 0.0f, e.p);
  e.m = plus(times(f.momentum, e.m), plus(times(e.g, scale), decayed));
  e.p = plus(e.p, -times(f.learning_rate, e.m));
  e.ema = plus(e.ema, times(f.one_minus_ema, plus(e.p, -e.ema)));
}

}  // namespace vitrail::kernels
