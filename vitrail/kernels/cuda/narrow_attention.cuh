#pragma once
// Attention of narrow heads (16 or 32 values) over very many tokens: exponentials, not products, are the limit, so half
// of them are a polynomial in f16 where the logits allow it (docs/kernels.md, Narrow attention).
//
// A problem is one head of one sample (blockIdx.y). Before each pass the operand that all blocks of a problem stream
// through shared memory is packed: 16 rows are a tile, stored as the words that the lanes of a warp hold of it, so that
// one 16-byte load a lane gives the operands of two products. Scores are in units of log2: x = log2(e) / sqrt(width) q k.
// Notation as in mma.cuh: lane = threadIdx % 32, g = lane / 4, t = lane % 4.

#include "vitrail/kernels/attention.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/cuda/mma.cuh"

namespace vitrail::kernels::narrow {

constexpr int kTile = 16, kWarps = 4, kThreads = 32 * kWarps;
constexpr int kRowTiles = 2;  // tiles of a warp's own rows
constexpr int kBlockRows = kWarps * kRowTiles * kTile;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kNever = -1e30f;  // the score of a token that is not there

struct Sizes {
  int tokens = 0, heads = 0, problems = 0;
  float scale = 0;  // 1 / sqrt(width)
};

/// The largest row norms of a problem, as the bits of non-negative floats (which order as integers do).
struct Bounds {
  int q, k, v, dout;
};

/// How a problem's scores and probabilities are computed.
///   fast     2 B <= 28   probabilities f16, scaled by 2^15, rows g by polynomial and rows g + 8 by ex2; backward up to 2 B < 120
///   bounded  2 B < 120   probabilities bf16, scores below the row's bound
///   online   any         exact bf16 products, running maximum
/// with B = max|q| max|k| log2(e) / sqrt(width), by Cauchy and Schwarz.
enum class Form { fast, bounded, online };

/// The power of two that brings `largest` into [1/2, 1), at most 2^123; 1 for 0. It, 16 times it and its inverse are
/// normal floats.
__device__ __forceinline__ float unit_scale(float largest) {
  if (!(largest > 0.0f)) return 1.0f;
  const int field = 253 - static_cast<int>(__float_as_uint(largest) >> 23);
  return __uint_as_float(static_cast<uint32_t>(field < 1 ? 1 : field > 250 ? 250 : field) << 23);
}
__device__ __forceinline__ float inverse_power(float power) {
  return __uint_as_float((254u << 23) - __float_as_uint(power));
}

/// The powers of two by which a problem's operands are multiplied so that they fit f16, and what follows from them.
struct Scales {
  float q, k, v, dout;
  float score;  // q times this, times k times Scales::k, is x
  float bound;  // 2 B
};

__device__ __forceinline__ Scales scales_of(const Bounds& bounds, float scale) {
  const float q = __int_as_float(bounds.q), k = __int_as_float(bounds.k);
  Scales s;
  s.q = unit_scale(q);
  s.k = unit_scale(k);
  s.v = unit_scale(__int_as_float(bounds.v));
  s.dout = unit_scale(__int_as_float(bounds.dout));
  s.score = scale * kLog2E * inverse_power(s.k);
  s.bound = 2.0f * (q * s.score) * (k * s.k);
  return s;
}
// Written so that a bound that is not a number means the general form.
__device__ __forceinline__ Form forward_form(float bound) {
  return bound <= 28.0f ? Form::fast : bound < 120.0f ? Form::bounded : Form::online;
}
__device__ __forceinline__ Form backward_form(float bound) {
  return bound < 120.0f ? Form::fast : Form::online;
}

/// Where the running problem's head begins.
template <class T>
struct Head {
  T* values;
  int64_t stride;
  __device__ T* row(int i) const { return values + i * stride; }
};
template <class T>
__device__ __forceinline__ Head<T> head_of(const HeadRows<T>& rows, const Sizes& sizes, int width) {
  const int sample = static_cast<int>(blockIdx.y) / sizes.heads;
  const int head = static_cast<int>(blockIdx.y) % sizes.heads;
  return {rows.values + sample * rows.sample_stride + static_cast<int64_t>(head) * width,
          rows.token_stride};
}

/// Words of two neighbouring values of a row, multiplied and rounded.
template <bool kIsF16>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  return kIsF16 ? pack_f16(low, high) : pack_bf16(low, high);
}
template <bool kIsF16>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                    const float (&c)[4]) {
  if constexpr (kIsF16)
    mma_f16(d, a, b0, b1, c);
  else
    mma_bf16(d, a, b0, b1, c);
}

