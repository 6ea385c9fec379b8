#pragma once
// Attention of short sequences: a block holds two operands of a whole head in shared memory, each warp a tile of 16
// rows of the others in registers (docs/kernels.md, Short attention).
//
// Notation as in mma.cuh: lane = threadIdx % 32, g = lane / 4, t = lane % 4; a quad is the four lanes of one g. A chunk
//          is 16 bytes, 8 values of a row.

#include <algorithm>
#include <cmath>

#include <cuda_bf16.h>

#include "vitrail/kernels/attention.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/cuda/mma.cuh"

namespace vitrail::kernels::short_form {

constexpr int kTile = 16;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// What every kernel needs to know of the shape.
struct Sizes {
  int tokens, heads, kv_heads, width;
  float scale;  // 1 / sqrt(width)
  const int32_t* lengths;

  __device__ int valid_tokens(int sample) const {
    if (lengths == nullptr) return tokens;
    const int length = lengths[sample];
    return length < 1 ? 1 : length < tokens ? length : tokens;
  }
};

constexpr __host__ __device__ int tiles_of(int rows) { return (rows + kTile - 1) / kTile; }

/// One head: row i begins at `values + i * stride`.
template <class T>
struct Head {
  T* values;
  int64_t stride;
  __device__ T* row(int i) const { return values + i * stride; }
};

template <class T>
__device__ __forceinline__ Head<T> head_of(const HeadRows<T>& rows, int sample, int head,
                                           int width) {
  return {rows.values + sample * rows.sample_stride + static_cast<int64_t>(head) * width,
          rows.token_stride};
}

/// Rows of a head in shared memory, filled up with zeros to whole chunk pairs.
///
/// Chunk c of row r lies at chunk c ^ swizzle(r) of its row: the same chunk of 8 neighbouring rows, which is what a
/// matrix of ldmatrix is, then lies in 8 different groups of 4 banks, whatever the width.
template <int kWidth>
struct Rows {
  static constexpr int kChunks = (kWidth + 15) / 16 * 2;
  static constexpr int kSteps = kChunks / 2;         // of 16 columns
  static constexpr int kTiles = kWidth / 8;          // of 8 columns
  static constexpr int kGroups = (kChunks + 3) / 4;  // of 4 chunks, one for each lane of a quad
  static constexpr int kPitch = kChunks * 16;        // bytes
  static constexpr int kTileBytes = kTile * kPitch;
  // Rows r and r + 2^(3 - kBits) begin in the same bank; so the swizzle tells those 2^kBits rows apart.
  static constexpr int kBits = kChunks % 8 == 0 ? 3 : kChunks % 4 == 0 ? 2 : 1;
  static constexpr int kMask = (1 << kBits) - 1;

  static constexpr __host__ __device__ int swizzle(int row) { return (row >> (3 - kBits)) & kMask; }
  static constexpr __host__ __device__ int place(int row, int chunk) {
    return row * kPitch + ((chunk ^ swizzle(row)) << 4);
  }
  /// From where a lane finds (row, chunk) to where it finds (row, chunk + c), for an even c.
  static constexpr __host__ __device__ int move(int place, int c) {
    return (place ^ ((c & kMask) << 4)) + ((c & ~kMask) << 4);
  }
};

/// Where this lane reads in the first tile of `Rows` at 0: plain for a product with the rows' transpose, crossed for a
/// product with the rows themselves.
template <int kWidth>
struct LanePlaces {
  int plain, crossed;
  __device__ LanePlaces() {
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8;
    plain = Rows<kWidth>::place(matrix / 2 * 8 + row, matrix % 2);
    crossed = Rows<kWidth>::place(matrix % 2 * 8 + row, matrix / 2);
  }
};

/// [warp] sums[16 x 16 kCount] += a[16 x width] rows^T, of kCount tiles of rows from byte `place` on.
template <int kWidth, int kCount>
__device__ __forceinline__ void times_transposed(float (&sums)[2 * kCount][4],
                                                 const uint32_t (&a)[Rows<kWidth>::kSteps][4],
                                                 int place) {
  using R = Rows<kWidth>;
  const auto* const shared = dynamic_shared<unsigned char>();
#pragma unroll
  for (int k = 0; k < R::kSteps; ++k)
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      uint32_t b[4];
      ldmatrix_x4(b, shared + R::move(place, 2 * k) + i * R::kTileBytes);
      mma_bf16(sums[2 * i], a[k], b[0], b[1], sums[2 * i]);
      mma_bf16(sums[2 * i + 1], a[k], b[2], b[3], sums[2 * i + 1]);
    }
}

