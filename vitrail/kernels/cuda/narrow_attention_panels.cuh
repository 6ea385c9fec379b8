#pragma once
// The fast form of narrow attention, by products of a warpgroup (wgmma): a warpgroup holds 64 rows and its block streams
// panels of 64 rows of the other side. In a panel an operand lies as products read it (SharedMatrix):
//   rows      contraction over the width: for every 16 values of the width 2048 bytes, a matrix of 16 values x 64 rows
//   columns   contraction over the rows: for every 16 rows one matrix of 16 rows x width (or width + 8)
// Scores want a number added that depends on the row; a further product brings it, whose operands are the row's number
// in three f16 pieces (exact) and ones, so that no instruction is spent on a score before its exponential.

#include "vitrail/kernels/cuda/narrow_attention.cuh"

namespace vitrail::kernels::narrow {

constexpr int kPanel = 64, kGroup = 128;  // rows; threads of a warpgroup
constexpr int kTileColumns = 32;          // streamed rows whose scores a warp holds at once
constexpr int kTilesOfPanel = kPanel / kTileColumns;
constexpr int kStages = 4;

template <int kWidth>
constexpr int kRowsBytes = kWidth / 16 * 2048;  // of a panel's operand by rows
constexpr int kStepBytes = 2048;                // of 16 values of the width
constexpr int kMatrixGroup = 256;               // 8 columns of a matrix
template <int kWidth>
constexpr int kColumnsBytes = kWidth / 8 * kMatrixGroup;  // of 16 rows by columns

/// k by rows, v by columns with a column of ones.
template <int kWidth>
struct ForwardPanel {
  static constexpr int kV = kRowsBytes<kWidth>, kVMatrix = kColumnsBytes<kWidth> + kMatrixGroup;
  static constexpr int kBytes = kV + 4 * kVMatrix, kStagePanels = 4;
};
/// k and v by rows, k by columns.
template <int kWidth>
struct QueryPanel {
  static constexpr int kV = kRowsBytes<kWidth>, kColumns = 2 * kV;
  static constexpr int kBytes = kColumns + 4 * kColumnsBytes<kWidth>, kStagePanels = 4;
};
/// q and dout by rows, each with its rows' numbers; dout and q by columns.
template <int kWidth>
struct KeyPanel {
  static constexpr int kDout = kRowsBytes<kWidth> + kStepBytes, kColumns = 2 * kDout;
  static constexpr int kBytes = kColumns + 8 * kColumnsBytes<kWidth>;
  static constexpr int kStagePanels = kWidth == 16 ? 4 : 2;
};

template <class Panel>
constexpr int kStageBytes = Panel::kBytes* Panel::kStagePanels;
template <class Panel>
constexpr int64_t stages_of(int64_t tokens) {
  constexpr int64_t rows = kPanel * Panel::kStagePanels;
  return (tokens + rows - 1) / rows;
}

/// One and zero for the rows' numbers, in front of the stages.
constexpr int kOnesBytes = 256;
__device__ __forceinline__ void write_ones(unsigned char* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kOnesBytes / 4; i += static_cast<int>(blockDim.x))
    reinterpret_cast<uint32_t*>(shared)[i] = i < kOnesBytes / 8 ? 0x3C003C00u : 0u;
}

/// Stages of a stream on their way through shared memory, kStages at a time. A warp releases a stage when none of its
/// products reads it any more; one stage later the first thread fills its place again, seldom having to wait.
template <class Panel>
struct Ring {
  static constexpr int kBytes = kStageBytes<Panel>;

  uint64_t *full, *empty;  // kStages each, shared
  const unsigned char* from;
  unsigned char* shared;
  int stages;

  /// By all threads; a __syncthreads must follow, then start().
  __device__ __forceinline__ void prepare() const {
    if (threadIdx.x == 0)
      for (int i = 0; i < kStages; ++i) {
        phase_init(full + i, 1);
        phase_init(empty + i, static_cast<int>(blockDim.x) / 32);
      }
    phase_publish();
  }
  __device__ __forceinline__ void fill(int stage) const {
    const int place = stage % kStages;
    bulk_copy(shared + place * kBytes, from + static_cast<int64_t>(stage) * kBytes, kBytes,
              full + place);
  }
  __device__ __forceinline__ void start() const {
    if (threadIdx.x != 0) return;
    for (int stage = 0; stage < kStages && stage < stages; ++stage) fill(stage);
  }
  __device__ __forceinline__ void wait(int stage) const {
    phase_wait(full + stage % kStages, stage / kStages & 1);
  }
  /// Of `stage`; fills the place of the one before.
  __device__ __forceinline__ void release(int stage) const {
    if (threadIdx.x % 32 == 0) phase_arrive(empty + stage % kStages);
    const int before = stage - 1;
    if (before >= 0 && before + kStages < stages && threadIdx.x == 0) {
      phase_wait(empty + before % kStages, before / kStages & 1);
      fill(before + kStages);
    }
    __syncwarp();
  }
};

