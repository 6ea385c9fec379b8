#include "vitrail/kernels/cuda/short_attention.cuh"

namespace vitrail::kernels::short_form {
namespace {

/// Threads of a block and blocks of an SM that registers are shared among.
template <int kWidth>
struct BackwardLimits {
  static constexpr int kWarps = kWidth <= 96 ? 6 : 8;
  static constexpr int kBlocks = kWidth <= 96 ? 2 : 1;
};

struct BackwardTask : AttentionBackward {
  float* sums = nullptr;  // of dk and dv between the heads of a group
};

/// Floats that a warp keeps of one tile of keys between two heads.
template <int kWidth>
constexpr int kSumsOfTile = 2 * kTile* Rows<kWidth>::kTiles * 8;

/// dS of kCount tiles of keys, from the logits, the exponent of each row's sum and dP - D.
template <int kCount>
__device__ __forceinline__ void score_gradients(float (&logits)[2 * kCount][4],
                                                const float (&differences)[2 * kCount][4],
                                                const float (&log2_sums)[2], float to_log2) {
#pragma unroll
  for (int j = 0; j < 2 * kCount; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      logits[j][i] =
          exp2_approx(fmaf(logits[j][i], to_log2, -log2_sums[i / 2])) * differences[j][i];
}

/// One warp's 16 queries: their gradient from the keys and values in shared memory.
template <int kWidth>
struct QueryGradient {
  float dq[Rows<kWidth>::kTiles][4] = {};
  uint32_t q[Rows<kWidth>::kSteps][4], dout[Rows<kWidth>::kSteps][4];
  float log2_sums[2], minus_d[2];

  /// [warp] Rows past the last token get probabilities of 0.
  __device__ __forceinline__ void load(const AttentionBackward& task, const Sizes& sizes,
                                       int sample, int head, int first) {
    const int width = sizes.width, tokens = sizes.tokens;
    // All of them on their way before the first is waited for.
    Pieces<kWidth> outs, douts, queries;
    outs.load(head_of(task.out, sample, head, width), first, tokens, width);
    douts.load(head_of(task.dout, sample, head, width), first, tokens, width);
    queries.load(head_of(task.q, sample, head, width), first, tokens, width);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float d = 0;
#pragma unroll
      for (int j = 0; j < Rows<kWidth>::kGroups; ++j)
        d = dot(douts.values[half][j], outs.values[half][j], d);
      minus_d[half] = -quad_sum(d);
      const int row = first + 8 * half + threadIdx.x % 32 / 4;
      const float* const lse =
          task.lse + (static_cast<int64_t>(sample) * sizes.heads + head) * sizes.tokens;
      log2_sums[half] = row < tokens ? lse[row] * kLog2E : INFINITY;
    }
    douts.fragments(dout);
    queries.fragments(q);
  }

  template <int kCount>
  __device__ __forceinline__ void attend(int first, int valid, float to_log2, int key_place,
                                         int key_rows, int value_place) {
    float logits[2 * kCount][4] = {}, differences[2 * kCount][4];
#pragma unroll
    for (int j = 0; j < 2 * kCount; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) differences[j][i] = minus_d[i / 2];
    times_transposed<kWidth, kCount>(logits, q, key_place);
    times_transposed<kWidth, kCount>(differences, dout, value_place);
    score_gradients<kCount>(logits, differences, log2_sums, to_log2);
    // Keys that do not count have logits of 0, whose exponential may be infinite.
    if (first + kCount * kTile > valid) {
#pragma unroll
      for (int j = 0; j < 2 * kCount; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (first + 8 * j + 2 * static_cast<int>(threadIdx.x % 4) + i % 2 >= valid)
            logits[j][i] = 0;
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      uint32_t ds[4];
      as_operand(ds, logits[2 * j], logits[2 * j + 1]);
      times_rows<kWidth>(dq, ds, key_rows + j * Rows<kWidth>::kTileBytes);
    }
  }
};

/// dq of one head.
template <int kWidth>
__device__ __forceinline__ void query_block(const BackwardTask& task, const Sizes& sizes,
                                            int sample, int head) {
  using R = Rows<kWidth>;
  constexpr int kKeyTiles = 2;
  const int width = sizes.width, kv_head = head / (sizes.heads / sizes.kv_heads);
  const int valid = sizes.valid_tokens(sample), key_tiles = tiles_of(valid);
  const int tiles = tiles_of(sizes.tokens);
  const int values = key_tiles * R::kTileBytes;  // their place in shared memory, behind the keys
  copy_heads<kWidth>(head_of(task.k, sample, kv_head, width), 0,
                     head_of(task.v, sample, kv_head, width), values, valid, width);

  const auto dq = head_of(task.dq, sample, head, width);
  const float to_log2 = sizes.scale * kLog2E;
  const LanePlaces<kWidth> lane;
  const int warps = blockDim.x / 32;
  for (int round = 0; round * warps < tiles; ++round) {
    const int tile = round * warps + threadIdx.x / 32;
    QueryGradient<kWidth> query;
    query.load(task, sizes, sample, head, tile * kTile);
    const bool has_rows = tile < tiles;
    if (!has_rows && round > 0) break;
    int keys = 0;
#pragma unroll 1
    for (; keys + kKeyTiles <= key_tiles; keys += kKeyTiles) {
      if (round == 0) await_stage(keys);
      if (!has_rows) continue;
      const int place = keys * R::kTileBytes;
      query.template attend<kKeyTiles>(keys * kTile, valid, to_log2, lane.plain + place,
                                       lane.crossed + place, values + lane.plain + place);
    }
#pragma unroll 1
    for (; keys < key_tiles; ++keys) {
      if (round == 0) await_stage(keys);
      if (!has_rows) continue;
      const int place = keys * R::kTileBytes;
      query.template attend<1>(keys * kTile, valid, to_log2, lane.plain + place,
                               lane.crossed + place, values + lane.plain + place);
    }
    store<kWidth>(query.dq, {sizes.scale, sizes.scale}, dq, tile * kTile, sizes.tokens, width);
  }
}

/// One warp's 16 keys and values: their gradients from the queries in shared memory. Scores are transposed here, rows
/// are keys.
template <int kWidth>
struct KeyGradient {
  float dk[Rows<kWidth>::kTiles][4], dv[Rows<kWidth>::kTiles][4];
  uint32_t k[Rows<kWidth>::kSteps][4], v[Rows<kWidth>::kSteps][4];

  __device__ __forceinline__ void load(const Head<const uint16_t>& keys,
                                       const Head<const uint16_t>& values, int first, int valid,
                                       int width) {
    Pieces<kWidth> pieces, others;
    pieces.load(keys, first, valid, width);
    others.load(values, first, valid, width);
    pieces.fragments(k);
    others.fragments(v);
  }

  /// Begins with what save() left, or with zeros where `sums` is null.
  __device__ __forceinline__ void begin(const float* sums) {
#pragma unroll
    for (int c = 0; c < 2 * Rows<kWidth>::kTiles; ++c) {
      auto& quad = c % 2 ? dv[c / 2] : dk[c / 2];
      const float4 kept = sums == nullptr
                              ? make_float4(0, 0, 0, 0)
                              : reinterpret_cast<const float4*>(sums)[c * 32 + threadIdx.x % 32];
      quad[0] = kept.x, quad[1] = kept.y, quad[2] = kept.z, quad[3] = kept.w;
    }
  }
  __device__ __forceinline__ void save(float* sums) const {
#pragma unroll
    for (int c = 0; c < 2 * Rows<kWidth>::kTiles; ++c) {
      const auto& quad = c % 2 ? dv[c / 2] : dk[c / 2];
      reinterpret_cast<float4*>(sums)[c * 32 + threadIdx.x % 32] =
          make_float4(quad[0], quad[1], quad[2], quad[3]);
    }
  }

  /// [warp] Adds what a tile of queries says. `stats` has two floats a query: exponent of its sum, -D;
  /// it begins at this lane's first pair of queries.
  __device__ __forceinline__ void attend(float to_log2, const float4* stats, int q_place,
                                         int q_rows, int dout_place, int dout_rows) {
    float p[2][4] = {}, ds[2][4];
    float4 pair[2];  // of queries 2t, 2t + 1 of either column tile
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      pair[j] = stats[4 * j];
      ds[j][0] = ds[j][2] = pair[j].y;
      ds[j][1] = ds[j][3] = pair[j].w;
    }
    times_transposed<kWidth, 1>(p, k, q_place);
    times_transposed<kWidth, 1>(ds, v, dout_place);
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[j][i] = exp2_approx(fmaf(p[j][i], to_log2, -(i % 2 ? pair[j].z : pair[j].x)));
        ds[j][i] *= p[j][i];
      }
    uint32_t operand[4];
    as_operand(operand, p[0], p[1]);
    times_rows<kWidth>(dv, operand, dout_rows);
    as_operand(operand, ds[0], ds[1]);
    times_rows<kWidth>(dk, operand, q_rows);
  }
};

/// [block] Two floats for every query in shared memory: log2 of its sum of exponentials and -D = -rowsum(dout out);
/// infinity and 0 past the last token, so that probabilities there are 0.
template <int kWidth>
__device__ __forceinline__ void query_stats(const BackwardTask& task, const Sizes& sizes,
                                            int sample, int head, float2* stats) {
  const int lane = threadIdx.x % 32, width = sizes.width, tokens = sizes.tokens;
  const auto out = head_of(task.out, sample, head, width);
  const auto dout = head_of(task.dout, sample, head, width);
  const float* const lse =
      task.lse + (static_cast<int64_t>(sample) * sizes.heads + head) * sizes.tokens;
  const int rows = tiles_of(tokens) * kTile;
#pragma unroll 1
  for (int first = threadIdx.x / 32 * kTile; first < rows; first += blockDim.x / 32 * kTile) {
    Pieces<kWidth> outs, douts;
    outs.load(out, first, tokens, width);
    douts.load(dout, first, tokens, width);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float d = 0;
#pragma unroll
      for (int j = 0; j < Rows<kWidth>::kGroups; ++j)
        d = dot(douts.values[half][j], outs.values[half][j], d);
      d = quad_sum(d);
      const int row = first + 8 * half + lane / 4;
      if (lane % 4 == 0) stats[row] = make_float2(row < tokens ? lse[row] * kLog2E : INFINITY, -d);
    }
  }
}

