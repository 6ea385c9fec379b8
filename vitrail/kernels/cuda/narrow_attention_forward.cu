// The general forms of narrow attention, forward: a warp holds 32 queries, the block streams through all keys.

#include "vitrail/kernels/cuda/narrow_attention_tiles.cuh"

namespace vitrail::kernels::narrow {
namespace {

/// Sixteen queries of a warp.
template <int kWidth>
struct Queries {
  uint32_t q[kWidth / 16][4];
  float start[4];  // what the products of scores begin from: minus the bound, or 0
  float top[2];    // of rows g, g + 8: the bound or the running maximum that scores are taken from
  float out[kWidth / 8][4] = {};
  float sum[4] =
      {};  // of rounded probabilities, the same in both columns: what `out` is divided by
  // Of exact ones, this lane's columns. A row in which one key has nearly all takes its rounding (2^-8 at most) into
  // the sum above, where it cancels; in lse it would stay.
  float exact_sum[2] = {};
};

template <int kWidth, Form kForm>
__device__ __forceinline__ void begin(Queries<kWidth>& rows, const Head<const uint16_t>& q,
                                      int first, int tokens, const Scales& scales,
                                      float largest_k) {
  if constexpr (kForm == Form::online) {
    load_rows<kWidth, false>(rows.q, q, first, tokens, [](int) { return 1.0f; });
    rows.top[0] = rows.top[1] = -INFINITY;
#pragma unroll
    for (int j = 0; j < 4; ++j) rows.start[j] = 0.0f;
  } else {
    load_rows<kWidth, true>(rows.q, q, first, tokens, [&](int) { return scales.score; });
    float norms[2];
    square_norms(rows.q, norms);
#pragma unroll
    for (int half = 0; half < 2;
         ++half)  // a little more than the bound, for the rounding of both operands
      rows.top[half] = ceilf(sqrtf(norms[half]) * largest_k * 1.002f * 64.0f) / 64.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      rows.start[j] = -rows.top[j / 2];
    }
  }
}

/// Raises the running maxima where a score is more than 2^8 above them, and rescales what was summed below them.
template <int kWidth>
__device__ __forceinline__ void raise_tops(Queries<kWidth>& rows, const float (&low)[4],
                                           const float (&high)[4], float score) {
  constexpr float kSlack = 8.0f;
  float most[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    most[half] = score * fmaxf(fmaxf(low[2 * half], low[2 * half + 1]),
                               fmaxf(high[2 * half], high[2 * half + 1]));
  if (!__any_sync(0xFFFFFFFFu, most[0] > rows.top[0] + kSlack || most[1] > rows.top[1] + kSlack))
    return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    most[half] = fmaxf(most[half], __shfl_xor_sync(0xFFFFFFFFu, most[half], 1));
    most[half] = fmaxf(most[half], __shfl_xor_sync(0xFFFFFFFFu, most[half], 2));
    const float top = fmaxf(most[half], rows.top[half]), by = exp2_approx(rows.top[half] - top);
    rows.top[half] = top;
#pragma unroll
    for (int d = 0; d < kWidth / 8; ++d) {
      rows.out[d][2 * half] *= by;
      rows.out[d][2 * half + 1] *= by;
    }
    rows.sum[2 * half] *= by;
    rows.sum[2 * half + 1] *= by;
    rows.exact_sum[half] *= by;
  }
}

/// Scores of 16 queries and 8 keys to words of probabilities, of rows g and g + 8.
template <Form kForm>
__device__ __forceinline__ void probabilities(const float (&x)[4], const float (&top)[2],
                                              float score, float (&sums)[2], uint32_t& low,
                                              uint32_t& high) {
  float p[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    p[j] = exp2_approx(kForm == Form::bounded ? x[j] : fmaf(x[j], score, -top[j / 2]));
    sums[j / 2] += p[j];
  }
  low = pack_bf16(p[0], p[1]);
  high = pack_bf16(p[2], p[3]);
}

/// One tile of keys: `present` keys of it are there.
template <int kWidth, Form kForm>
__device__ __forceinline__ void attend(Queries<kWidth> (&rows)[kRowTiles],
                                       const unsigned char* tile, int present, float score) {
  constexpr int kSteps = kWidth / 16;
  constexpr bool kScoresF16 = kForm == Form::bounded;
  constexpr uint32_t kOnes = 0x3F803F80u;
  const int t = static_cast<int>(threadIdx.x) % 4;
  uint4 k[kSteps], v[kSteps];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    k[step] = lane_words(tile, step);
    v[step] = lane_words(tile + kSection<kWidth>, step);
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    Queries<kWidth>& mine = rows[m];
    float low[4], high[4];  // keys 0-7 and 8-15
    mma<kScoresF16>(low, mine.q[0], k[0].x, k[0].y, mine.start);
    mma<kScoresF16>(high, mine.q[0], k[0].z, k[0].w, mine.start);
#pragma unroll
    for (int step = 1; step < kSteps; ++step) {
      mma<kScoresF16>(low, mine.q[step], k[step].x, k[step].y, low);
      mma<kScoresF16>(high, mine.q[step], k[step].z, k[step].w, high);
    }
    if (present < kTile)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (2 * t + j % 2 >= present) low[j] = -INFINITY;
        if (2 * t + j % 2 + 8 >= present) high[j] = -INFINITY;
      }
    if constexpr (kForm == Form::online) raise_tops(mine, low, high, score);
    uint32_t p[4];
    probabilities<kForm>(low, mine.top, score, mine.exact_sum, p[0], p[1]);
    probabilities<kForm>(high, mine.top, score, mine.exact_sum, p[2], p[3]);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      mma_bf16(mine.out[2 * step], p, v[step].x, v[step].y, mine.out[2 * step]);
      mma_bf16(mine.out[2 * step + 1], p, v[step].z, v[step].w, mine.out[2 * step + 1]);
    }
    mma_bf16(mine.sum, p, kOnes, kOnes, mine.sum);  // a column of ones
  }
}

