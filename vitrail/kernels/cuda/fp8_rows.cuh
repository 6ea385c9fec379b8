#pragma once
// Rows in registers, as a team holds them (norm_rows.cuh), written as numbers of 8 bits with a scale for each.

#include "vitrail/kernels/cuda/norm_rows.cuh"
#include "vitrail/kernels/fp8.h"

namespace vitrail::kernels {

/// The largest of kCount values that are not negative over the team, in every thread; `shared` as for team_sums.
template <Team kTeam, int kCount>
__device__ __forceinline__ void team_largest(float (&values)[kCount], float* shared) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    values[i] = __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(values[i])));
  if constexpr (kTeam == Team::warp) return;
  const int lane = static_cast<int>(threadIdx.x) % kLanes,
            warp = static_cast<int>(threadIdx.x) / kLanes,
            warps = static_cast<int>(blockDim.x) / kLanes;
  if (lane == 0)
#pragma unroll
    for (int i = 0; i < kCount; ++i) shared[warp * kCount + i] = values[i];
  __syncthreads();
#pragma unroll 1
  for (int w = 0; w < warps; ++w)
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = fmaxf(values[i], shared[w * kCount + i]);
}

/// The largest magnitude of a pack and of `largest`; a NaN counts as nothing.
__device__ __forceinline__ float larger_of(float largest, const Pack& pack) {
  float values[kPack];
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < kPack; ++i) largest = fmaxf(largest, fabsf(values[i]));
  return largest;
}

/// Eight values times `factor` as numbers of 8 bits.
template <Fp8 kFormat>
__device__ __forceinline__ void store_fp8(uint8_t* to, const Pack& pack, float factor) {
  float values[kPack];
  unpack(pack, values);
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    words[i] = pack_fp8<kFormat>(values[4 * i] * factor, values[4 * i + 1] * factor) |
               pack_fp8<kFormat>(values[4 * i + 2] * factor, values[4 * i + 3] * factor) << 16;
  *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
}

/// Writes rows first .. first + kRows, which the team holds in `x` as bf16. `largest` grows with the scales; the caller
/// hands it to note_largest at its end.
template <Fp8 kFormat, int kRows, Team kTeam>
__device__ __forceinline__ void store_fp8_rows(const RowPlace<kTeam>& place, const CodeRows& to,
                                               const Pack (&x)[kRows][packs_of(kTeam)],
                                               int64_t first, int64_t rows, int64_t width,
                                               float* shared, float& largest) {
  float most[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    most[r] = 0;
#pragma unroll
    for (int p = 0; p < packs_of(kTeam); ++p)
      if (place.has(p)) most[r] = larger_of(most[r], x[r][p]);
  }
  team_largest<kTeam>(most, shared);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= rows) continue;
    const int exponent = scale_exponent(kFormat, most[r]);
    const float factor = exponent_value(-exponent), scale = exponent_value(exponent);
#pragma unroll
    for (int p = 0; p < packs_of(kTeam); ++p)
      if (place.has(p))
        store_fp8<kFormat>(to.values + (first + r) * width + place.column(p), x[r][p], factor);
    if (place.thread == 0) to.scales[first + r] = scale;
    largest = fmaxf(largest, scale);
  }
}

/// Scales are positive, so their bits are in their order.
template <Team kTeam>
__device__ __forceinline__ void note_largest(const RowPlace<kTeam>& place, const CodeRows& to,
                                             float largest) {
  if (to.largest && place.thread == 0 && largest > 0)
    atomicMax(reinterpret_cast<unsigned*>(to.largest), __float_as_uint(largest));
}

}  // namespace vitrail::kernels