/// Runs a pass over all stages: while a warpgroup's products run, those of the block's others compute exponentials. A
/// pass has
///   kBuffers                           2: the next tile's scores are begun before this one's exponentials, into sums of
///                                      their own, so that a warp waits less; 1: after them, which spares registers for
///                                      one more warpgroup
///   begin_scores(tile by rows, buffer), weigh(buffer), add(panel, tile of the panel): products are begun, not awaited
///   pin_scores(buffer), pin_sums(), pin_weights(): wgmma_pin of what begin_scores, add and weigh write
template <class Panel, class Pass>
__device__ __forceinline__ void run_pass(const Ring<Panel>& ring, Pass& pass) {
  constexpr int kTiles = Panel::kStagePanels * kTilesOfPanel, kBuffers = Pass::kBuffers;
  constexpr int kTileBytes = kTileColumns / 8 * kMatrixGroup;
  static_assert(kTiles % kBuffers == 0);
  const SharedMatrix first = shared_matrix(ring.shared, kMatrixGroup);
  const auto finish = [&](int buffer) {
    wgmma_wait();
    pass.pin_scores(buffer);
    pass.pin_sums();
  };
  ring.wait(0);
#pragma unroll
  for (int buffer = 0; buffer < kBuffers; ++buffer) pass.pin_scores(buffer);
  pass.pin_sums();
  wgmma_fence();
  pass.begin_scores(first, 0);
  wgmma_commit();
  if (kBuffers == 2) finish(0);
#pragma unroll 1
  for (int stage = 0; stage < ring.stages; ++stage) {
    const SharedMatrix now = first.at(stage % kStages * Ring<Panel>::kBytes);
    const SharedMatrix after = first.at((stage + 1) % kStages * Ring<Panel>::kBytes);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int buffer = i % kBuffers, other = (i + 1) % kBuffers;
      const bool is_last = i == kTiles - 1 && stage + 1 < ring.stages;
      // After the last tile of all these scores are of nothing and nobody reads them.
      const SharedMatrix next = i + 1 < kTiles ? now.at((i + 1) / kTilesOfPanel * Panel::kBytes +
                                                        (i + 1) % kTilesOfPanel * kTileBytes)
                                               : after;
      if (kBuffers == 1) finish(0);
      if (i == 0 && stage > 0) ring.release(stage - 1);
      if (kBuffers == 2) {
        if (is_last) ring.wait(stage + 1);
        pass.pin_scores(other);
        wgmma_fence();
        pass.begin_scores(next, other);
        wgmma_commit();
      }
      pass.weigh(buffer);
      if (kBuffers == 1 && is_last) ring.wait(stage + 1);
      pass.pin_weights();
      if (kBuffers == 1) pass.pin_scores(0);
      pass.pin_sums();
      wgmma_fence();
      if (kBuffers == 1) pass.begin_scores(next, 0);
      pass.add(now.at(i / kTilesOfPanel * Panel::kBytes), i % kTilesOfPanel);
      wgmma_commit();
      if (kBuffers == 2) finish(other);
    }
  }
  if (kBuffers == 1) finish(0);
}

/// Row `first` + lane's row of a warp's 16 of a warpgroup's 64.
template <int kGroups>
__device__ __forceinline__ int first_row_of_warp() {
  return (static_cast<int>(blockIdx.x) * kGroups * 4 + static_cast<int>(threadIdx.x) / 32) * 16;
}

/// A number as a sum of three f16 values: exactly, unless its last bits lie below 2^-24.
struct Pieces {
  float a, b, c;
};
__device__ __forceinline__ float as_f16(float x) { return low_f16(pack_f16(x, 0.0f)); }
__device__ __forceinline__ Pieces pieces_of(float x) {
  Pieces p;
  p.a = as_f16(x);
  p.b = as_f16(x - p.a);
  p.c = as_f16(x - p.a - p.b);
  return p;
}
/// Columns 2 t and 2 t + 1 of the first eight of a row's numbers.
__device__ __forceinline__ uint32_t lane_pair(float c0, float c1, float c2, float c3, float c4 = 0,
                                              float c5 = 0) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  return t == 0 ? pack_f16(c0, c1) : t == 1 ? pack_f16(c2, c3) : t == 2 ? pack_f16(c4, c5) : 0u;
}
/// What a score's argument begins from, apart from its row's number: for exp2_polynomial (rows g) 8192 and this, for ex2
/// (rows g + 8) this, so that probabilities come out times 2^15.
__device__ __forceinline__ float base_of(int half) { return half == 0 ? 8192.0f : 0.0f; }
__device__ __forceinline__ float offset_of(int half) {
  return half == 0 ? kPolynomial - 8192.0f : 15.0f;
}

