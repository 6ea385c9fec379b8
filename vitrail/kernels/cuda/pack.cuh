#pragma once
// Eight neighbouring bf16 in one 16-byte access, and sums over the lanes of a warp.

#include <cstdint>

#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/cuda/mma.cuh"

namespace vitrail::kernels {

constexpr int kPack = 8;
constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
/// Of an H100 or H200. Grids are made of it and of shapes alone, so that sums do not depend on the device.
constexpr int kMultiprocessors = 132;

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct alignas(16) Pack {
  uint32_t words[4];
};

__device__ __forceinline__ Pack load_pack(const uint16_t* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  return {{raw.x, raw.y, raw.z, raw.w}};
}
__device__ __forceinline__ void store_pack(uint16_t* to, const Pack& pack) {
  *reinterpret_cast<uint4*>(to) =
      make_uint4(pack.words[0], pack.words[1], pack.words[2], pack.words[3]);
}
/// Eight times the same value, given as its bits.
__device__ __forceinline__ Pack repeated(uint32_t bits) {
  const uint32_t word = bits << 16 | bits;
  return {{word, word, word, word}};
}
constexpr uint32_t kOneBits = 0x3F80;  // 1.0 in bf16

__device__ __forceinline__ void unpack(const Pack& pack, float (&values)[kPack]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = low_bf16(pack.words[i]);
    values[2 * i + 1] = high_bf16(pack.words[i]);
  }
}
__device__ __forceinline__ Pack packed(const float (&values)[kPack]) {
  Pack pack;
#pragma unroll
  for (int i = 0; i < 4; ++i) pack.words[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
  return pack;
}
/// As memory will hold them.
__device__ __forceinline__ void round_values(float (&values)[kPack]) {
  unpack(packed(values), values);
}

__device__ __forceinline__ void store_floats(float* to, const float (&values)[kPack]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

/// Sums over the warp of `Count` values (a power of two) at once: each exchange halves what a lane still holds, 9
/// exchanges instead of 40 for 8 values. Lane i returns the sum of value i / (32 / Count).
template <int Count>
__device__ __forceinline__ float fold(float (&values)[Count]) {
  int offset = kLanes / 2;
#pragma unroll
  for (int left = Count / 2; left > 0; left /= 2, offset /= 2) {
    const bool is_high = (threadIdx.x & static_cast<unsigned>(offset)) != 0;
#pragma unroll
    for (int i = 0; i < left; ++i) {
      const float sent = is_high ? values[i] : values[i + left];
      const float kept = is_high ? values[i + left] : values[i];
      values[i] = kept + __shfl_xor_sync(kAllLanes, sent, offset);
    }
  }
#pragma unroll
  for (; offset > 0; offset /= 2) values[0] += __shfl_xor_sync(kAllLanes, values[0], offset);
  return values[0];
}

/// The sum over kGroup neighbouring lanes (a power of two), in all of them.
template <int kGroup>
__device__ __forceinline__ float lane_sum(float value) {
#pragma unroll
  for (int offset = kGroup / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

/// 1 / x, relative error below 2^-22; 0 from 2^126 on.
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.0f, x); }

}  // namespace vitrail::kernels
