// What comes before the passes of narrow attention: row norms, facts of rows, operands packed into fragments.

#include "vitrail/kernels/cuda/narrow_attention.cuh"

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

/// A rows section's chunk of one lane: four words of two neighbouring columns.
template <class Factor>
__device__ __forceinline__ uint4 row_chunk(const Head<const uint16_t>& head, int first, int tokens,
                                           int step, int lane, bool is_f16, Factor factor) {
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const WordPlace place = row_word(step, lane, j);
    const int row = first + place.row;
    words[j] = 0;
    if (row >= tokens) continue;
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(head.row(row) + place.column);
    const float by = factor(row);
    words[j] = is_f16 ? pack_f16(low_bf16(pair) * by, high_bf16(pair) * by) : pair;
  }
  return {words[0], words[1], words[2], words[3]};
}

/// A columns section's chunk of one lane: four words of two neighbouring rows.
template <class Factor>
__device__ __forceinline__ uint4 column_chunk(const Head<const uint16_t>& head, int first,
                                              int tokens, int step, int lane, bool is_f16,
                                              Factor factor) {
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const WordPlace place = column_word(step, lane, j);
    const int row = first + place.row;
    const uint32_t low = row < tokens ? head.row(row)[place.column] : 0u;
    const uint32_t high = row + 1 < tokens ? head.row(row + 1)[place.column] : 0u;
    words[j] = low | high << 16;
    if (is_f16)
      words[j] = pack_f16(low == 0u ? 0.0f : low_bf16(low) * factor(row),
                          high == 0u ? 0.0f : low_bf16(high) * factor(row + 1));
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
  const Form form = forward_form(scales.bound);
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const int first = tile * kTile;
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] =
      place.section == 0
          ? row_chunk(head_of(k, sizes, kWidth), first, sizes.tokens, place.step, place.lane,
                      form != Form::online, [&](int) { return scales.k; })
          : column_chunk(head_of(v, sizes, kWidth), first, sizes.tokens, place.step, place.lane,
                         form == Form::fast, [&](int) { return scales.v; });
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    facts_kernel(Sizes sizes, HeadRows<const uint16_t> out, HeadRows<const uint16_t> dout,
                 const float* lse, const Bounds* bounds, RowFacts* rows) {
  const int row = chunk_of_thread();
  if (row >= sizes.tokens) return;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  const bool is_fast = backward_form(scales.bound) == Form::fast;
  const uint16_t* const gradient = head_of(dout, sizes, kWidth).row(row);
  const float d = dot<kWidth>(head_of(out, sizes, kWidth).row(row), gradient);
  const float length = norm<kWidth>(gradient);
  // A row of zeros has the head's scale: its inverse, which multiplies q, must not be large.
  const float by = !is_fast ? 1.0f : length > 0.0f ? unit_scale(length) : scales.dout;
  const int64_t place = static_cast<int64_t>(blockIdx.y) * sizes.tokens + row;
  rows[place] = {lse[place] * kLog2E, -d * by * (is_fast ? scales.v : 1.0f), by, 0.0f};
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_query_stream(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
                      const Bounds* bounds, int tiles, uint4* packed) {
  constexpr int kChunks = 3 * kSection<kWidth> / 16;
  const int chunk = chunk_of_thread(), tile = chunk / kChunks;
  if (tile >= tiles) return;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  const bool is_f16 = backward_form(scales.bound) == Form::fast;
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const bool is_v = place.section == 1;
  const Head<const uint16_t> head = head_of(is_v ? v : k, sizes, kWidth);
  const auto factor = [&](int) { return is_v ? scales.v : scales.k; };
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] =
      place.section < 2
          ? row_chunk(head, tile * kTile, sizes.tokens, place.step, place.lane, is_f16, factor)
          : column_chunk(head, tile * kTile, sizes.tokens, place.step, place.lane, is_f16, factor);
}

/// What the products of the keys' pass begin from: chunks 0 to 7 the scores, 8 to 15 the gradients of probabilities;
/// chunk 4 n + t holds, for columns 8 n + 2 t and the next, rows g and then rows g + 8.
__device__ __forceinline__ uint4 start_chunk(const RowFacts* rows, int first, int tokens, int chunk,
                                             bool is_fast) {
  uint32_t words[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int row = first + chunk / 4 % 2 * 8 + chunk % 4 * 2 + j % 2;
    const bool is_there = row < tokens;
    float start = is_there ? rows[row].minus_d : 0.0f;
    if (chunk < 8) {
      const float base = !is_fast ? 0.0f : j < 2 ? kPolynomial - 1.0f : 14.0f;
      start = is_there ? base - rows[row].lse : kNever;
    }
    words[j] = __float_as_uint(start);
  }
  return {words[0], words[1], words[2], words[3]};
}