/// Words of the probabilities of 64 x 32 scores: an operand of 64 x 16 for each 16 of them.
template <bool kFar>
__device__ __forceinline__ void exponentials(const float (&x)[kTileColumns / 2],
                                             uint32_t (&p)[kTileColumns / 16][4]) {
#pragma unroll
  for (int j = 0; j < kTileColumns / 8; ++j) {
    p[j / 2][j % 2 * 2] = exp2_polynomial<kFar>(x[4 * j], x[4 * j + 1]);
    p[j / 2][j % 2 * 2 + 1] = pack_f16(exp2_approx(x[4 * j + 2]), exp2_approx(x[4 * j + 3]));
  }
}
/// Words of ds = p (dp - D), D taken off before.
__device__ __forceinline__ void weigh_gradients(const float (&dp)[kTileColumns / 2],
                                                const uint32_t (&p)[kTileColumns / 16][4],
                                                uint32_t (&ds)[kTileColumns / 16][4]) {
#pragma unroll
  for (int j = 0; j < kTileColumns / 8; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      ds[j / 2][j % 2 * 2 + half] = mul_f16x2(
          p[j / 2][j % 2 * 2 + half], pack_f16(dp[4 * j + 2 * half], dp[4 * j + 2 * half + 1]));
}

/// The same, `minus_d` of rows g and g + 8 added here, in f16.
__device__ __forceinline__ void weigh_gradients(const float (&dp)[kTileColumns / 2],
                                                const uint32_t (&p)[kTileColumns / 16][4],
                                                const uint32_t (&minus_d)[2],
                                                uint32_t (&ds)[kTileColumns / 16][4]) {
#pragma unroll
  for (int j = 0; j < kTileColumns / 8; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t pair = pack_f16(dp[4 * j + 2 * half], dp[4 * j + 2 * half + 1]);
      ds[j / 2][j % 2 * 2 + half] =
          mul_f16x2(p[j / 2][j % 2 * 2 + half], add_f16x2(pair, minus_d[half]));
    }
}

/// x (+)= rows of this warpgroup times a tile by rows.
template <int kSteps>
__device__ __forceinline__ void begin_rows(float (&x)[kTileColumns / 2],
                                           const uint32_t (&rows)[kSteps][4],
                                           const SharedMatrix& tile) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
    wgmma_f16(x, rows[step], tile.at(step * kStepBytes), step > 0);
}
/// sums += weights times 32 rows by columns.
template <int kMatrixBytes, int kCount>
__device__ __forceinline__ void add_columns(float (&sums)[kCount],
                                            const uint32_t (&weights)[kTileColumns / 16][4],
                                            const SharedMatrix& columns) {
#pragma unroll
  for (int step = 0; step < kTileColumns / 16; ++step)
    wgmma_f16(sums, weights[step], columns.at(step * kMatrixBytes), true);
}

/// Two rows of outputs, those of a warp's fragments, as bf16.
template <int kWidth, int kCount>
__device__ __forceinline__ void store_sums(const Head<uint16_t>& head, int first, int tokens,
                                           const float (&sums)[kCount], const float (&factors)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + g + half * 8;
    if (row >= tokens) continue;
#pragma unroll
    for (int d = 0; d < kWidth / 8; ++d)
      *reinterpret_cast<uint32_t*>(head.row(row) + d * 8 + 2 * t) = pack_bf16(
          sums[4 * d + 2 * half] * factors[half], sums[4 * d + 2 * half + 1] * factors[half]);
  }
}

// Packing (narrow_attention_fast_pack.cu); `rows` are RowFacts of all problems.
void pack_forward_panels(const Sizes& sizes, int width, const AttentionForward& task,
                         const Workspace& workspace, void* stream);
void pack_query_panels(const Sizes& sizes, int width, const AttentionBackward& task,
                       const Workspace& workspace, void* stream);
void pack_key_panels(const Sizes& sizes, int width, const AttentionBackward& task,
                     const Workspace& workspace, void* stream);

}  // namespace vitrail::kernels::narrow
