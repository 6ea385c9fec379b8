#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/fp8_rows.cuh"
#include "vitrail/kernels/quantize.h"

namespace vitrail::kernels {
namespace {

__host__ __device__ constexpr int rows_at_once(Team team) { return 4 / packs_of(team); }
// Several waves of blocks: nothing is kept from row to row.
constexpr int kResidentThreads = 2 * 2048;

template <Fp8 kFormat, Team kTeam>
__global__ void __launch_bounds__(most_threads(kTeam)) quantize(QuantizeRows task) {
  constexpr int kRows = rows_at_once(kTeam);
  __align__(16) __shared__ float shared[2][kNormWarps * kRows];
  const RowPlace<kTeam> place(task.width);
  const CodeRows to{task.values, task.scales, task.largest};
  float largest = 0;
  int phase = 0;  // the maxima of one group are still read when the next one's are written
  for (int64_t first = place.team * kRows; first < task.rows; first += place.teams * kRows) {
    Pack x[kRows][packs_of(kTeam)];
    load_rows(place, task.x, first, task.rows, task.width, x);
    store_fp8_rows<kFormat>(place, to, x, first, task.rows, task.width, shared[phase], largest);
    phase ^= 1;
  }
  note_largest(place, to, largest);
}

template <Fp8 kFormat, Team kTeam>
void start(const QuantizeRows& task, void* stream) {
  const RowGrid grid =
      row_grid(kTeam, task.rows, task.width, rows_at_once(kTeam), kResidentThreads);
  launch(quantize<kFormat, kTeam>, Grid{dim3(grid.blocks), dim3(grid.threads), 0, stream}, task);
}

template <Fp8 kFormat>
void start(const QuantizeRows& task, void* stream) {
  switch (team_of(task.width)) {
    case Team::warp:
      return start<kFormat, Team::warp>(task, stream);
    case Team::few_warps:
      return start<kFormat, Team::few_warps>(task, stream);
    case Team::one_pack:
      return start<kFormat, Team::one_pack>(task, stream);
    case Team::two_packs:
      return start<kFormat, Team::two_packs>(task, stream);
    case Team::more_two_packs:
      return start<kFormat, Team::more_two_packs>(task, stream);
    case Team::four_packs:
      return start<kFormat, Team::four_packs>(task, stream);
  }
}

// A tile of kSide x kSide codes passes through shared memory in chunks of 16. Chunk c of row r lies at c ^ (r / 16), so
// that neither the rows' stores nor the columns' loads meet a bank twice.
constexpr int kSide = 128, kChunk = 16, kTransposeThreads = 256;
constexpr int kChunks = kSide / kChunk;

/// The factor of a row as a product of two f16, each in both halves of a word: the codes of e5m2 span 2^32. What is
/// lost below 2^-24 after the first lies below half the smallest step.
struct RowFactor {
  uint32_t first, second;
};
__device__ __forceinline__ RowFactor row_factor(float scale, float largest) {
  const float factor = scale * __fdividef(1.0f, largest), first = fmaxf(factor, 0x1p-14f);
  const float second = factor * __fdividef(1.0f, first);
  return {pack_f16(first, first), pack_f16(second, second)};
}

template <Fp8 kFormat>
__device__ __forceinline__ uint32_t scaled_codes(uint32_t word, const RowFactor& factor) {
  uint32_t codes[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t once = mul_f16x2(f16_of_fp8<kFormat>(word >> (16 * i) & 0xFFFFu), factor.first);
    codes[i] = fp8_of_f16<kFormat>(mul_f16x2(once, factor.second));
  }
  return codes[0] | codes[1] << 16;
}

/// Four words of four rows -> four words of four columns.
__device__ __forceinline__ void transpose_bytes(const uint32_t (&rows)[4], uint32_t (&columns)[4]) {
  const uint32_t low01 = __byte_perm(rows[0], rows[1], 0x5140),
                 low23 = __byte_perm(rows[2], rows[3], 0x5140),
                 high01 = __byte_perm(rows[0], rows[1], 0x7362),
                 high23 = __byte_perm(rows[2], rows[3], 0x7362);
  columns[0] = __byte_perm(low01, low23, 0x5410);
  columns[1] = __byte_perm(low01, low23, 0x7632);
  columns[2] = __byte_perm(high01, high23, 0x5410);
  columns[3] = __byte_perm(high01, high23, 0x7632);
}

template <Fp8 kFormat>
__device__ __forceinline__ void load_tile(const TransposeQuantized& task, int64_t first_row,
                                          int64_t first_column, uint4* tile) {
  constexpr int kRowsAtOnce = kTransposeThreads / kChunks, kPasses = kSide / kRowsAtOnce;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int high = static_cast<int>(threadIdx.x) / kChunks;
  const int64_t column = first_column + chunk * kChunk;
  const float largest = *task.largest;
  uint4 codes[kPasses];
  float scales[kPasses];
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    const int64_t row = first_row + pass * kRowsAtOnce + high;
    const bool is_inside = row < task.rows && column < task.width;
    codes[pass] = is_inside
                      ? *reinterpret_cast<const uint4*>(task.values + row * task.width + column)
                      : make_uint4(0, 0, 0, 0);
    scales[pass] = is_inside ? task.scales[row] : largest;
  }
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    const int r = pass * kRowsAtOnce + high;
    uint4 four = codes[pass];
    if (scales[pass] != largest) {
      const RowFactor factor = row_factor(scales[pass], largest);
      four =
          make_uint4(scaled_codes<kFormat>(four.x, factor), scaled_codes<kFormat>(four.y, factor),
                     scaled_codes<kFormat>(four.z, factor), scaled_codes<kFormat>(four.w, factor));
    }
    tile[r * kChunks + (chunk ^ (r / kChunk))] = four;
  }
}