/// dk and dv of one head of keys: the sum over the query heads that share it, in their order, between which it rests in
/// the workspace.
template <int kWidth>
__device__ __forceinline__ void key_block(const BackwardTask& task, const Sizes& sizes, int sample,
                                          int kv_head) {
  using R = Rows<kWidth>;
  const int width = sizes.width, group = sizes.heads / sizes.kv_heads;
  const int valid = sizes.valid_tokens(sample), tiles = tiles_of(valid);
  const int query_tiles = tiles_of(sizes.tokens);
  const int douts =
      query_tiles * R::kTileBytes;  // their place in shared memory, behind the queries
  auto* const stats = reinterpret_cast<float2*>(dynamic_shared<unsigned char>() + 2 * douts);
  const auto* const pairs = reinterpret_cast<const float4*>(stats) + threadIdx.x % 4;
  const auto k = head_of(task.k, sample, kv_head, width),
             v = head_of(task.v, sample, kv_head, width);
  const auto dk = head_of(task.dk, sample, kv_head, width);
  const auto dv = head_of(task.dv, sample, kv_head, width);
  const float to_log2 = sizes.scale * kLog2E;
  const LanePlaces<kWidth> lane;
  const int warps = blockDim.x / 32;
  for (int member = 0; member < group; ++member) {
    const int head = kv_head * group + member;
    if (member > 0) __syncthreads();  // before the last head's rows are overwritten
    copy_heads<kWidth>(head_of(task.q, sample, head, width), 0,
                       head_of(task.dout, sample, head, width), douts, sizes.tokens, width);
    query_stats<kWidth>(task, sizes, sample, head, stats);
    for (int round = 0; round * warps < tiles; ++round) {
      const int tile = round * warps + threadIdx.x / 32;
      KeyGradient<kWidth> keys;
      keys.load(k, v, tile * kTile, valid, width);
      const bool has_rows = tile < tiles;
      if (!has_rows && round > 0) break;
      float* const sums =
          task.sums +
          (static_cast<int64_t>(sample * sizes.kv_heads + kv_head) * query_tiles + tile) *
              kSumsOfTile<kWidth>;
      keys.begin(member == 0 ? nullptr : sums);
#pragma unroll 1
      for (int queries = 0; queries < query_tiles; ++queries) {
        if (round == 0) await_stage(queries);
        if (!has_rows) continue;
        const int place = queries * R::kTileBytes;
        keys.attend(to_log2, pairs + queries * (kTile / 2), lane.plain + place,
                    lane.crossed + place, douts + lane.plain + place, douts + lane.crossed + place);
      }
      if (!has_rows) continue;
      if (member + 1 < group) {
        keys.save(sums);
        continue;
      }
      store<kWidth>(keys.dk, {sizes.scale, sizes.scale}, dk, tile * kTile, valid, width);
      store<kWidth>(keys.dv, {1, 1}, dv, tile * kTile, valid, width);
    }
  }
  clear_rows(dk, valid, sizes.tokens, width);
  clear_rows(dv, valid, sizes.tokens, width);
}

