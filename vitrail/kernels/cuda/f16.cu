#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/f16.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;

/// Four elements a thread; the rest by the first threads.
__global__ void __launch_bounds__(kThreads)
    round_f16(uint16_t* __restrict__ out, const float* __restrict__ in, int64_t count) {
  const int64_t packs = count / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) {
    const float4 value = reinterpret_cast<const float4*>(in)[i];
    reinterpret_cast<ushort4*>(out)[i] = {to_f16(value.x), to_f16(value.y), to_f16(value.z),
                                          to_f16(value.w)};
  }
  const int64_t tail = packs * 4 + i;
  if (i < 4 && tail < count) out[tail] = to_f16(in[tail]);
}

}  // namespace

void cast_f16(uint16_t* out, const float* in, int64_t count, void* stream) {
  if (count == 0) return;
  const auto blocks = static_cast<unsigned>(count / 4 / kThreads + 1);
  launch(round_f16, Grid{blocks, kThreads, 0, stream}, out, in, count);
}

}  // namespace vitrail::kernels
