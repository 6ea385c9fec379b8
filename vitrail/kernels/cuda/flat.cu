#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/clip.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/flat.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;

/// The sum over the block, in a fixed order; valid in thread 0.
__device__ double block_sum(double value) {
  __shared__ double warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (const double warp : warps) sum += warp;
  return sum;
}

/// x[i]^2, or 0 where it does not count (a factor: NaN stays NaN).
template <bool kMasked>
__device__ float square(float x, uint8_t counted) {
  return kMasked ? x * x * static_cast<float>(counted) : x * x;
}

template <bool kMasked>
__global__ void __launch_bounds__(kThreads)
    square_partials(const float* __restrict__ x, const uint8_t* __restrict__ counted, int64_t count,
                    double* __restrict__ partials) {
  const int64_t packs = count / 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  float sums[4] = {};  // four chains hide the latency of the additions
  for (int64_t i = first; i < packs; i += stride) {
    const float4 value = reinterpret_cast<const float4*>(x)[i];
    const uint8_t counts = kMasked ? counted[i / (kFlagGroup / 4)] : uint8_t{1};
    sums[0] += square<kMasked>(value.x, counts);
    sums[1] += square<kMasked>(value.y, counts);
    sums[2] += square<kMasked>(value.z, counts);
    sums[3] += square<kMasked>(value.w, counts);
  }
  const int64_t tail = packs * 4 + first;
  if (tail < count)
    sums[0] += square<kMasked>(x[tail], kMasked ? counted[tail / kFlagGroup] : uint8_t{1});
  const double sum = block_sum((static_cast<double>(sums[0]) + sums[1]) +
                               (static_cast<double>(sums[2]) + sums[3]));
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) add_partials(const double* partials, double* total) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < kSumPartials; i += kThreads) mine += partials[i];
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) *total = sum;
}

__global__ void scale_from_sum(const double* sum, float max_norm, float* norm, float* scale) {
  *norm = static_cast<float>(sqrt(*sum));
  *scale = clip_factor(*norm, max_norm);
}

__global__ void __launch_bounds__(kThreads)
    add_halves(float* __restrict__ sum, const uint16_t* __restrict__ part, int64_t count) {
  const int64_t packs = count / 8;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) {
    const uint4 raw = reinterpret_cast<const uint4*>(part)[i];
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    float4 low = reinterpret_cast<float4*>(sum)[2 * i],
           high = reinterpret_cast<float4*>(sum)[2 * i + 1];
    low.x += from_bf16(words[0] & 0xFFFFu), low.y += from_bf16(words[0] >> 16);
    low.z += from_bf16(words[1] & 0xFFFFu), low.w += from_bf16(words[1] >> 16);
    high.x += from_bf16(words[2] & 0xFFFFu), high.y += from_bf16(words[2] >> 16);
    high.z += from_bf16(words[3] & 0xFFFFu), high.w += from_bf16(words[3] >> 16);
    reinterpret_cast<float4*>(sum)[2 * i] = low;
    reinterpret_cast<float4*>(sum)[2 * i + 1] = high;
  }
  const int64_t tail = packs * 8 + i;
  if (i < 8 && tail < count) sum[tail] += from_bf16(part[tail]);
}

__global__ void __launch_bounds__(kThreads)
    add_floats(float* __restrict__ sum, const float* __restrict__ part, int64_t count) {
  const int64_t packs = count / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) {
    float4 total = reinterpret_cast<float4*>(sum)[i];
    const float4 more = reinterpret_cast<const float4*>(part)[i];
    total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
    reinterpret_cast<float4*>(sum)[i] = total;
  }
  const int64_t tail = packs * 4 + i;
  if (i < 4 && tail < count) sum[tail] += part[tail];
}

__global__ void __launch_bounds__(kThreads)
    widen_bf16(float* __restrict__ out, const uint16_t* __restrict__ in, int64_t count) {
  const int64_t packs = count / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) {
    const ushort4 raw = reinterpret_cast<const ushort4*>(in)[i];
    reinterpret_cast<float4*>(out)[i] = {from_bf16(raw.x), from_bf16(raw.y), from_bf16(raw.z),
                                         from_bf16(raw.w)};
  }
  const int64_t tail = packs * 4 + i;
  if (i < 4 && tail < count) out[tail] = from_bf16(in[tail]);
}

__global__ void __launch_bounds__(kThreads)
    round_bf16(uint16_t* __restrict__ out, const float* __restrict__ in, int64_t count) {
  const int64_t packs = count / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) {
    const float4 value = reinterpret_cast<const float4*>(in)[i];
    reinterpret_cast<ushort4*>(out)[i] = {to_bf16(value.x), to_bf16(value.y), to_bf16(value.z),
                                          to_bf16(value.w)};
  }
  const int64_t tail = packs * 4 + i;
  if (i < 4 && tail < count) out[tail] = to_bf16(in[tail]);
}

unsigned blocks_for(int64_t packs) { return static_cast<unsigned>(packs / kThreads + 1); }

}  // namespace

void sum_squares(const float* x, int64_t count, double* partials, double* sum, void* stream,
                 const uint8_t* counted) {
  const auto kernel = counted ? square_partials<true> : square_partials<false>;
  launch(kernel, Grid{static_cast<unsigned>(kSumPartials), kThreads, 0, stream}, x, counted, count,
         partials);
  launch(add_partials, Grid{1, kThreads, 0, stream}, partials, sum);
}

void clip_scale(const double* sum, float max_norm, float* norm, float* scale, void* stream) {
  launch(scale_from_sum, Grid{1, 1, 0, stream}, sum, max_norm, norm, scale);
}

void add_bf16(float* sum, const uint16_t* part, int64_t count, void* stream) {
  if (count == 0) return;
  launch(add_halves, Grid{blocks_for(count / 8), kThreads, 0, stream}, sum, part, count);
}

void add_f32(float* sum, const float* part, int64_t count, void* stream) {
  if (count == 0) return;
  launch(add_floats, Grid{blocks_for(count / 4), kThreads, 0, stream}, sum, part, count);
}

void expand_bf16(float* out, const uint16_t* in, int64_t count, void* stream) {
  if (count == 0) return;
  launch(widen_bf16, Grid{blocks_for(count / 4), kThreads, 0, stream}, out, in, count);
}

void cast_bf16(uint16_t* out, const float* in, int64_t count, void* stream) {
  if (count == 0) return;
  launch(round_bf16, Grid{blocks_for(count / 4), kThreads, 0, stream}, out, in, count);
}

}  // namespace vitrail::kernels