template <int kWidth, Form kForm>
constexpr int kBlocksAtOnce = kWidth == 16 && kForm == Form::online ? 5 : 4;

template <int kWidth, Form kForm>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<kWidth, kForm>)
    forward_kernel(Sizes sizes, HeadRows<const uint16_t> q, const Bounds* bounds,
                   const unsigned char* packed, int tiles_padded, HeadRows<uint16_t> out,
                   float* lse) {
  const Scales scales = scales_of(bounds[blockIdx.y], sizes.scale);
  if (forward_form(scales.bound, bounds[blockIdx.y]) != kForm)
    return;  // another launch does this problem
  using Keys = ForwardStream<kWidth>;
  const Keys keys{packed + static_cast<int64_t>(blockIdx.y) * tiles_padded * (2 * kSection<kWidth>),
                  dynamic_shared<unsigned char>()};
  const int warp = static_cast<int>(threadIdx.x) / 32, g = static_cast<int>(threadIdx.x) % 32 / 4;
  const int first = static_cast<int>(blockIdx.x) * kBlockRows + warp * kRowTiles * kTile;
  const float largest_k = __int_as_float(bounds[blockIdx.y].k) * scales.k;
  const float score = sizes.scale * kLog2E;

  Queries<kWidth> rows[kRowTiles];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
    begin<kWidth, kForm>(rows[m], head_of(q, sizes, kWidth), first + m * kTile, sizes.tokens,
                         scales, largest_k);

  keys.each((sizes.tokens + kTile - 1) / kTile, [&](const unsigned char* tile, int index) {
    attend<kWidth, kForm>(rows, tile, sizes.tokens - index * kTile, score);
  });

#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const Queries<kWidth>& mine = rows[m];
    store_rows<kWidth>(head_of(out, sizes, kWidth), first + m * kTile, sizes.tokens, mine.out,
                       {1.0f / mine.sum[0], 1.0f / mine.sum[2]});
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = mine.exact_sum[half];
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
      const int row = first + m * kTile + g + half * 8;
      if (threadIdx.x % 4 == 0 && row < sizes.tokens)
        lse[static_cast<int64_t>(blockIdx.y) * sizes.tokens + row] =
            (mine.top[half] + log2f(sum)) * kLn2;
    }
  }
}

template <int kWidth>
void run(const Sizes& sizes, const AttentionForward& task, const Workspace& workspace,
         void* stream) {
  const Grid grid = grid_of(sizes, sizes.tokens, kBlockRows, kThreads,
                            ForwardStream<kWidth>::kSharedBytes, stream);
  const int tiles = static_cast<int>(padded_tiles(sizes.tokens, 256 / kWidth));
  // Each problem runs in one of the two or neither; others leave at once.
  for (const auto kernel :
       {forward_kernel<kWidth, Form::bounded>, forward_kernel<kWidth, Form::online>})
    launch(kernel, grid, sizes, task.q, workspace.bounds, workspace.stream, tiles, task.out,
           task.lse);
}

}  // namespace

void general_forward(const Sizes& sizes, int width, const AttentionForward& task,
                     const Workspace& workspace, void* stream) {
  pack_forward_tiles(sizes, width, task, workspace, stream);
  (width == 16 ? run<16> : run<32>)(sizes, task, workspace, stream);
}

}  // namespace vitrail::kernels::narrow