/// [warp] sums[16 x width] += a[16 x 16] rows, of one tile of rows from byte `place` on.
template <int kWidth>
__device__ __forceinline__ void times_rows(float (&sums)[Rows<kWidth>::kTiles][4],
                                           const uint32_t (&a)[4], int place) {
  using R = Rows<kWidth>;
  const auto* const shared = dynamic_shared<unsigned char>();
#pragma unroll
  for (int c = 0; c < R::kTiles; c += 2) {
    uint32_t b[4];
    ldmatrix_x4_trans(b, shared + R::move(place, c));
    mma_bf16(sums[c], a, b[0], b[1], sums[c]);
    if (c + 1 < R::kTiles) mma_bf16(sums[c + 1], a, b[2], b[3], sums[c + 1]);
  }
}

/// Rows arrive in shared memory in stages of so many tiles, so that the first warps need not wait for the last rows.
constexpr int kStageTiles = 4;
constexpr int kMostStages = static_cast<int>(kMostShortTokens) / (kStageTiles * kTile);

/// [block] Begins copying rows [from, to) of a head to shared memory at byte `place`; zeros from row `valid` on and
/// from the head's own width to kWidth, so that nothing in there is ever multiplied by rubbish.
template <int kWidth>
__device__ __forceinline__ void copy_rows(const Head<const uint16_t>& head, int from, int to,
                                          int valid, int width, int place) {
  using R = Rows<kWidth>;
  auto* const shared = dynamic_shared<unsigned char>();
  const int step = blockDim.x / R::kChunks;  // rows that the block copies at once
  const int chunk = threadIdx.x % R::kChunks;
  int row = from + threadIdx.x / R::kChunks;
  if (threadIdx.x >= step * R::kChunks) return;
  const uint16_t* values = head.row(row) + chunk * 8;
  const int counted = chunk * 8 < width ? valid : 0;
  for (; row < to; row += step, values += step * head.stride)
    cp_async_16_or_zero(shared + place + R::place(row, chunk), values, row < counted ? 16 : 0);
}

/// [block] Begins copying all tiles of two heads that the first `valid` rows lie in: kMostStages groups of copies, the
/// last ones perhaps empty.
template <int kWidth>
__device__ __forceinline__ void copy_heads(const Head<const uint16_t>& first, int first_place,
                                           const Head<const uint16_t>& second, int second_place,
                                           int valid, int width) {
  const int rows = tiles_of(valid) * kTile;
#pragma unroll 1
  for (int stage = 0; stage < kMostStages; ++stage) {
    const int from = min(rows, stage * kStageTiles * kTile);
    const int to = min(rows, from + kStageTiles * kTile);
    copy_rows<kWidth>(first, from, to, valid, width, first_place);
    copy_rows<kWidth>(second, from, to, valid, width, second_place);
    cp_async_commit();
  }
}

/// [block] Waits until the stage that begins with tile `tile` is there; nothing for other tiles. To be called for every
/// stage in turn: each call adds an empty group, so the stage is always the oldest of kMostStages.
__device__ __forceinline__ void await_stage(int tile) {
  if (tile % kStageTiles != 0) return;
  cp_async_wait<kMostStages - 1>();
  cp_async_commit();
  __syncthreads();
}

/// Lane t of a quad gives words t0..t3 and gets word t of lanes 0..3.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = threadIdx.x & bit;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int i = bit == 1 ? 2 * pair : pair, j = i + bit;
      const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, upper ? words[i] : words[j], bit);
      words[i] = upper ? got : words[i];
      words[j] = upper ? words[j] : got;
    }
  }
}

/// What a lane loads of two rows, 8 apart: chunks t, t + 4, ... of each.
template <int kWidth>
struct Pieces {
  uint4 values[2][Rows<kWidth>::kGroups];

  /// Rows first + g and first + g + 8; zeros from row `valid` and column `width` on.
  __device__ __forceinline__ void load(const Head<const uint16_t>& head, int first, int valid,
                                       int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 8 * half + lane / 4;
#pragma unroll
      for (int j = 0; j < Rows<kWidth>::kGroups; ++j) {
        const int column = (4 * j + lane % 4) * 8;
        const bool there = row < valid && column < width;
        values[half][j] = there ? *reinterpret_cast<const uint4*>(head.row(row) + column)
                                : make_uint4(0, 0, 0, 0);
      }
    }
  }

  /// [warp] The rows as left operand of a product.
  __device__ __forceinline__ void fragments(uint32_t (&a)[Rows<kWidth>::kSteps][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int j = 0; j < Rows<kWidth>::kGroups; ++j) {
        uint32_t words[4] = {values[half][j].x, values[half][j].y, values[half][j].z,
                             values[half][j].w};
        transpose_quad(words);
#pragma unroll
        for (int k = 0; k < 2; ++k)
          if (2 * j + k < Rows<kWidth>::kSteps) {
            a[2 * j + k][half] = words[2 * k];
            a[2 * j + k][2 + half] = words[2 * k + 1];
          }
      }
  }
};

__device__ __forceinline__ float dot(uint32_t a, uint32_t b, float sum) {
  return fmaf(high_bf16(a), high_bf16(b), fmaf(low_bf16(a), low_bf16(b), sum));
}

