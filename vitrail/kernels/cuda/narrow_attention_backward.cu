// The general form of narrow attention, backward: as the fast one (narrow_attention_fast_backward.cu), with exact bf16
// products and any logits.
//
//   p = 2^(x - lse);   dp = dout v^T;   ds = p (dp - D), D = out . dout;   dq = scale ds k, dk = scale ds^T q, dv = p^T dout

#include "vitrail/kernels/cuda/narrow_attention_tiles.cuh"

namespace vitrail::kernels::narrow {
namespace {

__device__ constexpr float kZeros[4] = {};

/// Words of p and of ds, of rows g and g + 8 of 8 columns. `x` holds q k, and `minus_lse` what to add to its multiple.
__device__ __forceinline__ void weigh(float (&x)[4], const float (&minus_lse)[4], float score,
                                      const float (&dp)[4], uint32_t& p_low, uint32_t& p_high,
                                      uint32_t& ds_low, uint32_t& ds_high) {
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = exp2_approx(fmaf(x[j], score, minus_lse[j]));
  p_low = pack_bf16(x[0], x[1]);
  p_high = pack_bf16(x[2], x[3]);
  ds_low = pack_bf16(x[0] * dp[0], x[1] * dp[1]);
  ds_high = pack_bf16(x[2] * dp[2], x[3] * dp[3]);
}

/// The product of a warp's 16 rows and the 16 of a tile, both by rows: columns 0-7 and 8-15, from where they begin.
template <int kSteps>
__device__ __forceinline__ void multiply(float (&low)[4], float (&high)[4],
                                         const uint32_t (&rows)[kSteps][4],
                                         const uint4 (&tile)[kSteps], const float (&from_low)[4],
                                         const float (&from_high)[4]) {
  mma_bf16(low, rows[0], tile[0].x, tile[0].y, from_low);
  mma_bf16(high, rows[0], tile[0].z, tile[0].w, from_high);
#pragma unroll
  for (int step = 1; step < kSteps; ++step) {
    mma_bf16(low, rows[step], tile[step].x, tile[step].y, low);
    mma_bf16(high, rows[step], tile[step].z, tile[step].w, high);
  }
}

/// sums += weights [16 x 16] tile, the tile by columns.
template <int kSteps>
__device__ __forceinline__ void add_product(float (&sums)[2 * kSteps][4],
                                            const uint32_t (&weights)[4],
                                            const uint4 (&tile)[kSteps]) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    mma_bf16(sums[2 * step], weights, tile[step].x, tile[step].y, sums[2 * step]);
    mma_bf16(sums[2 * step + 1], weights, tile[step].z, tile[step].w, sums[2 * step + 1]);
  }
}

template <int kSteps>
__device__ __forceinline__ void load_section(uint4 (&words)[kSteps], const unsigned char* section) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) words[step] = lane_words(section, step);
}

// ---- over queries: dq ----

template <int kWidth>
struct Queries {
  uint32_t q[kWidth / 16][4], dout[kWidth / 16][4];
  float start[4];  // -lse
  float minus_d[4];
  float dq[kWidth / 8][4] = {};
};

template <int kWidth>
__device__ __forceinline__ void begin(Queries<kWidth>& rows, const Head<const uint16_t>& q,
                                      const Head<const uint16_t>& dout, const RowFacts* facts,
                                      int first, int tokens) {
  const auto as_it_is = [](int) { return 1.0f; };
  load_rows<kWidth, false>(rows.q, q, first, tokens, as_it_is);
  load_rows<kWidth, false>(rows.dout, dout, first, tokens, as_it_is);
  const int g = static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + g + half * 8;
    const float start = row < tokens ? -facts[row].lse : kNever;
    const float minus_d = row < tokens ? facts[row].minus_d : 0.0f;
    rows.start[2 * half] = rows.start[2 * half + 1] = start;
    rows.minus_d[2 * half] = rows.minus_d[2 * half + 1] = minus_d;
  }
}

