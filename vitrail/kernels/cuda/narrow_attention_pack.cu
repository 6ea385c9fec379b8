// What comes before the passes of narrow attention: row norms, facts of rows, and the operands of its general forms packed
// into fragments.

#include <algorithm>

#include "vitrail/kernels/cuda/narrow_attention_tiles.cuh"

namespace vitrail::kernels::narrow {
namespace {

constexpr int kPackThreads = 256;

/// Sum of a[i] * b[i] over a row.
template <int kWidth>
__device__ __forceinline__ float dot(const uint16_t* a, const uint16_t* b) {
  float sum = 0.0f;
#pragma unroll
  for (int chunk = 0; chunk < kWidth / 8; ++chunk) {
    const uint4 x = reinterpret_cast<const uint4*>(a)[chunk];
    const uint4 y = reinterpret_cast<const uint4*>(b)[chunk];
    const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sum += low_bf16(xs[i]) * low_bf16(ys[i]) + high_bf16(xs[i]) * high_bf16(ys[i]);
  }
  return sum;
}

/// Norm of a row; squares of very large and very small values do not overflow or vanish.
template <int kWidth>
__device__ __forceinline__ float norm(const uint16_t* row) {
  uint32_t words[kWidth / 2];
#pragma unroll
  for (int chunk = 0; chunk < kWidth / 8; ++chunk) {
    const uint4 x = reinterpret_cast<const uint4*>(row)[chunk];
    words[4 * chunk] = x.x, words[4 * chunk + 1] = x.y;
    words[4 * chunk + 2] = x.z, words[4 * chunk + 3] = x.w;
  }
  float largest = 0.0f;
#pragma unroll
  for (const uint32_t word : words)
    largest = fmaxf(largest, fmaxf(fabsf(low_bf16(word)), fabsf(high_bf16(word))));
  const float by = unit_scale(largest);
  float sum = 0.0f;
#pragma unroll
  for (const uint32_t word : words) {
    const float low = low_bf16(word) * by, high = high_bf16(word) * by;
    sum += low * low + high * high;
  }
  return sqrtf(sum) * inverse_power(by);
}

/// The largest row norm. The largest of all blocks by atomicMax: it does not depend on their order.
template <int kWidth>
__device__ void raise_to_norm(const Head<const uint16_t>& head, int tokens, int* largest) {
  float most = 0.0f;
  for (int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); row < tokens;
       row += static_cast<int>(gridDim.x * blockDim.x))
    most = fmaxf(most, norm<kWidth>(head.row(row)));
  for (int offset = 16; offset > 0; offset /= 2)
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, offset));
  if (threadIdx.x % 32 == 0) atomicMax(largest, __float_as_int(most));
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    bounds_kernel(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> k,
                  HeadRows<const uint16_t> v, HeadRows<const uint16_t> dout, Bounds* bounds) {
  Bounds& mine = bounds[blockIdx.y];
  raise_to_norm<kWidth>(head_of(q, sizes, kWidth), sizes.tokens, &mine.q);
  raise_to_norm<kWidth>(head_of(k, sizes, kWidth), sizes.tokens, &mine.k);
  raise_to_norm<kWidth>(head_of(v, sizes, kWidth), sizes.tokens, &mine.v);
  if (dout.values != nullptr)
    raise_to_norm<kWidth>(head_of(dout, sizes, kWidth), sizes.tokens, &mine.dout);
}

/// A rows section's chunk of one lane: four words of two neighbouring columns, as f16 times `by` or as they are.
__device__ __forceinline__ uint4 row_chunk(const Head<const uint16_t>& head, int first, int tokens,
                                           int step, int lane, bool is_f16 = false, float by = 1) {
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const WordPlace place = row_word(step, lane, j);
    const int row = first + place.row;
    words[j] = 0;
    if (row >= tokens) continue;
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(head.row(row) + place.column);
    words[j] = is_f16 ? pack_f16(low_bf16(pair) * by, high_bf16(pair) * by) : pair;
  }
  return {words[0], words[1], words[2], words[3]};
}

