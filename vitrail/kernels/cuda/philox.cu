#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/philox.h"

namespace vitrail::kernels {
namespace {

/// One thread per counter, that is per four neighbouring elements of one sample.
__global__ void fill_uniform(float* out, const int64_t* sample_ids, int64_t batch,
                             int64_t per_sample, core::DrawKey key) {
  const int64_t blocks_per_sample = (per_sample + 3) / 4;
  const int64_t total = batch * blocks_per_sample;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total;
       i += stride) {
    const int64_t b = i / blocks_per_sample;
    const int64_t block = i % blocks_per_sample;
    const core::Philox4 bits =
        core::draw4(key, static_cast<uint64_t>(sample_ids[b]), static_cast<uint32_t>(block));
    float* row = out + b * per_sample;
    for (int j = 0; j < 4; ++j)
      if (4 * block + j < per_sample) row[4 * block + j] = core::to_uniform(bits.x[j]);
  }
}

}  // namespace

void philox_uniform(float* out, const int64_t* sample_ids, int64_t batch, int64_t per_sample,
                    const core::DrawKey& key, void* stream) {
  if (batch * per_sample == 0) return;
  constexpr int kThreads = 256;
  fill_uniform<<<grid_size(batch * ((per_sample + 3) / 4), kThreads), kThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(out, sample_ids, batch, per_sample, key);
  check_launch("philox_uniform");
}

}  // namespace vitrail::kernels