template <int kWidth>
__device__ __forceinline__ void attend_keys(Queries<kWidth> (&rows)[kRowTiles],
                                            const unsigned char* tile, int present, float score) {
  constexpr int kSteps = kWidth / 16;
  const int t = static_cast<int>(threadIdx.x) % 4;
  uint4 k[kSteps], v[kSteps], k_columns[kSteps];
  load_section(k, tile);
  load_section(v, tile + kSection<kWidth>);
  load_section(k_columns, tile + 2 * kSection<kWidth>);
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    Queries<kWidth>& mine = rows[m];
    float x_low[4], x_high[4], dp_low[4], dp_high[4];
    multiply<kSteps>(x_low, x_high, mine.q, k, kZeros, kZeros);
    multiply<kSteps>(dp_low, dp_high, mine.dout, v, mine.minus_d, mine.minus_d);
    if (present < kTile)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (2 * t + j % 2 >= present) x_low[j] = kNever;
        if (2 * t + j % 2 + 8 >= present) x_high[j] = kNever;
      }
    uint32_t p[4], ds[4];
    weigh(x_low, mine.start, score, dp_low, p[0], p[1], ds[0], ds[1]);
    weigh(x_high, mine.start, score, dp_high, p[2], p[3], ds[2], ds[3]);
    add_product<kSteps>(mine.dq, ds, k_columns);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, kWidth == 16 ? 4 : 3)
    query_kernel(Sizes sizes, HeadRows<const uint16_t> q, HeadRows<const uint16_t> dout,
                 const Bounds* bounds, const RowFacts* all_rows, const unsigned char* packed,
                 int tiles_padded, HeadRows<uint16_t> dq) {
  if (backward_form(scales_of(bounds[blockIdx.y], sizes.scale).bound) == Form::fast) return;
  using Keys = QueryStream<kWidth>;
  const Keys keys{packed + static_cast<int64_t>(blockIdx.y) * tiles_padded * (3 * kSection<kWidth>),
                  dynamic_shared<unsigned char>()};
  const RowFacts* const facts = all_rows + static_cast<int64_t>(blockIdx.y) * sizes.tokens;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.x) * kBlockRows + warp * kRowTiles * kTile;
  const float score = sizes.scale * kLog2E;

  Queries<kWidth> rows[kRowTiles];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
    begin<kWidth>(rows[m], head_of(q, sizes, kWidth), head_of(dout, sizes, kWidth), facts,
                  first + m * kTile, sizes.tokens);

  keys.each((sizes.tokens + kTile - 1) / kTile, [&](const unsigned char* tile, int index) {
    attend_keys<kWidth>(rows, tile, sizes.tokens - index * kTile, score);
  });

#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    store_rows<kWidth>(head_of(dq, sizes, kWidth), first + m * kTile, sizes.tokens, rows[m].dq,
                       {sizes.scale, sizes.scale});
  }
}

// ---- over keys: dk, dv ----

template <int kWidth>
struct Keys {
  uint32_t k[kWidth / 16][4], v[kWidth / 16][4];
  float dk[kWidth / 8][4] = {}, dv[kWidth / 8][4] = {};
};

/// Four floats that the lanes of one t share.
__device__ __forceinline__ void load_start(float (&start)[4], const unsigned char* at) {
  const auto words = *reinterpret_cast<const float4*>(at + threadIdx.x % 4 * 16);
  start[0] = words.x, start[1] = words.y, start[2] = words.z, start[3] = words.w;
}

