#pragma once
/// IEEE half precision as bits, and the rounding of fp32 weights to it.
///
/// Needs    16-byte aligned device pointers.

#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::kernels {

/// Round to nearest, ties to even; too large becomes infinite, NaN stays NaN.
VT_HOST_DEVICE inline uint16_t to_f16(float value) {
  constexpr uint32_t kInfinity = 0x7F800000u;         // of fp32
  constexpr uint32_t kTooLarge = (127u + 16u) << 23;  // 65536
  constexpr uint32_t kSmallestNormal = (127u - 14u) << 23;
  // Adding it puts the bits of a subnormal half at the lower end, rounded by the addition.
  constexpr uint32_t kShift = ((127u - 15u) + (23u - 10u) + 1u) << 23;
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = (bits & 0x80000000u) >> 16;
  const uint32_t size = bits & 0x7FFFFFFFu;
  const float shifted = __builtin_bit_cast(float, size) + __builtin_bit_cast(float, kShift);
  const uint32_t small = __builtin_bit_cast(uint32_t, shifted) - kShift;
  const uint32_t normal = (size - ((127u - 15u) << 23) + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  const uint32_t large = size > kInfinity ? 0x7E00u : 0x7C00u;
  const uint32_t half = size >= kTooLarge ? large : size < kSmallestNormal ? small : normal;
  return static_cast<uint16_t>(sign | half);
}

/// out[i] = in[i] rounded; the range form for threads of a CPU, the other asynchronous on a GPU's stream.
void cast_f16_cpu(uint16_t* out, const float* in, int64_t begin, int64_t end);
void cast_f16(uint16_t* out, const float* in, int64_t count, void* stream);

}  // namespace vitrail::kernels
