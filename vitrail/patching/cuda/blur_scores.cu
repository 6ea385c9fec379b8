#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/patching/blur_scores_lane.h"

namespace vitrail::patching {
namespace {

/// A thread a lane; a block holds as many whole patches as fit.
__global__ void __launch_bounds__(kMostLanes)
    score_patches(const __grid_constant__ BlurLevel level, int32_t lanes) {
  __shared__ float sums[kMostLanes];
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t lane = thread & (lanes - 1);
  const int64_t patch = static_cast<int64_t>(blockIdx.x) * (kMostLanes / lanes) + thread / lanes;
  const bool is_patch = patch < level.patches();
  sums[thread] = is_patch ? lane_sum(level, static_cast<int32_t>(patch), lane) : 0.0f;
  for (int32_t half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) sums[thread] = rounded_sum(sums[thread], sums[thread + half]);
  }
  if (is_patch && lane == 0) level.scores[patch] = blur_score(level, sums[thread]);
}

}  // namespace

void blur_scores_gpu(const BlurLevel& level, void* stream) {
  check_blur_level(level);
  if (level.patches() == 0) return;
  const int32_t lanes = lanes_of(level);
  const int64_t in_block = kMostLanes / lanes;
  const auto blocks = static_cast<unsigned>((level.patches() + in_block - 1) / in_block);
  score_patches<<<blocks, kMostLanes, 0, static_cast<cudaStream_t>(stream)>>>(level, lanes);
  kernels::check_launch("scores of patches");
}

}  // namespace vitrail::patching
