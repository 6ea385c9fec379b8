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
__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double plus(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double root(double a) { return __dsqrt_rn(a); }
__device__ inline double over(double a, double b) { return __ddiv_rn(a, b); }
#else
VT_HOST_DEVICE inline float times(float a, float b) { return a * b; }
VT_HOST_DEVICE inline float plus(float a, float b) { return a + b; }
VT_HOST_DEVICE inline float root(float a) { return sqrtf(a); }
VT_HOST_DEVICE inline float over(float a, float b) { return a / b; }
VT_HOST_DEVICE inline double times(double a, double b) { return a * b; }
VT_HOST_DEVICE inline double plus(double a, double b) { return a + b; }
VT_HOST_DEVICE inline double root(double a) { return sqrt(a); }
VT_HOST_DEVICE inline double over(double a, double b) { return a / b; }
#endif

/// base^exponent by repeated squaring. Against the exact power it errs by less than exponent * 2^-53 of itself, for a decay
/// below 1 always by less than 2^-53 / (1 - base) in all: far less than fp32 keeps of 1 - power.
VT_HOST_DEVICE inline double power(double base, int64_t exponent) {
  double result = 1.0;
  for (auto rest = static_cast<uint64_t>(exponent); rest > 0; rest /= 2) {
    if (rest % 2 == 1) result = times(result, base);
    base = times(base, base);
  }
  return result;
}

VT_HOST_DEVICE inline AdamwFactors constants_of(const AdamwStep& step) {
  const double correction1 = plus(1.0, -power(step.beta1, step.update_count));
  const double correction2 = plus(1.0, -power(step.beta2, step.update_count));
  return {static_cast<float>(plus(1.0, -times(step.learning_rate, step.weight_decay))),
          static_cast<float>(plus(1.0, -step.beta1)),
          static_cast<float>(step.beta2),
          static_cast<float>(plus(1.0, -step.beta2)),
          static_cast<float>(root(correction2)),
          static_cast<float>(over(step.learning_rate, correction1)),
          static_cast<float>(step.eps),
          static_cast<float>(plus(1.0, -step.ema_decay))};
}

VT_HOST_DEVICE inline SgdFactors constants_of(const SgdStep& step) {
  return {static_cast<float>(step.learning_rate), static_cast<float>(step.momentum),
          static_cast<float>(step.weight_decay), static_cast<float>(plus(1.0, -step.ema_decay))};
}

/// The constants of the update after `updates` others, at a share of the rate.
VT_HOST_DEVICE inline AdamwFactors constants_at(AdamwStep rule, double rate, double share,
                                                int64_t updates) {
  rule.learning_rate = times(rate, share);
  rule.update_count = updates + 1;
  return constants_of(rule);
}
VT_HOST_DEVICE inline SgdFactors constants_at(SgdStep rule, double rate, double share, int64_t) {
  rule.learning_rate = times(rate, share);
  return constants_of(rule);
}

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
