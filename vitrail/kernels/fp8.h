#pragma once
/// Numbers of 8 bits, one source for CPU and GPU: conversion to the nearest (ties to even), saturating.
///
///            bits of exponent, mantissa   largest   smallest normal   steps below it
///   e4m3     4, 3                         448       2^-6              2^-9
///   e5m2     5, 2                         57344     2^-14             2^-16
/// Beyond the largest comes the largest, infinities too; NaN becomes 0x7F, which is NaN in both.
/// Paper    Micikevicius et al. 2022, arXiv:2209.05433 (e4m3 has no infinities).

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::kernels {

enum class Fp8 { e4m3, e5m2 };

VT_HOST_DEVICE constexpr float most_of(Fp8 format) {
  return format == Fp8::e4m3 ? 448.0f : 57344.0f;
}

VT_HOST_DEVICE inline uint8_t to_fp8(Fp8 format, float value) {
  const bool is_e4m3 = format == Fp8::e4m3;
  const uint32_t word = __builtin_bit_cast(uint32_t, value), magnitude = word & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7F;
  const uint32_t sign = (word >> 24) & 0x80u;
  float size = __builtin_bit_cast(float, magnitude);
  if (size > most_of(format)) size = most_of(format);
  uint32_t code = 0;
  if (size < (is_e4m3 ? 0x1p-6f : 0x1p-14f)) {
    // A sum with a number whose last bit is one step rounds as wanted.
    const float base = is_e4m3 ? 0x1p14f : 0x1p7f;
    code = __builtin_bit_cast(uint32_t, size + base) - __builtin_bit_cast(uint32_t, base);
  } else {
    const uint32_t cut = is_e4m3 ? 20 : 21;
    const uint32_t bits = __builtin_bit_cast(uint32_t, size);
    const uint32_t half = (1u << (cut - 1)) - 1 + ((bits >> cut) & 1u);
    code = ((bits + half) >> cut) - (is_e4m3 ? (127 - 7) << 3 : (127 - 15) << 2);
  }
  return static_cast<uint8_t>(sign | code);
}

VT_HOST_DEVICE inline float from_fp8(Fp8 format, uint8_t code) {
  const bool is_e4m3 = format == Fp8::e4m3;
  const uint32_t magnitude = code & 0x7Fu, sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t smallest_normal = is_e4m3 ? 8 : 4, first_special = is_e4m3 ? 0x7F : 0x7C;
  float size = 0;
  if (magnitude >= first_special)
    size = __builtin_bit_cast(float, magnitude == 0x7Cu ? 0x7F800000u : 0x7FC00000u);
  else if (magnitude < smallest_normal)
    size = static_cast<float>(magnitude) * (is_e4m3 ? 0x1p-9f : 0x1p-16f);
  else if (is_e4m3)
    size = __builtin_bit_cast(float, (magnitude + ((127 - 7) << 3)) << 20);
  else
    size = __builtin_bit_cast(float, (magnitude + ((127 - 15) << 2)) << 21);
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, size) | sign);
}

/// The exponent e of a scale 2^e: the smallest in [-120, 120] with largest <= most_of(format) 2^e. Dividing by a power of
/// two loses nothing but what falls below the steps, and the scaled codes times 2^e are numbers of bf16.
VT_HOST_DEVICE inline int scale_exponent(Fp8 format, float largest) {
  const uint32_t word = __builtin_bit_cast(uint32_t, largest * (1.0f / 448.0f));
  const int exponent =
      static_cast<int>((word + 0x7FFFFFu) >> 23) - 127 - (format == Fp8::e4m3 ? 0 : 7);
  return exponent < -120 ? -120 : exponent > 120 ? 120 : exponent;
}

/// 2^exponent, |exponent| at most 126.
VT_HOST_DEVICE inline float exponent_value(int exponent) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
}

/// Where the rows of a result go as numbers of 8 bits besides (kernels/quantize.h), e4m3.
struct CodeRows {
  uint8_t* values = nullptr;  // [rows, width]; null: nowhere
  float* scales = nullptr;    // [rows]
  float* largest =
      nullptr;  // one value: becomes the largest of itself and all scales; null: not wanted
};

}  // namespace vitrail::kernels