/// For each head of keys one block for its gradients, then one for each query head that shares it: blocks that read the
/// same rows run at the same time, and the longest begin first.
template <int kWidth>
__global__ void __launch_bounds__(32 * BackwardLimits<kWidth>::kWarps,
                                  BackwardLimits<kWidth>::kBlocks)
    short_attention_backward(BackwardTask task, Sizes sizes) {
  const int group = sizes.heads / sizes.kv_heads;
  const int part = blockIdx.x % (group + 1), pair = blockIdx.x / (group + 1);
  const int kv_head = pair % sizes.kv_heads, sample = pair / sizes.kv_heads;
  if (part == 0)
    key_block<kWidth>(task, sizes, sample, kv_head);
  else
    query_block<kWidth>(task, sizes, sample, kv_head * group + part - 1);
}

}  // namespace

int64_t backward_workspace_values(const AttentionShape& shape) {
  if (shape.heads == shape.kv_heads) return 0;
  const int64_t tiles = shape.samples * shape.kv_heads * tiles_of(static_cast<int>(shape.tokens));
  return tiles * 2 * kTile * built_width(static_cast<int>(shape.head_width));
}

void launch_backward(const AttentionBackward& task, const Sizes& sizes, int samples,
                     float* workspace, void* stream) {
  with_width(sizes.width, [&]<int kWidth>() {
    using Limits = BackwardLimits<kWidth>;
    const int64_t bytes = backward_shared_bytes<kWidth>(sizes.tokens);
    const unsigned warps =
        warps_for(tiles_of(sizes.tokens), Limits::kWarps, Limits::kWarps * Limits::kBlocks, bytes);
    const unsigned blocks = samples * (sizes.heads + sizes.kv_heads);
    launch(short_attention_backward<kWidth>,
           Grid{dim3(blocks), dim3(32 * warps), static_cast<size_t>(bytes), stream},
           BackwardTask{task, workspace}, sizes);
  });
}

}  // namespace vitrail::kernels::short_form
