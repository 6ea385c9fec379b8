#pragma once
/// Numbers of compact moments; one source for CPU and GPU.

#include <cstdint>

#include "vitrail/core/philox.h"
#include "vitrail/kernels/bf16.h"

namespace vitrail::kernels {

/// value rounded to one of its two neighbours in bf16, up with the probability of what is cut off; `bits` are 16 random
/// ones.
VT_HOST_DEVICE inline uint16_t to_bf16_stochastic(float value, uint32_t bits) {
  const uint32_t word = __builtin_bit_cast(uint32_t, value);
  return static_cast<uint16_t>((word + (bits & 0xFFFFu)) >> 16);
}

constexpr float kMostFp8 = 448.0f;

/// e4m3 code of |value| <= 448, rounded as above: below 2^-6 in steps of 2^-9, else 3 bits of mantissa.
VT_HOST_DEVICE inline uint8_t to_fp8_stochastic(float value, uint32_t bits) {
  const uint32_t word = __builtin_bit_cast(uint32_t, value);
  const auto sign = static_cast<uint32_t>((word >> 24) & 0x80u);
  const uint32_t magnitude = word & 0x7FFFFFFFu;
  const float size = __builtin_bit_cast(float, magnitude);
  uint32_t code = 0;
  if (size < 0.015625f) {
    const float steps = size * 512.0f + static_cast<float>(bits & 0xFFFFu) * (1.0f / 65536.0f);
    code = static_cast<uint32_t>(steps);
  } else {
    constexpr uint32_t kBias = (127 - 7) << 3;
    code = ((magnitude + ((bits & 0xFFFFu) << 4)) >> 20) - kBias;
    if (code > 0x7Eu) code = 0x7Eu;  // the next one is NaN
  }
  return static_cast<uint8_t>(sign | code);
}

VT_HOST_DEVICE inline float from_fp8(uint8_t code) {
  const uint32_t magnitude = code & 0x7Fu, sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const float size = magnitude < 8
                         ? static_cast<float>(magnitude) * 0.001953125f
                         : __builtin_bit_cast(float, (magnitude + ((127 - 7) << 3)) << 20);
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, size) | sign);
}

/// The smallest e in [-120, 120] with largest <= 448 * 2^e.
VT_HOST_DEVICE inline int8_t block_exponent(float largest) {
  const uint32_t word = __builtin_bit_cast(uint32_t, largest * (1.0f / kMostFp8));
  const int exponent = static_cast<int>((word + 0x7FFFFFu) >> 23) - 127;
  const int kept = exponent < -120 ? -120 : exponent > 120 ? 120 : exponent;
  return static_cast<int8_t>(kept);
}

VT_HOST_DEVICE inline float power_of_two(int exponent) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
}

/// Random words of four neighbouring elements, which `place` counts: the upper half of each for the first moment, the lower
/// for the second.
VT_HOST_DEVICE inline core::Philox4 rounding_words(uint64_t seed, int64_t place,
                                                   uint32_t update_count) {
  const core::Philox4 counter{
      {static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32), 0x4D0E27u, update_count}};
  return core::philox4x32(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace vitrail::kernels