/// 2^(x - u + 15) of two scores as f16, from t = x - u + kPolynomial: rms error 1.1e-3, at most 3.0e-3.
///
/// t lies in [8192, 16384), where a float's unit is 2^-10: its low 16 bits are 1024 (x - u + 55) + 3, the bits of the
/// f16 number 2^n (1 + f) plus 25 * 1024. What is left is to replace 1 + f by 2^f: d = 1024 + 1024 (1 + f - 2^f) as f16
/// has the bits 25 * 1024 + 1024 (1 + f - 2^f), a quadratic in 1 + f. Needs t >= kLeastT.
constexpr float kPolynomial = 8192.0f + 55.0f + 3.0f / 1024.0f;
__device__ __forceinline__ uint32_t exp2_polynomial(float t0, float t1) {
  constexpr uint32_t kMinus340 = 0xDD50DD50u, k1030 = 0x64066406u, k334 = 0x5D385D38u;
  const uint32_t bits = __byte_perm(__float_as_uint(t0), __float_as_uint(t1), 0x5410);
  const uint32_t one_plus_f = (bits & 0x03FF03FFu) | 0x3C003C00u;
  const uint32_t d = fma_f16x2(fma_f16x2(one_plus_f, kMinus340, k1030), one_plus_f, k334);
  return bits - d;
}
/// The t below which a probability is 0: there exp2_polynomial is exactly 0.
constexpr float kLeastT = 8192.0f + 25.0f;

/// Words of the "row" operand: contraction over the columns of a tile's rows. Word j of a lane: row g (j < 2) or g + 8,
/// columns 16 step + 2 t + 8 (j % 2) and the next.
struct WordPlace {
  int row, column;
};
__device__ __forceinline__ WordPlace row_word(int step, int lane, int j) {
  return {lane / 4 + j / 2 * 8, step * 16 + lane % 4 * 2 + j % 2 * 8};
}
/// Words of the "column" operand: contraction over the rows. Word j: rows 2 t + 8 (j % 2) and the next, column
/// 16 step + g + 8 (j / 2).
__device__ __forceinline__ WordPlace column_word(int step, int lane, int j) {
  return {lane % 4 * 2 + j % 2 * 8, step * 16 + lane / 4 + j / 2 * 8};
}

/// Fragments of a warp's own 16 rows from `first` on, each value times factor(row); rows past the end are 0.
template <int kWidth, bool kIsF16, class Factor>
__device__ __forceinline__ void load_rows(uint32_t (&words)[kWidth / 16][4],
                                          const Head<const uint16_t>& head, int first, int tokens,
                                          Factor factor) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + g + half * 8;
    const bool is_there = row < tokens;
    const float by = is_there ? factor(row) : 0.0f;
#pragma unroll
    for (int step = 0; step < kWidth / 16; ++step)
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const uint32_t pair =
            is_there
                ? *reinterpret_cast<const uint32_t*>(head.row(row) + step * 16 + 2 * t + part * 8)
                : 0u;
        words[step][half + 2 * part] = pack<kIsF16>(low_bf16(pair) * by, high_bf16(pair) * by);
      }
  }
}

/// Sum of both halves' squares over a quad: the square norms of rows g and g + 8 of f16 fragments.
template <int kSteps>
__device__ __forceinline__ void square_norms(const uint32_t (&words)[kSteps][4], float (&sums)[2]) {
  sums[0] = sums[1] = 0.0f;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float low = low_f16(words[step][j]), high = high_f16(words[step][j]);
      sums[j % 2] += low * low + high * high;
    }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sums[half] += __shfl_xor_sync(0xFFFFFFFFu, sums[half], 1);
    sums[half] += __shfl_xor_sync(0xFFFFFFFFu, sums[half], 2);
  }
}

/// Two rows of outputs of one tile as bf16: sums[d] are the fragments of columns 8 d ...
template <int kWidth>
__device__ __forceinline__ void store_rows(const Head<uint16_t>& head, int first, int tokens,
                                           const float (&sums)[kWidth / 8][4],
                                           const float (&factors)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + g + half * 8;
    if (row >= tokens) continue;
#pragma unroll
    for (int d = 0; d < kWidth / 8; ++d)
      *reinterpret_cast<uint32_t*>(head.row(row) + d * 8 + 2 * t) =
          pack_bf16(sums[d][2 * half] * factors[half], sums[d][2 * half + 1] * factors[half]);
  }
}