template <int kWidth>
__global__ void __launch_bounds__(kPackThreads)
    pack_key_stream(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> dout,
                    const Bounds* bounds, const RowFacts* all_rows, int tiles, uint4* packed) {
  constexpr int kChunks = 4 * kSection<kWidth> / 16 + 16;
  const int chunk = chunk_of_thread(), tile = chunk / kChunks, first = tile * kTile;
  if (tile >= tiles) return;
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  const bool is_f16 = backward_form(scales.bound) == Form::fast;
  const RowFacts* const rows = all_rows + static_cast<int64_t>(blockIdx.y) * sizes.tokens;
  const ChunkPlace place = chunk_place<kWidth>(chunk % kChunks);
  const bool is_q = place.section == 0 || place.section == 3;
  const Head<const uint16_t> head = head_of(is_q ? q : dout, sizes, kWidth);
  uint4 words;
  switch (place.section) {
    case 0:
      words = row_chunk(head, first, sizes.tokens, place.step, place.lane, is_f16,
                        [&](int) { return scales.score; });
      break;
    case 1:
      words = row_chunk(head, first, sizes.tokens, place.step, place.lane, is_f16,
                        [&](int row) { return rows[row].dout_scale; });
      break;
    case 2:
      words = column_chunk(head, first, sizes.tokens, place.step, place.lane, is_f16,
                           [&](int) { return 16.0f * scales.dout; });
      break;
    case 3:  // undoes the row's scale of dout
      words = column_chunk(head, first, sizes.tokens, place.step, place.lane, is_f16, [&](int row) {
        return scales.q * (8.0f * (scales.dout * inverse_power(rows[row].dout_scale)));
      });
      break;
    default:
      words = start_chunk(rows, first, sizes.tokens, chunk % kChunks - (kChunks - 16), is_f16);
  }
  packed[static_cast<int64_t>(blockIdx.y) * tiles * kChunks + chunk] = words;
}

/// A thread for each item of every problem.
Grid grid_of(const Sizes& sizes, int64_t items, void* stream) {
  return {dim3(static_cast<unsigned>((items + kPackThreads - 1) / kPackThreads),
               static_cast<unsigned>(sizes.problems)),
          kPackThreads, 0, stream};
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
  const Grid grid = grid_of(sizes, (sizes.tokens + rows_each - 1) / rows_each, stream);
  const auto kernel = width == 16 ? bounds_kernel<16> : bounds_kernel<32>;
  launch(kernel, grid, sizes, q, k, v, dout ? *dout : HeadRows<const uint16_t>(), bounds);
}

void pack_forward(const Sizes& sizes, int width, const AttentionForward& task,
                  const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 256 / width);
  launch(width == 16 ? pack_forward_kernel<16> : pack_forward_kernel<32>,
         grid_of(sizes, tiles * 4 * width, stream), sizes, task.k, task.v, workspace.bounds,
         static_cast<int>(tiles), reinterpret_cast<uint4*>(workspace.stream));
}

void find_facts(const Sizes& sizes, int width, const AttentionBackward& task,
                const Workspace& workspace, void* stream) {
  launch(width == 16 ? facts_kernel<16> : facts_kernel<32>, grid_of(sizes, sizes.tokens, stream),
         sizes, task.out, task.dout, task.lse, workspace.bounds, workspace.rows);
}

void pack_query_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                     const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 256 / width);
  launch(width == 16 ? pack_query_stream<16> : pack_query_stream<32>,
         grid_of(sizes, tiles * 6 * width, stream), sizes, task.k, task.v, workspace.bounds,
         static_cast<int>(tiles), reinterpret_cast<uint4*>(workspace.stream));
}

void pack_key_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                   const Workspace& workspace, void* stream) {
  const int64_t tiles = padded_tiles(sizes.tokens, 128 / width);
  launch(width == 16 ? pack_key_stream<16> : pack_key_stream<32>,
         grid_of(sizes, tiles * (8 * width + 16), stream), sizes, task.q, task.dout,
         workspace.bounds, workspace.rows, static_cast<int>(tiles),
         reinterpret_cast<uint4*>(workspace.stream));
}

}  // namespace vitrail::kernels::narrow