template <Fp8 kFormat>
__global__ void __launch_bounds__(kTransposeThreads)
    transpose(TransposeQuantized task, int64_t stride, uint32_t column_tiles) {
  __align__(16) __shared__ uint4 tile[kSide * kChunks];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / column_tiles) * kSide;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % column_tiles) * kSide;
  load_tile<kFormat>(task, first_row, first_column, tile);
  __syncthreads();
  // Sixteen rows of four columns a thread; eight threads write 128 neighbouring codes of a column.
  const int part = static_cast<int>(threadIdx.x) % kChunks;
  const int four = static_cast<int>(threadIdx.x) / kChunks;
  const auto* const words = reinterpret_cast<const uint32_t*>(tile);
  uint32_t columns[4][4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint32_t rows[4], turned[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = part * kChunk + 4 * j + i;
      rows[i] = words[(r * kChunks + ((four / 4) ^ part)) * 4 + four % 4];
    }
    transpose_bytes(rows, turned);
#pragma unroll
    for (int i = 0; i < 4; ++i) columns[i][j] = turned[i];
  }
  const int64_t row = first_row + part * kChunk;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t column = first_column + four * 4 + i;
    if (column >= task.width || row >= stride) continue;
    *reinterpret_cast<uint4*>(task.transposed + column * stride + row) =
        make_uint4(columns[i][0], columns[i][1], columns[i][2], columns[i][3]);
    if (task.column_scales && row == 0) task.column_scales[column] = *task.largest;
  }
}

template <Fp8 kFormat>
void start(const TransposeQuantized& task, void* stream) {
  const int64_t column_tiles = ceil_div(task.width, kSide);
  const int64_t tiles = column_tiles * ceil_div(task.rows, kSide);
  check_count("transpose_quantized", "the number of tiles", tiles, INT32_MAX);
  launch(transpose<kFormat>,
         Grid{dim3(static_cast<unsigned>(tiles)), dim3(kTransposeThreads), 0, stream}, task,
         transposed_stride(task.rows), static_cast<uint32_t>(column_tiles));
}

void check(const char* where, int64_t width) {
  check_width(where, width, kMostQuantizedWidth);
  check_count(where, "the width's rest by 16", width % 16, 0);
}

}  // namespace

void quantize_rows(const QuantizeRows& task, void* stream) {
  check("quantize_rows", task.width);
  if (task.rows == 0) return;
  if (task.format == Fp8::e4m3)
    start<Fp8::e4m3>(task, stream);
  else
    start<Fp8::e5m2>(task, stream);
}

void transpose_quantized(const TransposeQuantized& task, void* stream) {
  check("transpose_quantized", task.width);
  if (task.rows == 0) return;
  if (task.format == Fp8::e4m3)
    start<Fp8::e4m3>(task, stream);
  else
    start<Fp8::e5m2>(task, stream);
}

}  // namespace vitrail::kernels