/// A columns section's chunk of one lane: four words of two neighbouring rows.
__device__ __forceinline__ uint4 column_chunk(const Head<const uint16_t>& head, int first,
                                              int tokens, int step, int lane) {
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const WordPlace place = column_word(step, lane, j);
    const int row = first + place.row;
    const uint32_t low = row < tokens ? head.row(row)[place.column] : 0u;
    const uint32_t high = row + 1 < tokens ? head.row(row + 1)[place.column] : 0u;
    words[j] = low | high << 16;
  }
  return {words[0], words[1], words[2], words[3]};
}

/// Where the chunk with this number lies in a tile.
struct ChunkPlace {
  int section, step, lane;
};
template <int kWidth>
__device__ __forceinline__ ChunkPlace chunk_place(int chunk) {
  constexpr int kChunks = kSection<kWidth> / 16;
  return {chunk / kChunks, chunk % kChunks / 32, chunk % 32};
}

__device__ __forceinline__ int chunk_of_thread() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_forward_kernel(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
                        const Bounds* bounds, int tiles, uint4* packed) {
  constexpr int kChunks = 2 * kSection<kWidth> / 16;
  const int chunk = chunk_of_thread(), tile = chunk / kChunks;
  if (tile >= tiles) return;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  const Form form = forward_form(scales.bound, bounds[blockIdx.y]);
  if (form == Form::fast) return;
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const int first = tile * kTile;
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] =
      place.section == 0
          ? row_chunk(head_of(k, sizes, kWidth), first, sizes.tokens, place.step, place.lane,
                      form == Form::bounded, scales.k)
          : column_chunk(head_of(v, sizes, kWidth), first, sizes.tokens, place.step, place.lane);
}

__device__ __forceinline__ bool is_general_backward(const Bounds* bounds, const Sizes& sizes) {
  return backward_form(scales_of(bounds[blockIdx.y], sizes.scale).bound) != Form::fast;
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    facts_kernel(Sizes sizes, HeadRows<const uint16_t> out, HeadRows<const uint16_t> dout,
                 const float* lse, Bounds* bounds, RowFacts* rows) {
  const int row = chunk_of_thread();
  float most = 0.0f;
  if (row < sizes.tokens) {
    const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
    const bool is_fast = backward_form(scales.bound) == Form::fast;
    const uint16_t* const gradient = head_of(dout, sizes, kWidth).row(row);
    const float d = dot<kWidth>(head_of(out, sizes, kWidth).row(row), gradient);
    const float length = norm<kWidth>(gradient);
    // A row of zeros has the head's scale: its inverse, which multiplies q, must not be large.
    const float by = !is_fast ? 1.0f : length > 0.0f ? unit_scale(length) : scales.dout;
    const int64_t place = static_cast<int64_t>(blockIdx.y) * sizes.tokens + row;
    most = lse[place] * kLog2E;
    rows[place] = {most, -d * by * (is_fast ? scales.v : 1.0f), by, 0.0f};
  }
  most = fmaxf(most, 0.0f);  // the bits of floats from 0 on order as integers
  for (int offset = 16; offset > 0; offset /= 2)
    most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, offset));
  if (threadIdx.x % 32 == 0) atomicMax(&bounds[blockIdx.y].lse, __float_as_int(most));
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_query_stream(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
                      const Bounds* bounds, int tiles, uint4* packed) {
  constexpr int kChunks = 3 * kSection<kWidth> / 16;
  const int chunk = chunk_of_thread(), tile = chunk / kChunks, first = tile * kTile;
  if (tile >= tiles || !is_general_backward(bounds, sizes)) return;
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const Head<const uint16_t> head = head_of(place.section == 1 ? v : k, sizes, kWidth);
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] =
      place.section < 2 ? row_chunk(head, first, sizes.tokens, place.step, place.lane)
                        : column_chunk(head, first, sizes.tokens, place.step, place.lane);
}

