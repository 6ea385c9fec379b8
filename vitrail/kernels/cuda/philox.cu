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

/// One thread per counter that a row touches: a row of n elements lies in at most (n + 6) / 4.
__global__ void fill_uniform_window(float* out, const int64_t* sample_ids, int64_t batch,
                                    PhiloxWindow window, core::DrawKey key) {
  const int64_t rows = window.rows(), length = window.row_length(), inside = window.row_inside();
  const int64_t blocks_per_row = (length + 6) / 4;
  const int64_t total = batch * rows * blocks_per_row;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total;
       i += stride) {
    const int64_t r = i / blocks_per_row;
    const int64_t first = window.row_start(r % rows);
    const int64_t block = (first < 0 ? 0 : first / 4) + i % blocks_per_row;
    const core::Philox4 bits =
        core::draw4(key, static_cast<uint64_t>(sample_ids[r / rows]), static_cast<uint32_t>(block));
    for (int j = 0; j < 4; ++j) {
      const int64_t place = 4 * block + j - (first < 0 ? 0 : first);
      if (place >= 0 && place < length)
        out[r * length + place] =
            first >= 0 && place < inside ? core::to_uniform(bits.x[j]) : -1.0f;
    }
  }
}

}  // namespace

void philox_uniform_window(float* out, const int64_t* sample_ids, int64_t batch,
                           const PhiloxWindow& window, const core::DrawKey& key, void* stream) {
  const int64_t rows = batch * window.rows();
  if (rows * window.row_length() == 0) return;
  constexpr int kThreads = 256;
  const int64_t counters = rows * ((window.row_length() + 6) / 4);
  launch(fill_uniform_window, Grid{grid_size(counters, kThreads), kThreads, 0, stream}, out,
         sample_ids, batch, window, key);
}

void philox_uniform(float* out, const int64_t* sample_ids, int64_t batch, int64_t per_sample,
                    const core::DrawKey& key, void* stream) {
  if (batch * per_sample == 0) return;
  constexpr int kThreads = 256;
  const int64_t counters = batch * ((per_sample + 3) / 4);
  launch(fill_uniform, Grid{grid_size(counters, kThreads), kThreads, 0, stream}, out, sample_ids,
         batch, per_sample, key);
}

}  // namespace vitrail::kernels