__device__ __forceinline__ float dot(const uint4& a, const uint4& b, float sum) {
  return dot(a.w, b.w, dot(a.z, b.z, dot(a.y, b.y, dot(a.x, b.x, sum))));
}

__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xFFFFFFFFu, value, 1);
  return value + __shfl_xor_sync(0xFFFFFFFFu, value, 2);
}

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 2));
}

/// [warp] Rounds sums[16 x width], rows g times factors[0] and rows g + 8 times factors[1], into rows first.. of a head;
/// rows from `valid` on are not written.
template <int kWidth>
__device__ __forceinline__ void store(const float (&sums)[Rows<kWidth>::kTiles][4],
                                      const float (&factors)[2], const Head<uint16_t>& head,
                                      int first, int valid, int width) {
  using R = Rows<kWidth>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + 8 * half + lane / 4;
    const float factor = factors[half];
#pragma unroll
    for (int j = 0; j < R::kGroups; ++j) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int c = 4 * j + i;
        words[i] = c < R::kTiles ? pack_bf16(sums[c % R::kTiles][2 * half] * factor,
                                             sums[c % R::kTiles][2 * half + 1] * factor)
                                 : 0;
      }
      transpose_quad(words);
      const int column = (4 * j + lane % 4) * 8;
      if (row < valid && column < width)
        *reinterpret_cast<uint4*>(head.row(row) + column) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

/// [block] Zeros in rows [from, to) of a head.
__device__ __forceinline__ void clear_rows(const Head<uint16_t>& head, int from, int to,
                                           int width) {
  const int chunks = width / 8;
  for (int i = threadIdx.x; i < (to - from) * chunks; i += blockDim.x)
    *reinterpret_cast<uint4*>(head.row(from + i / chunks) + i % chunks * 8) =
        make_uint4(0, 0, 0, 0);
}

/// Two products of neighbouring columns, rounded, as left operand of the next product.
__device__ __forceinline__ void as_operand(uint32_t (&a)[4], const float (&left)[4],
                                           const float (&right)[4]) {
  a[0] = pack_bf16(left[0], left[1]);
  a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]);
  a[3] = pack_bf16(right[2], right[3]);
}

/// How many warps of a block share the tiles of a head: the number that keeps most warps of an SM busy, where blocks of
/// `shared_bytes` fit side by side and registers are enough for `most_on_sm` warps.
inline unsigned warps_for(int tiles, int most, int most_on_sm, int64_t shared_bytes) {
  constexpr int64_t kSharedOfSm = 228 * 1024, kReserved = 1024;  // the latter a block
  const auto by_room = static_cast<int>(kSharedOfSm / (shared_bytes + kReserved));
  int best = 1;
  double best_busy = 0;
  for (int warps = 1; warps <= std::min(most, tiles); ++warps) {
    const int rounds = (tiles + warps - 1) / warps;
    const int blocks = std::max(1, std::min(by_room, most_on_sm / warps));
    const double busy = static_cast<double>(blocks) * tiles / rounds;
    // Among equals the most: fewer blocks load the same rows at once.
    if (busy >= best_busy) best = warps, best_busy = busy;
  }
  return static_cast<unsigned>(best);
}

/// Two operands of a head and, for backward, two floats a row.
template <int kWidth>
constexpr int64_t forward_shared_bytes(int tokens) {
  return int64_t{2} * tiles_of(tokens) * Rows<kWidth>::kTileBytes;
}
template <int kWidth>
constexpr int64_t backward_shared_bytes(int tokens) {
  return forward_shared_bytes<kWidth>(tokens) + tiles_of(tokens) * kTile * int64_t{sizeof(float2)};
}

// One function a file, so that they compile side by side.
void launch_forward(const AttentionForward& task, const Sizes& sizes, int samples, void* stream);
void launch_backward(const AttentionBackward& task, const Sizes& sizes, int samples,
                     float* workspace, void* stream);
int64_t backward_workspace_values(const AttentionShape& shape);

/// The smallest width that kernels are built for and that holds a head of `width`.
constexpr int kWidths[] = {32, 48, 64, 80, 88, 96, 112, 128};
constexpr int built_width(int width) {
  for (const int built : kWidths)
    if (width <= built) return built;
  return 0;
}

/// Calls action.template operator()<W>() of the kernel's width.
template <class Action>
void with_width(int width, const Action& action) {
  switch (built_width(width)) {
    case 32:
      return action.template operator()<32>();
    case 48:
      return action.template operator()<48>();
    case 64:
      return action.template operator()<64>();
    case 80:
      return action.template operator()<80>();
    case 88:
      return action.template operator()<88>();
    case 96:
      return action.template operator()<96>();
    case 112:
      return action.template operator()<112>();
    default:
      return action.template operator()<128>();
  }
}

}  // namespace vitrail::kernels::short_form