/// What is added to the keys' pass's columns: chunks 0 to 7 to the scores' exponents, 8 to 15 to the gradients of
/// probabilities; chunk 4 n + t holds columns 8 n + 2 t and the next, twice: for rows g and g + 8.
__device__ __forceinline__ uint4 start_chunk(const RowFacts* rows, int first, int tokens,
                                             int chunk) {
  const int row = first + chunk / 4 % 2 * 8 + chunk % 4 * 2;
  const auto of = [&](int i) {
    if (i >= tokens) return __float_as_uint(chunk < 8 ? kNever : 0.0f);
    return __float_as_uint(chunk < 8 ? -rows[i].lse : rows[i].minus_d);
  };
  const uint32_t low = of(row), high = of(row + 1);
  return {low, high, low, high};
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_key_stream(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> dout,
                    const Bounds* bounds, const RowFacts* all_rows, int tiles, uint4* packed) {
  constexpr int kChunks = 4 * kSection<kWidth> / 16 + 16;
  const int chunk = chunk_of_thread(), tile = chunk / kChunks, first = tile * kTile;
  if (tile >= tiles || !is_general_backward(bounds, sizes)) return;
  const RowFacts* const rows = all_rows + static_cast<int64_t>(blockIdx.y) * sizes.tokens;
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const bool is_q = place.section == 0 || place.section == 3;
  const Head<const uint16_t> head = head_of(is_q ? q : dout, sizes, kWidth);
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] =
      place.section < 2 ? row_chunk(head, first, sizes.tokens, place.step, place.lane)
      : place.section < 4
          ? column_chunk(head, first, sizes.tokens, place.step, place.lane)
          : start_chunk(rows, first, sizes.tokens, chunk % kChunks - (kChunks - 16));
}

/// A thread for each item of every problem.
Grid grid_for(const Sizes& sizes, int64_t items, void* stream) {
  return grid_of(sizes, items, kPackThreads, kPackThreads, 0, stream);
}

}  // namespace

void find_bounds(const Sizes& sizes, int width, const HeadRows<const uint16_t>& q,
                 const HeadRows<const uint16_t>& k, const HeadRows<const uint16_t>& v,
                 const HeadRows<const uint16_t>* dout, Bounds* bounds, void* stream) {
  cudaMemsetAsync(bounds, 0, static_cast<size_t>(sizes.problems) * sizeof(Bounds),
                  static_cast<cudaStream_t>(stream));
  check_launch("narrow attention: bounds");
  // A few rows a thread: enough blocks to fill the GPU at one problem, few enough maxima to merge.
  const int64_t rows_each = sizes.problems < 16 ? 1 : 8;
  const Grid grid = grid_for(sizes, (sizes.tokens + rows_each - 1) / rows_each, stream);
  const auto kernel = width == 16 ? bounds_kernel<16> : bounds_kernel<32>;
  launch(kernel, grid, sizes, q, k, v, dout ? *dout : HeadRows<const uint16_t>(), bounds);
}

void find_facts(const Sizes& sizes, int width, const AttentionBackward& task,
                const Workspace& workspace, void* stream) {
  launch(width == 16 ? facts_kernel<16> : facts_kernel<32>, grid_for(sizes, sizes.tokens, stream),
         sizes, task.out, task.dout, task.lse, workspace.bounds, workspace.rows);
}

void pack_forward_tiles(const Sizes& sizes, int width, const AttentionForward& task,
                        const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 256 / width);
  launch(width == 16 ? pack_forward_kernel<16> : pack_forward_kernel<32>,
         grid_for(sizes, tiles * 4 * width, stream), sizes, task.k, task.v, workspace.bounds,
         static_cast<int>(tiles), reinterpret_cast<uint4*>(workspace.stream));
}

void pack_query_tiles(const Sizes& sizes, int width, const AttentionBackward& task,
                      const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 256 / width);
  launch(width == 16 ? pack_query_stream<16> : pack_query_stream<32>,
         grid_for(sizes, tiles * 6 * width, stream), sizes, task.k, task.v, workspace.bounds,
         static_cast<int>(tiles), reinterpret_cast<uint4*>(workspace.stream));
}

void pack_key_tiles(const Sizes& sizes, int width, const AttentionBackward& task,
                    const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 128 / width);
  launch(width == 16 ? pack_key_stream<16> : pack_key_stream<32>,
         grid_for(sizes, tiles * (8 * width + 16), stream), sizes, task.q, task.dout,
         workspace.bounds, workspace.rows, static_cast<int>(tiles),
         reinterpret_cast<uint4*>(workspace.stream));
}

int64_t general_stream_bytes(int64_t tokens, int width) {
  const int64_t section = 32 * width;  // bytes of a tile's operand
  return std::max(padded_tiles(tokens, 256 / width) * 3 * section,
                  padded_tiles(tokens, 128 / width) * (4 * section + 256));
}

}  // namespace vitrail::kernels::narrow
