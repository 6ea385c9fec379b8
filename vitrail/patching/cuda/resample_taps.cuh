#pragma once
// Shared by the kernels over leaves: grids, places of a thread, and a leaf's taps in shared memory.

#include <cmath>
#include <cstdint>

#include "vitrail/patching/resample_plan.h"

namespace vitrail::patching {

constexpr int kThreads = 256;

struct LeafGrid {
  dim3 blocks;
  unsigned threads;
};
/// Leaves along x. Along y so many blocks a leaf that a thread of a mean one has a few places: leaves are of very
/// different sizes, and blocks without a place end at once.
inline LeafGrid leaf_grid(const LeafBatch& leaves, int64_t mean_places) {
  constexpr int64_t kPlacesAThread = 4, kMostParts = 16, kWarp = 32;
  const int64_t parts = mean_places / (kPlacesAThread * kThreads);
  const int64_t threads = (mean_places + kWarp - 1) / kWarp * kWarp;
  return {{static_cast<unsigned>(leaves.batch * leaves.leaves),
           static_cast<unsigned>(parts < 1            ? 1
                                 : parts < kMostParts ? parts
                                                      : kMostParts),
           1},
          static_cast<unsigned>(threads < kWarp      ? kWarp
                                : threads < kThreads ? threads
                                                     : kThreads)};
}

__device__ inline int32_t first_place_of_block() {
  return static_cast<int32_t>(blockIdx.y * blockDim.x);
}
__device__ inline int32_t first_place() {
  return first_place_of_block() + static_cast<int32_t>(threadIdx.x);
}
__device__ inline int32_t place_stride() { return static_cast<int32_t>(gridDim.y * blockDim.x); }

/// Taps of all results of a leaf's axes, made by the block's threads together.
class TapsTable {
 public:
  /// To be called by all threads; false (and nothing made) where they are too many.
  __device__ bool fill(const Axis (&axes)[3]) {
    if (axes[0].to + axes[1].to + axes[2].to > kRows) return false;
    if (threadIdx.x == 0) {
      offset_[0] = 0;
      offset_[1] = axes[0].to;
      offset_[2] = axes[0].to + axes[1].to;
    }
    int32_t begin = 0;
    for (int a = 0; a < 3; ++a) {
      for (int32_t i = threadIdx.x; i < axes[a].to; i += blockDim.x)
        rows()[begin + i] = taps_of(axes[a], i);
      begin += axes[a].to;
    }
    __syncthreads();
    return true;
  }

  __device__ const AxisTaps& at(int a, int32_t i) const {
    return reinterpret_cast<const AxisTaps*>(bytes_)[offset_[a] + i];
  }

 private:
  static constexpr int32_t kRows = 512;  // 24 KiB; a leaf of 128^3 or 256^2 and more

  __device__ AxisTaps* rows() { return reinterpret_cast<AxisTaps*>(bytes_); }

  alignas(8) unsigned char bytes_[kRows * sizeof(AxisTaps)];  // shared memory has no constructors
  int32_t offset_[3];
};

}  // namespace vitrail::patching
