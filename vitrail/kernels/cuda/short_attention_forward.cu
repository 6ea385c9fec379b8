#include "vitrail/kernels/cuda/short_attention.cuh"

namespace vitrail::kernels::short_form {
namespace {

constexpr int kKeyTiles = 4;  // whose logits a warp holds at once
// The maximum that exponents are taken from may lag behind by this power of two: sums stay far from overflow and most
// tiles need no new scale.
constexpr float kLag = 8;

/// Threads of a block and blocks of an SM that registers are shared among.
template <int kWidth>
struct ForwardLimits {
  static constexpr int kWarps = kWidth <= 96 ? 6 : 8;
  static constexpr int kBlocks = kWidth <= 96 ? 2 : 1;
};

/// One warp's 16 queries on their way through the keys.
template <int kWidth>
struct QueryTile {
  float out[Rows<kWidth>::kTiles][4] = {};
  float max[2] = {-INFINITY, -INFINITY};  // of the exponents of 2, up to kLag too low
  float sum[2] = {0, 0};                  // of this lane's columns

  /// [warp] Raises the maxima to those of `logits`, where any of them is too low.
  template <int kCount>
  __device__ __forceinline__ void raise(const float (&logits)[2 * kCount][4], float to_log2) {
    float highest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int j = 0; j < 2 * kCount; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) highest[i / 2] = fmaxf(highest[i / 2], logits[j][i]);
#pragma unroll
    for (int half = 0; half < 2; ++half) highest[half] = quad_max(highest[half]) * to_log2;
    const bool too_low = highest[0] > max[0] + kLag || highest[1] > max[1] + kLag;
    if (!__any_sync(0xFFFFFFFFu, too_low)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float raised = fmaxf(max[half], highest[half]);
      const float factor = exp2_approx(max[half] - raised);
      max[half] = raised;
      sum[half] *= factor;
#pragma unroll
      for (int c = 0; c < Rows<kWidth>::kTiles; ++c)
        out[c][2 * half] *= factor, out[c][2 * half + 1] *= factor;
    }
  }

  /// [warp] Attends to kCount tiles of keys from `first` on, of which those before `valid` count.
  template <int kCount>
  __device__ __forceinline__ void attend(const uint32_t (&q)[Rows<kWidth>::kSteps][4], int first,
                                         int valid, float to_log2, int key_place, int value_place) {
    float logits[2 * kCount][4] = {};
    times_transposed<kWidth, kCount>(logits, q, key_place);
    if (first + kCount * kTile > valid) {
#pragma unroll
      for (int j = 0; j < 2 * kCount; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (first + 8 * j + 2 * static_cast<int>(threadIdx.x % 4) + i % 2 >= valid)
            logits[j][i] = -INFINITY;
    }
    raise<kCount>(logits, to_log2);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& p = logits[2 * j + i / 4][i % 4];
        p = exp2_approx(fmaf(p, to_log2, -max[i % 4 / 2]));
        sum[i % 4 / 2] += p;
      }
      uint32_t p[4];
      as_operand(p, logits[2 * j], logits[2 * j + 1]);
      times_rows<kWidth>(out, p, value_place + j * Rows<kWidth>::kTileBytes);
    }
  }
};

/// A block for one head of one sample; warps take query tiles in turn.
template <int kWidth>
__global__ void __launch_bounds__(32 * ForwardLimits<kWidth>::kWarps,
                                  ForwardLimits<kWidth>::kBlocks)
    short_attention_forward(AttentionForward task, Sizes sizes) {
  using R = Rows<kWidth>;
  const int head = blockIdx.x % sizes.heads, sample = blockIdx.x / sizes.heads;
  const int kv_head = head / (sizes.heads / sizes.kv_heads), width = sizes.width;
  const int valid = sizes.valid_tokens(sample), key_tiles = tiles_of(valid);
  const int tiles = tiles_of(sizes.tokens);
  const int values = key_tiles * R::kTileBytes;  // their place in shared memory, behind the keys
  copy_heads<kWidth>(head_of(task.k, sample, kv_head, width), 0,
                     head_of(task.v, sample, kv_head, width), values, valid, width);

  const auto q = head_of(task.q, sample, head, width);
  const auto out = head_of(task.out, sample, head, width);
  float* const lse = task.lse + static_cast<int64_t>(blockIdx.x) * sizes.tokens;
  const float to_log2 = sizes.scale * kLog2E;
  const LanePlaces<kWidth> lane;
  const int warps = blockDim.x / 32;
  for (int round = 0; round * warps < tiles; ++round) {
    const int tile = round * warps + threadIdx.x / 32;
    uint32_t q_rows[R::kSteps][4];
    Pieces<kWidth> pieces;
    pieces.load(q, tile * kTile, sizes.tokens, width);
    pieces.fragments(q_rows);
    const bool has_rows = tile < tiles;
    if (!has_rows && round > 0) break;
    QueryTile<kWidth> query;
    int keys = 0;
#pragma unroll 1
    for (; keys + kKeyTiles <= key_tiles; keys += kKeyTiles) {
      if (round == 0) await_stage(keys);
      if (has_rows)
        query.template attend<kKeyTiles>(q_rows, keys * kTile, valid, to_log2,
                                         lane.plain + keys * R::kTileBytes,
                                         values + lane.crossed + keys * R::kTileBytes);
    }
#pragma unroll 1
    for (; keys < key_tiles; ++keys) {
      if (round == 0) await_stage(keys);
      if (has_rows)
        query.template attend<1>(q_rows, keys * kTile, valid, to_log2,
                                 lane.plain + keys * R::kTileBytes,
                                 values + lane.crossed + keys * R::kTileBytes);
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = quad_sum(query.sum[half]);
      inverse[half] = 1 / sum;
      const int row = tile * kTile + 8 * half + threadIdx.x % 32 / 4;
      if (threadIdx.x % 4 == 0 && row < sizes.tokens)
        lse[row] = fmaf(query.max[half], kLn2, logf(sum));
    }
    store<kWidth>(query.out, inverse, out, tile * kTile, sizes.tokens, width);
  }
}

}  // namespace

void launch_forward(const AttentionForward& task, const Sizes& sizes, int samples, void* stream) {
  with_width(sizes.width, [&]<int kWidth>() {
    using Limits = ForwardLimits<kWidth>;
    const int64_t bytes = forward_shared_bytes<kWidth>(sizes.tokens);
    const unsigned warps =
        warps_for(tiles_of(sizes.tokens), Limits::kWarps, Limits::kWarps * Limits::kBlocks, bytes);
    const unsigned blocks = samples * sizes.heads;
    launch(short_attention_forward<kWidth>,
           Grid{dim3(blocks), dim3(32 * warps), static_cast<size_t>(bytes), stream}, task, sizes);
  });
}

}  // namespace vitrail::kernels::short_form
