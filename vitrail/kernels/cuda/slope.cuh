#pragma once
// Values and derivatives of the activations in fp32, shared by the kernels of their own and by those that a product ends in.

#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/cuda/pack.cuh"

namespace vitrail::kernels {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kTanhScale = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kTanhCube = 0.044715f;

__device__ __forceinline__ float sigmoid(float x) {
  return reciprocal(1.0f + exp2_approx(-kLog2e * x));
}

/// Phi(-|x|) and the density of the standard normal distribution at x.
struct Normal {
  float tail, density;
};

/// Phi(-|x|) = exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.3 sqrt 2 |x|), the form of Abramowitz & Stegun 7.1.26: the
/// exponential is the density that backward wants too. P is fitted so that the error is at most 2e-7 and, where Phi is
/// small, 4e-5 of it; with rounding 4e-7.
__device__ __forceinline__ Normal normal(float x) {
  constexpr float kP = 0.42426406871192857f, kDensity = 0.3989422804014327f;
  const float t = reciprocal(fmaf(kP, fabsf(x), 1.0f));
  const float e = exp2_approx(-0.5f * kLog2e * x * x);
  float p = 0.05823427793505883f;
  p = fmaf(p, t, -0.23138874762376527f);
  p = fmaf(p, t, 0.2446181308097316f);
  p = fmaf(p, t, 0.08097496736451132f);
  p = fmaf(p, t, 0.17891272486483376f);
  p = fmaf(p, t, 0.16864859887859135f);
  return {p * t * e, kDensity * e};
}

/// Value and derivatives of one activation. Without a gate, dgate stays 0.
struct Slope {
  float value, dpre, dgate;
};

template <ActivationKind kKind>
__device__ __forceinline__ Slope slope(float x, float gate) {
  if constexpr (kKind == ActivationKind::gelu_erf) {
    // x Phi(x) = max(x, 0) - |x| Phi(-|x|). An infinite x gives NaN.
    const Normal n = normal(x);
    const float below = x < 0.0f ? n.tail : 1.0f - n.tail;
    return {fmaf(-fabsf(x), n.tail, fmaxf(x, 0.0f)), fmaf(x, n.density, below), 0.0f};
  } else if constexpr (kKind == ActivationKind::gelu_tanh) {
    // (1 + tanh u) / 2 = sigmoid(2 u), without cancellation where it is small.
    const float square = x * x;
    const float s = sigmoid(2.0f * kTanhScale * x * fmaf(kTanhCube, square, 1.0f));
    const float inner = 2.0f * kTanhScale * fmaf(3.0f * kTanhCube, square, 1.0f);
    return {x * s, fmaf(x * inner, s * (1.0f - s), s), 0.0f};
  } else {
    const float s = sigmoid(gate), silu = gate * s;
    return {silu * x, silu, x * s * fmaf(gate, 1.0f - s, 1.0f)};
  }
}

}  // namespace vitrail::kernels