/// A stream of tiles of kTileBytes each, brought into shared memory kStageTiles at a time, one stage ahead.
template <int kTileBytes, int kStageTiles, int kUnroll>
struct Stream {
  static constexpr int kStageBytes = kTileBytes * kStageTiles;
  static constexpr size_t kSharedBytes = 2 * kStageBytes;
  static_assert(kStageBytes % 16 == 0, "copied 16 bytes at a time");

  const unsigned char* from;
  unsigned char* shared;

  __device__ __forceinline__ void begin(int stage) const {
    const unsigned char* const source = from + static_cast<int64_t>(stage) * kStageBytes;
    unsigned char* const to = shared + stage % 2 * kStageBytes;
    for (int i = static_cast<int>(threadIdx.x) * 16; i < kStageBytes; i += kThreads * 16)
      cp_async_16(to + i, source + i);
    cp_async_commit();
  }
  /// Calls work(tile's shared memory, index) for every tile in order. Every thread of the block calls it.
  template <class Work>
  __device__ __forceinline__ void each(int tiles, Work work) const {
    const int stages = (tiles + kStageTiles - 1) / kStageTiles;
    begin(0);
    for (int stage = 0; stage < stages; ++stage) {
      cp_async_wait<0>();
      __syncthreads();  // the stage is there for all, and nobody reads the other buffer any more
      if (stage + 1 < stages) begin(stage + 1);
      const unsigned char* const at = shared + stage % 2 * kStageBytes;
      const int left = tiles - stage * kStageTiles;
      const int count = left < kStageTiles ? left : kStageTiles;
#pragma unroll kUnroll
      for (int i = 0; i < count; ++i) work(at + i * kTileBytes, stage * kStageTiles + i);
    }
  }
};

/// Bytes of one section of a tile (16 rows of one operand), and the sections' number in each stream.
template <int kWidth>
constexpr int kSection = kWidth * 32;
template <int kWidth>
using ForwardStream = Stream<2 * kSection<kWidth>, 256 / kWidth, 2>;  // k by rows, v by columns
template <int kWidth>
using QueryStream =
    Stream<3 * kSection<kWidth>, 256 / kWidth, 2>;  // k by rows, v by rows, k by columns
template <int kWidth>
using KeyStream = Stream<4 * kSection<kWidth> + 256, 128 / kWidth,
                         1>;  // q, dout by rows; dout, q by columns; scores

__device__ __forceinline__ uint4 lane_words(const unsigned char* section, int step) {
  return *reinterpret_cast<const uint4*>(section + step * 512 +
                                         static_cast<int>(threadIdx.x) % 32 * 16);
}

/// What the backward needs of a query's row.
struct alignas(16) RowFacts {
  float lse;         // log2 of the sum of 2^x
  float minus_d;     // -(out . dout), times dout_scale and Scales::v in the fast form
  float dout_scale;  // brings the row of dout into f16
  float pad;
};

/// Device memory of one call.
struct Workspace {
  Bounds* bounds;
  RowFacts* rows;         // [problems, tokens]
  unsigned char* stream;  // of the pass that runs
};

/// `dout` may be null.
void find_bounds(const Sizes& sizes, int width, const HeadRows<const uint16_t>& q,
                 const HeadRows<const uint16_t>& k, const HeadRows<const uint16_t>& v,
                 const HeadRows<const uint16_t>* dout, Bounds* bounds, void* stream);
void pack_forward(const Sizes& sizes, int width, const AttentionForward& task,
                  const Workspace& workspace, void* stream);
void run_forward(const Sizes& sizes, int width, const AttentionForward& task,
                 const Workspace& workspace, void* stream);

void find_facts(const Sizes& sizes, int width, const AttentionBackward& task,
                const Workspace& workspace, void* stream);
/// The pass over queries: packs keys and values, then dq.
void pack_query_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                     const Workspace& workspace, void* stream);
void run_query_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                    const Workspace& workspace, void* stream);
/// The pass over keys: packs queries and gradients, then dk and dv.
void pack_key_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                   const Workspace& workspace, void* stream);
void run_key_pass(const Sizes& sizes, int width, const AttentionBackward& task,
                  const Workspace& workspace, void* stream);

/// Tiles of a stream with stages of `stage_tiles`: whole stages, so that copies need no bounds.
constexpr __host__ __device__ int64_t padded_tiles(int64_t tokens, int64_t stage_tiles) {
  return (tokens + kTile * stage_tiles - 1) / (kTile * stage_tiles) * stage_tiles;
}

}  // namespace vitrail::kernels::narrow
