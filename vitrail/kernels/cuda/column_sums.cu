#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/columns.cuh"

namespace vitrail::kernels {
namespace {

constexpr int kParts = 16;  // parts of a column that a block reads at once

/// A block for 32 columns of one sum.
__global__ void __launch_bounds__(kLanes* kParts)
    add_in_order(const float* __restrict__ partials, int parts, int slots, int64_t width,
                 SumTargets targets) {
  __shared__ float sums[kParts][kLanes + 1];
  const int lane = static_cast<int>(threadIdx.x) % kLanes,
            first = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kLanes + lane;
  float* const target = targets.sums[blockIdx.y];
  if (target == nullptr) return;
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int p = first; p < parts; p += kParts)
      sum += partials[(static_cast<int64_t>(p) * slots + blockIdx.y) * width + column];
  }
  sums[first][lane] = sum;
  __syncthreads();
  if (first > 0 || column >= width) return;
  for (int p = 1; p < kParts; ++p) sum += sums[p][lane];
  target[column] += sum;
}

__global__ void __launch_bounds__(kTileThreads)
    sum_tiles(const uint16_t* __restrict__ x, int64_t rows, int64_t width, int64_t stride,
              int lanes, float* __restrict__ partials) {
  const TilePlace place(lanes, width);
  float sums[kPack] = {};
  for (int64_t row = place.row; row < rows && place.is_inside; row += place.row_step) {
    Pack packs[kTileRows];
#pragma unroll
    for (int i = 0; i < kTileRows; ++i) {
      const int64_t r = row + i * place.row_stride;
      packs[i] = r < rows ? load_pack(x + r * stride + place.column) : Pack{};
    }
#pragma unroll
    for (int i = 0; i < kTileRows; ++i) {
      float values[kPack];
      unpack(packs[i], values);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[k] += values[k];
    }
  }
  store_tile_sums(sums, lanes, width, partials + blockIdx.y * width);
}

}  // namespace

void add_parts(const float* partials, int64_t parts, int slots, int64_t width,
               const SumTargets& targets, void* stream) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(width, kLanes)), static_cast<unsigned>(slots),
                    1);
  launch(add_in_order, Grid{blocks, dim3(kLanes * kParts), 0, stream}, partials,
         static_cast<int>(parts), slots, width, targets);
}

int64_t column_sums_partials(int64_t rows, int64_t width) {
  return column_tiles(rows, width).row_blocks * width;
}

void column_sums(const uint16_t* x, int64_t rows, int64_t width, int64_t stride, float* partials,
                 float* sums, void* stream) {
  check_width("column sums", width);
  if (rows == 0 || width == 0) return;
  const ColumnTiles tiles = column_tiles(rows, width);
  launch(sum_tiles, Grid{tiles.grid(), dim3(kTileThreads), 0, stream}, x, rows, width, stride,
         tiles.lanes, partials);
  SumTargets targets;
  targets.sums[0] = sums;
  add_parts(partials, tiles.row_blocks, 1, width, targets, stream);
}

}  // namespace vitrail::kernels
