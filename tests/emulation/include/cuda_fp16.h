#pragma once
// Half precision of CUDA for g++: storage, conversions, and arithmetic rounded once.

#include <cuda_runtime.h>

struct alignas(2) __half {
  unsigned short bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half value) {
  // Exponents are 112 apart; a product moves them, and makes subnormal numbers normal.
  const uint32_t magnitude = value.bits & 0x7FFFu, sign = (value.bits & 0x8000u) << 16;
  const float moved = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t bits = magnitude < 0x7C00u ? std::bit_cast<uint32_t>(moved)
                                            : 0x7F800000u | (magnitude & 0x03FFu) << 13;
  return std::bit_cast<float>(bits | sign);
}
/// Rounds to nearest even, from fp64 so that a sum of products is rounded once.
inline __half emulated_half(double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  const auto sign = static_cast<unsigned short>(bits >> 48 & 0x8000u);
  const uint64_t magnitude = bits & 0x7FFFFFFFFFFFFFFFull;
  if (magnitude > 0x7FF0000000000000ull) return {0x7FFF};
  // Adding 1.5 * 2^(e + 42) leaves 10 bits behind the leading one, as f16 does; subnormal numbers share e = -14.
  const int exponent = std::max(static_cast<int>(magnitude >> 52) - 1023, -14);
  if (exponent > 15) return {static_cast<unsigned short>(sign | 0x7C00u)};
  const double grain =
      1.5 * std::bit_cast<double>(static_cast<uint64_t>(exponent + 42 + 1023) << 52);
  const double rounded = (std::bit_cast<double>(magnitude) + grain) - grain;
  if (rounded > 65504.0) return {static_cast<unsigned short>(sign | 0x7C00u)};
  const uint32_t narrow =
      rounded < 0x1p-14
          ? static_cast<uint32_t>(rounded * 0x1p24)
          : (std::bit_cast<uint32_t>(static_cast<float>(rounded)) >> 13) - (112u << 10);
  return {static_cast<unsigned short>(sign | narrow)};
}
inline __half __float2half_rn(float value) { return emulated_half(static_cast<double>(value)); }
inline __half __float2half(float value) { return __float2half_rn(value); }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __float22half2_rn(float2 pair) { return __floats2half2_rn(pair.x, pair.y); }
inline float __low2float(__half2 pair) { return __half2float(pair.x); }
inline float __high2float(__half2 pair) { return __half2float(pair.y); }