template <int kWidth>
__device__ __forceinline__ void attend_queries(Keys<kWidth> (&rows)[kRowTiles],
                                               const unsigned char* tile, float score) {
  constexpr int kSteps = kWidth / 16;
  uint4 q[kSteps], dout[kSteps], dout_columns[kSteps], q_columns[kSteps];
  load_section(q, tile);
  load_section(dout, tile + kSection<kWidth>);
  load_section(dout_columns, tile + 2 * kSection<kWidth>);
  load_section(q_columns, tile + 3 * kSection<kWidth>);
  const unsigned char* const starts = tile + 4 * kSection<kWidth>;
  float low[4], high[4], minus_d_low[4], minus_d_high[4];
  load_start(low, starts);
  load_start(high, starts + 64);
  load_start(minus_d_low, starts + 128);
  load_start(minus_d_high, starts + 192);
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    Keys<kWidth>& mine = rows[m];
    float x_low[4], x_high[4], dp_low[4], dp_high[4];
    multiply<kSteps>(x_low, x_high, mine.k, q, kZeros, kZeros);
    multiply<kSteps>(dp_low, dp_high, mine.v, dout, minus_d_low, minus_d_high);
    uint32_t p[4], ds[4];
    weigh(x_low, low, score, dp_low, p[0], p[1], ds[0], ds[1]);
    weigh(x_high, high, score, dp_high, p[2], p[3], ds[2], ds[3]);
    add_product<kSteps>(mine.dv, p, dout_columns);
    add_product<kSteps>(mine.dk, ds, q_columns);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, kWidth == 16 ? 4 : 3)
    key_kernel(Sizes sizes, HeadRows<const uint16_t> k, HeadRows<const uint16_t> v,
               const Bounds* bounds, const unsigned char* packed, int tiles_padded,
               HeadRows<uint16_t> dk, HeadRows<uint16_t> dv) {
  if (backward_form(scales_of(bounds[blockIdx.y], sizes.scale).bound) == Form::fast) return;
  using Queries = KeyStream<kWidth>;
  const Queries queries{
      packed + static_cast<int64_t>(blockIdx.y) * tiles_padded * (4 * kSection<kWidth> + 256),
      dynamic_shared<unsigned char>()};
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.x) * kBlockRows + warp * kRowTiles * kTile;
  const float score = sizes.scale * kLog2E;

  Keys<kWidth> rows[kRowTiles];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const auto as_it_is = [](int) { return 1.0f; };
    load_rows<kWidth, false>(rows[m].k, head_of(k, sizes, kWidth), first + m * kTile, sizes.tokens,
                             as_it_is);
    load_rows<kWidth, false>(rows[m].v, head_of(v, sizes, kWidth), first + m * kTile, sizes.tokens,
                             as_it_is);
  }

  queries.each((sizes.tokens + kTile - 1) / kTile,
               [&](const unsigned char* tile, int) { attend_queries<kWidth>(rows, tile, score); });

#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    store_rows<kWidth>(head_of(dk, sizes, kWidth), first + m * kTile, sizes.tokens, rows[m].dk,
                       {sizes.scale, sizes.scale});
    store_rows<kWidth>(head_of(dv, sizes, kWidth), first + m * kTile, sizes.tokens, rows[m].dv,
                       {1.0f, 1.0f});
  }
}

Grid grid_for(const Sizes& sizes, size_t shared_bytes, void* stream) {
  return grid_of(sizes, sizes.tokens, kBlockRows, kThreads, shared_bytes, stream);
}

template <int kWidth>
void over_queries(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
                  void* stream) {
  launch(query_kernel<kWidth>, grid_for(sizes, QueryStream<kWidth>::kSharedBytes, stream), sizes,
         task.q, task.dout, workspace.bounds, workspace.rows, workspace.stream,
         static_cast<int>(padded_tiles(sizes.tokens, 256 / kWidth)), task.dq);
}

template <int kWidth>
void over_keys(const Sizes& sizes, const AttentionBackward& task, const Workspace& workspace,
               void* stream) {
  launch(key_kernel<kWidth>, grid_for(sizes, KeyStream<kWidth>::kSharedBytes, stream), sizes,
         task.k, task.v, workspace.bounds, workspace.stream,
         static_cast<int>(padded_tiles(sizes.tokens, 128 / kWidth)), task.dk, task.dv);
}

}  // namespace

void general_backward(const Sizes& sizes, int width, const AttentionBackward& task,
                      const Workspace& workspace, void* stream) {
  pack_query_tiles(sizes, width, task, workspace, stream);
  (width == 16 ? over_queries<16> : over_queries<32>)(sizes, task, workspace, stream);
  pack_key_tiles(sizes, width, task, workspace, stream);
  (width == 16 ? over_keys<16> : over_keys<32>)(sizes, task, workspace, stream);
}

}  // namespace vitrail::kernels::narrow
