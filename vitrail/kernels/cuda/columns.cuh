#pragma once
// Sums over the rows of a matrix: a block sums a tile of columns over part of the rows, a second small kernel adds the
// parts of all blocks in their order.

#include <algorithm>

#include "vitrail/kernels/cuda/pack.cuh"

namespace vitrail::kernels {

constexpr int kTileThreads = 256;
constexpr int kTileRows = 4;  // rows that a thread has in flight
constexpr int kMostSums = 4;

/// `lanes` neighbouring threads (a power of two) hold a pack of columns each; the block's other threads, further rows.
struct ColumnTiles {
  int lanes = 1, column_blocks = 1, row_blocks = 1;
  dim3 grid() const {
    return dim3(static_cast<unsigned>(column_blocks), static_cast<unsigned>(row_blocks), 1);
  }
};

inline ColumnTiles column_tiles(int64_t rows, int64_t width) {
  constexpr int64_t kBlocks = kMultiprocessors * 16, kMostParts = 1024;
  const int64_t packs = width / kPack;
  ColumnTiles tiles;
  while (tiles.lanes < kLanes && tiles.lanes < packs) tiles.lanes *= 2;
  tiles.column_blocks = static_cast<int>(ceil_div(packs, tiles.lanes));
  const int64_t rows_at_once = kTileThreads / tiles.lanes * kTileRows;
  const int64_t wanted = std::min(ceil_div(kBlocks, tiles.column_blocks), kMostParts);
  tiles.row_blocks =
      static_cast<int>(std::max<int64_t>(1, std::min(ceil_div(rows, rows_at_once), wanted)));
  return tiles;
}

/// The part of a thread in its block's tile.
struct TilePlace {
  int64_t column;           // of the first of its eight values
  int64_t row, row_stride;  // rows row + i row_stride for i < kTileRows, then row_step further
  int64_t row_step;
  bool is_inside;

  __device__ TilePlace(int lanes, int64_t width) {
    const int high = static_cast<int>(threadIdx.x) / lanes, rows = kTileThreads / lanes;
    column =
        (static_cast<int64_t>(blockIdx.x) * lanes + static_cast<int>(threadIdx.x) % lanes) * kPack;
    row_stride = rows;
    row = static_cast<int64_t>(blockIdx.y) * rows * kTileRows + high;
    row_step = static_cast<int64_t>(gridDim.y) * rows * kTileRows;
    is_inside = column < width;
  }
};

/// Adds up what the threads of a block hold of each column and writes it to part[column]. All threads call it.
__device__ __forceinline__ void store_tile_sums(const float (&sums)[kPack], int lanes,
                                                int64_t width, float* part) {
  __align__(16) __shared__ float tile[kTileThreads * kPack];
  store_floats(tile + threadIdx.x * kPack, sums);
  __syncthreads();
  const int columns = lanes * kPack, c = static_cast<int>(threadIdx.x);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * columns + c;
  if (c < columns && column < width) {
    float sum = 0;
    for (int i = c; i < kTileThreads * kPack; i += columns) sum += tile[i];
    part[column] = sum;
  }
  __syncthreads();
}

/// Where the sums go; null: nowhere, and then their parts are not read.
struct SumTargets {
  float* sums[kMostSums] = {};
};

/// targets.sums[s][c] += the sum over p of partials[p][s][c], p ascending; partials [parts, slots, width].
void add_parts(const float* partials, int64_t parts, int slots, int64_t width,
               const SumTargets& targets, void* stream);

}  // namespace vitrail::kernels
