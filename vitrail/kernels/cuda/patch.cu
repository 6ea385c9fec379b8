#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/columns.cuh"
#include "vitrail/kernels/patch.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;

/// A thread's pack of a tensor [samples, rows, width].
struct PackPlace {
  int64_t sample, row;
  int64_t column;  // of the first of its eight values
  int64_t at;
  bool is_inside;

  __device__ __forceinline__ PackPlace(int64_t samples, int64_t rows, int64_t width) {
    // In 32 bits, in which divisions are cheap.
    const auto packs = static_cast<uint32_t>(width / kPack), all = static_cast<uint32_t>(rows);
    const uint32_t i = blockIdx.x * kThreads + threadIdx.x, of_all = i / packs;
    is_inside = of_all < samples * rows;
    column = (i - of_all * packs) * kPack;
    sample = of_all / all;
    row = of_all - static_cast<uint32_t>(sample) * all;
    at = static_cast<int64_t>(i) * kPack;
  }
};

Grid grid_of(int64_t rows, int64_t width, void* stream) {
  check_count("patch", "rows x width / 8", rows * (width / kPack), INT32_MAX);
  return {dim3(static_cast<unsigned>(ceil_div(rows * (width / kPack), kThreads))), dim3(kThreads),
          0, stream};
}

__global__ void __launch_bounds__(kThreads)
    keep_rows(TokenShape shape, const uint16_t* __restrict__ all, const int64_t* __restrict__ keep,
              uint16_t* __restrict__ kept) {
  const PackPlace place(shape.samples, shape.prefix + shape.kept, shape.width);
  if (!place.is_inside) return;
  const int64_t from =
      place.row < shape.prefix
          ? place.row
          : shape.prefix + keep[place.sample * shape.kept + place.row - shape.prefix];
  store_pack(kept + place.at,
             load_pack(all + (place.sample * (shape.prefix + shape.tokens) + from) * shape.width +
                       place.column));
}

__global__ void __launch_bounds__(kThreads) restore_rows(RestoreTokens task) {
  const TokenShape& shape = task.shape;
  const PackPlace place(shape.samples, shape.prefix + shape.tokens, shape.width);
  if (!place.is_inside) return;
  const int64_t token = place.row - shape.prefix;  // below 0: of the prefix
  const int64_t from =
      token < 0 ? place.row : shape.prefix + task.restore[place.sample * shape.tokens + token];
  const bool is_kept = from < shape.prefix + shape.kept;
  const uint16_t* const kept =
      task.kept + (place.sample * (shape.prefix + shape.kept) + from) * shape.width;
  Pack pack{};
  if (is_kept)
    pack = load_pack(kept + place.column);
  else if (task.mask_token)
    pack = load_pack(task.mask_token + place.column);
  const uint16_t* positions = nullptr;
  if (token >= 0 && task.positions)
    positions = task.positions + place.sample * task.position_stride + token * shape.width;
  if (token < 0 && task.prefix_positions)
    positions = task.prefix_positions + place.row * shape.width;
  if (positions) {
    float values[kPack], added[kPack];
    unpack(pack, values);
    unpack(load_pack(positions + place.column), added);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] += added[k];
    pack = packed(values);
  }
  store_pack(task.all + place.at, pack);
}

/// Tiles of columns over part of the tokens, those that were hidden.
__global__ void __launch_bounds__(kTileThreads)
    sum_hidden(RestoreTokensSums task, int64_t tokens_of_all, int lanes) {
  const TokenShape& shape = task.shape;
  const TilePlace place(lanes, shape.width);
  float sums[kPack] = {};
  for (int64_t row = place.row; row < tokens_of_all && place.is_inside; row += place.row_step)
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t i = row + r * place.row_stride;
      if (i >= tokens_of_all || task.restore[i] < shape.kept) continue;
      const auto tokens = static_cast<uint32_t>(shape.tokens);
      const int64_t sample = static_cast<uint32_t>(i) / tokens, token = i - sample * tokens;
      float values[kPack];
      unpack(
          load_pack(task.dall +
                    (sample * (shape.prefix + shape.tokens) + shape.prefix + token) * shape.width +
                    place.column),
          values);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[k] += values[k];
    }
  store_tile_sums(sums, lanes, shape.width, task.partials + blockIdx.y * shape.width);
}

/// A thread for a pack of one position, samples in order.
__global__ void __launch_bounds__(kThreads) sum_samples(RestoreTokensSums task) {
  const TokenShape& shape = task.shape;
  const int64_t rows = shape.prefix + shape.tokens;
  const PackPlace place(1, rows, shape.width);
  if (!place.is_inside) return;
  float* const target = place.row < shape.prefix ? task.dprefix_positions : task.dpositions;
  if (target == nullptr) return;
  float sums[kPack] = {};
#pragma unroll 4
  for (int64_t s = 0; s < shape.samples; ++s) {
    float values[kPack];
    unpack(load_pack(task.dall + s * rows * shape.width + place.at), values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) sums[k] += values[k];
  }
  float* const to =
      place.row < shape.prefix ? target + place.at : target + place.at - shape.prefix * shape.width;
#pragma unroll
  for (int k = 0; k < kPack; ++k) to[k] += sums[k];
}

}  // namespace

void keep_tokens(const TokenShape& shape, const uint16_t* all, const int64_t* keep, uint16_t* kept,
                 void* stream) {
  check_width("keep_tokens", shape.width);
  const int64_t rows = shape.samples * (shape.prefix + shape.kept);
  if (rows > 0) launch(keep_rows, grid_of(rows, shape.width, stream), shape, all, keep, kept);
}

void restore_tokens(const RestoreTokens& task, void* stream) {
  check_width("restore_tokens", task.shape.width);
  const int64_t rows = task.shape.samples * (task.shape.prefix + task.shape.tokens);
  if (rows > 0) launch(restore_rows, grid_of(rows, task.shape.width, stream), task);
}

int64_t restore_tokens_partials(const TokenShape& shape) {
  return column_tiles(shape.samples * shape.tokens, shape.width).row_blocks * shape.width;
}

void restore_tokens_sums(const RestoreTokensSums& task, void* stream) {
  const TokenShape& shape = task.shape;
  check_width("restore_tokens_sums", shape.width);
  const int64_t tokens = shape.samples * shape.tokens;
  check_count("restore_tokens_sums", "samples x tokens", tokens, INT32_MAX);
  if (tokens == 0) return;
  if (task.dmask_token) {
    const ColumnTiles tiles = column_tiles(tokens, shape.width);
    launch(sum_hidden, Grid{tiles.grid(), dim3(kTileThreads), 0, stream}, task, tokens,
           tiles.lanes);
    SumTargets targets;
    targets.sums[0] = task.dmask_token;
    add_parts(task.partials, tiles.row_blocks, 1, shape.width, targets, stream);
  }
  if (task.dpositions || task.dprefix_positions)
    launch(sum_samples, grid_of(shape.prefix + shape.tokens, shape.width, stream), task);
}

}  // namespace vitrail::kernels
