#pragma once
// Attention of narrow heads (16 or 32 values) over very many tokens: exponentials, not products, are the limit, so half
// of them are a polynomial in f16 where the logits allow it (docs/kernels.md, Narrow attention).
//
// A problem is one head of one sample (blockIdx.y). Before each pass the operand that all blocks of a problem stream
// through shared memory is packed: for the fast form in panels that products of a warpgroup read
// (narrow_attention_panels.cuh), for the others in tiles of words (narrow_attention_tiles.cuh). Scores are in units of
// log2: x = log2(e) / sqrt(width) q k.
// Notation as in mma.cuh: lane = threadIdx % 32, g = lane / 4, t = lane % 4.

#include "vitrail/kernels/attention.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/cuda/mma.cuh"

namespace vitrail::kernels::narrow {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

struct Sizes {
  int tokens = 0, heads = 0, problems = 0;
  float scale = 0;  // 1 / sqrt(width)
};

/// The largest row norms of a problem, as the bits of non-negative floats (which order as integers do).
struct Bounds {
  int q, k, v, dout;
  int lse;            // backward: the largest log2 of a sum, or 0
  int is_distrusted;  // 1: a row's bound lies too far above its scores for the fast forward
};

/// How a problem's scores and probabilities are computed.
///   fast     2 B <= 60   probabilities f16, scaled by 2^15, rows g by polynomial and rows g + 8 by ex2; forward only if
///                        every row's sum is trusted (kLeastMean), backward up to 2 B < 120
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
/// The mean over a row's keys of the fast forward's probabilities (2^15 at the bound) from which its sum is trusted.
/// Those below 2^-15 count as 0, so at most 2^-10 of such a row is lost.
constexpr float kLeastMean = 1.0f / 32.0f;
// Written so that a bound that is not a number means the general form.
__device__ __forceinline__ Form forward_form(float bound, const Bounds& bounds) {
  if (bound <= 60.0f && bounds.is_distrusted == 0) return Form::fast;
  return bound < 120.0f ? Form::bounded : Form::online;
}
__device__ __forceinline__ Form backward_form(float bound) {
  return bound < 120.0f ? Form::fast : Form::online;
}
/// Whether a score can lie so far below its row's lse that exp2_polynomial must be the far one.
__device__ __forceinline__ bool is_far(float bound, const Bounds& bounds) {
  return !(0.5f * bound + __int_as_float(bounds.lse) <= 59.0f);
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

/// 2^(x - u + 15) of two scores as f16, from t = x - u + kPolynomial: rms error 1.1e-3, at most 3.0e-3; 0 where
/// x - u < -30. Needs x - u > -62, unless `kFar`.
///
/// t lies in [8192, 16384), where a float's unit is 2^-10: its low 16 bits are 1024 (x - u + 68) + 3 mod 2^16, those of
/// the f16 number 2^n (1 + f) but for a multiple of 1024. What is left is to replace 1 + f by 2^f: e = 2048 - 1024
/// (1 + f - 2^f), a quadratic in 1 + f, has as f16 the bits 26 * 1024 - 1024 (1 + f - 2^f), and 68 + 26 = 30 mod 64. The
/// sum of both, as a signed number, is negative from x - u = -30 down to -62; there it becomes 0.
constexpr float kPolynomial = 8192.0f + 68.0f + 3.0f / 1024.0f;
template <bool kFar>
__device__ __forceinline__ uint32_t exp2_polynomial(float t0, float t1) {
  constexpr uint32_t k340 = 0x5D505D50u, kMinus1030 = 0xE406E406u, k2738 = 0x69596959u;
  constexpr float kLeast = 8192.0f + 28.0f;
  if constexpr (kFar) t0 = fmaxf(t0, kLeast), t1 = fmaxf(t1, kLeast);
  const uint32_t bits = __byte_perm(__float_as_uint(t0), __float_as_uint(t1), 0x5410);
  const uint32_t one_plus_f = (bits & 0x03FF03FFu) | 0x3C003C00u;
  const uint32_t e = fma_f16x2(fma_f16x2(one_plus_f, k340, kMinus1030), one_plus_f, k2738);
  return __viaddmax_s16x2_relu(bits, e, 0u);
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

/// Blocks of `threads` for `items` of every problem.
inline Grid grid_of(const Sizes& sizes, int64_t items, int items_a_block, int threads,
                    size_t shared_bytes, void* stream) {
  return {dim3(static_cast<unsigned>((items + items_a_block - 1) / items_a_block),
               static_cast<unsigned>(sizes.problems)),
          static_cast<unsigned>(threads), shared_bytes, stream};
}

/// `dout` may be null.
void find_bounds(const Sizes& sizes, int width, const HeadRows<const uint16_t>& q,
                 const HeadRows<const uint16_t>& k, const HeadRows<const uint16_t>& v,
                 const HeadRows<const uint16_t>* dout, Bounds* bounds, void* stream);
void find_facts(const Sizes& sizes, int width, const AttentionBackward& task,
                const Workspace& workspace, void* stream);

// Each packs what its pass streams and runs it, for the problems whose form is its own. The fast forward may distrust a
// problem; then general_forward does it again.
void fast_forward(const Sizes& sizes, int width, const AttentionForward& task,
                  const Workspace& workspace, void* stream);
void general_forward(const Sizes& sizes, int width, const AttentionForward& task,
                     const Workspace& workspace, void* stream);
void fast_backward(const Sizes& sizes, int width, const AttentionBackward& task,
                   const Workspace& workspace, void* stream);
void general_backward(const Sizes& sizes, int width, const AttentionBackward& task,
                      const Workspace& workspace, void* stream);
/// Bytes of the largest stream of a problem.
int64_t fast_stream_bytes(int64_t tokens, int width);
int64_t general_stream_bytes(int64_t tokens, int width);

}  // namespace vitrail::kernels::narrow
