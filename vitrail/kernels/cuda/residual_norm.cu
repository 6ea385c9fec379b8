#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/fp8_rows.cuh"
#include "vitrail/kernels/residual_norm.h"

namespace vitrail::kernels {
namespace {

__host__ __device__ constexpr int rows_at_once(Team team) { return 4 / packs_of(team); }
// Several waves of blocks: nothing is kept from row to row but the parameters.
constexpr int kResidentThreads = 2 * 1024;

/// Both fit in 32 bits, in which a division is cheap.
__device__ __forceinline__ float keep_of(const ResidualNorm& task, int64_t row) {
  if (task.branch.keep == nullptr) return 1.0f;
  return task.branch.keep[static_cast<uint32_t>(row) / static_cast<uint32_t>(task.shape.tokens)];
}

/// x becomes its sum with the branch as memory holds it.
template <Team kTeam, int kRows>
__device__ __forceinline__ void add_branch_rows(const RowPlace<kTeam>& place,
                                                const ResidualNorm& task,
                                                const Pack (&gamma)[packs_of(kTeam)], int64_t first,
                                                Pack (&x)[kRows][packs_of(kTeam)]) {
  const int64_t rows = task.shape.rows(), width = task.shape.width;
  Pack branch[kRows][packs_of(kTeam)];
  load_rows(place, task.branch.values, first, rows, width, branch);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= rows) continue;
    const float keep = keep_of(task, first + r);
#pragma unroll
    for (int p = 0; p < place.kPacks; ++p) {
      float sum[kPack], added[kPack], scale[kPack];
      unpack(x[r][p], sum);
      unpack(branch[r][p], added);
      unpack(gamma[p], scale);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum[i] += keep * scale[i] * added[i];
      x[r][p] = packed(sum);
      if (place.has(p)) store_pack(task.sum + (first + r) * width + place.column(p), x[r][p]);
    }
  }
}

/// What is normed: the sum of x and the branch, or x alone.
template <bool kAdds, Team kTeam, int kRows>
__device__ __forceinline__ void add_rows(const RowPlace<kTeam>& place, const ResidualNorm& task,
                                         const Pack (&gamma)[packs_of(kTeam)], int64_t first,
                                         Pack (&x)[kRows][packs_of(kTeam)]) {
  const int64_t rows = task.shape.rows(), width = task.shape.width;
  load_rows(place, task.x, first, rows, width, x);
  if constexpr (kAdds) add_branch_rows(place, task, gamma, first, x);
}

/// The means of kRows rows; 0 for RMSNorm.
template <bool kRms, Team kTeam, int kRows>
__device__ __forceinline__ void means_of(const Pack (&x)[kRows][packs_of(kTeam)], float share,
                                         float* shared, float (&means)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) means[r] = 0;
  if constexpr (!kRms) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int p = 0; p < packs_of(kTeam); ++p) {
        float values[kPack];
        unpack(x[r][p], values);
#pragma unroll
        for (int i = 0; i < kPack; ++i) means[r] += values[i];
      }
    team_sums<kTeam>(means, shared);
#pragma unroll
    for (int r = 0; r < kRows; ++r) means[r] *= share;
  }
}

/// 1 / sqrt(mean of (x - mean)^2 + eps) of kRows rows, from values in registers: no cancellation.
template <Team kTeam, int kRows>
__device__ __forceinline__ void rstds_of(const RowPlace<kTeam>& place,
                                         const Pack (&x)[kRows][packs_of(kTeam)],
                                         const float (&means)[kRows], float share, float eps,
                                         float* shared, float (&rstds)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rstds[r] = 0;
#pragma unroll
    for (int p = 0; p < packs_of(kTeam); ++p) {
      if (!place.has(p)) continue;
      float values[kPack];
      unpack(x[r][p], values);
#pragma unroll
      for (int i = 0; i < kPack; ++i) rstds[r] += (values[i] - means[r]) * (values[i] - means[r]);
    }
  }
  team_sums<kTeam>(rstds, shared);
#pragma unroll
  for (int r = 0; r < kRows; ++r) rstds[r] = rsqrtf(rstds[r] * share + eps);
}

/// The team's first threads write a row's each.
template <int kRows>
__device__ __forceinline__ void store_statistics(const ResidualNorm& task, int thread,
                                                 int64_t first, const float (&means)[kRows],
                                                 const float (&rstds)[kRows]) {
  if (thread >= kRows || first + thread >= task.shape.rows()) return;
  float mean = means[0], rstd = rstds[0];
#pragma unroll
  for (int r = 1; r < kRows; ++r) {
    mean = thread == r ? means[r] : mean;
    rstd = thread == r ? rstds[r] : rstd;
  }
  if (task.mean) task.mean[first + thread] = mean;
  if (task.rstd) task.rstd[first + thread] = rstd;
}

template <Team kTeam, bool kRms, bool kAdds, bool kCodes>
__global__ void __launch_bounds__(most_threads(kTeam)) norm_rows(ResidualNorm task) {
  constexpr int kRows = rows_at_once(kTeam), kPacks = packs_of(kTeam);
  // The third is for codes: the sums' barriers lie between its uses.
  __align__(16) __shared__ float shared[kCodes ? 3 : 2][kNormWarps * kRows];
  const int64_t rows = task.shape.rows(), width = task.shape.width;
  const RowPlace<kTeam> place(width);
  Pack weight[kPacks], bias[kPacks], gamma[kPacks];
  if constexpr (kTeam != Team::four_packs) {
    load_columns(place, task.norm.weight, repeated(kOneBits), weight);
    load_columns(place, task.norm.bias, Pack{}, bias);
  }
  load_columns(place, task.branch.gamma, repeated(kOneBits), gamma);
  const float share = 1.0f / static_cast<float>(width);
  float largest = 0;
  int phase = 0;  // the sums of one group are still read when the next one's are written
  for (int64_t first = place.team * kRows; first < rows; first += place.teams * kRows) {
    Pack x[kRows][kPacks];
    float means[kRows], rstds[kRows];
    add_rows<kAdds>(place, task, gamma, first, x);
    means_of<kRms, kTeam>(x, share, shared[0], means);
    rstds_of(place, x, means, share, task.norm.eps, shared[kRms ? phase : 1], rstds);
    phase ^= 1;
    store_statistics<kRows>(task, place.thread, first, means, rstds);
    if constexpr (kTeam == Team::four_packs) {  // registers are short
      load_columns(place, task.norm.weight, repeated(kOneBits), weight);
      load_columns(place, task.norm.bias, Pack{}, bias);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= rows) continue;
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        float values[kPack], scale[kPack], shift[kPack];
        unpack(x[r][p], values);
        unpack(weight[p], scale);
        unpack(bias[p], shift);
#pragma unroll
        for (int i = 0; i < kPack; ++i)
          values[i] = (values[i] * rstds[r] - means[r] * rstds[r]) * scale[i] + shift[i];
        x[r][p] = packed(values);
        if (place.has(p) && (!kCodes || task.y))
          store_pack(task.y + (first + r) * width + place.column(p), x[r][p]);
      }
    }
    if constexpr (kCodes)
      store_fp8_rows<Fp8::e4m3>(place, task.codes, x, first, rows, width, shared[2], largest);
  }
  if constexpr (kCodes) note_largest(place, task.codes, largest);
}

/// Only the sum, a pack a thread.
__global__ void __launch_bounds__(256) add_branch(ResidualNorm task) {
  const auto packs = static_cast<uint32_t>(task.shape.width / kPack);
  const uint32_t of_all = blockIdx.x * 256 + threadIdx.x, row = of_all / packs;
  if (row >= task.shape.rows()) return;
  const int64_t i = of_all, column = (of_all - row * packs) * kPack;
  const float keep = keep_of(task, row);
  float sum[kPack], added[kPack], scale[kPack];
  unpack(load_pack(task.x + i * kPack), sum);
  unpack(load_pack(task.branch.values + i * kPack), added);
  unpack(task.branch.gamma ? load_pack(task.branch.gamma + column) : repeated(kOneBits), scale);
#pragma unroll
  for (int k = 0; k < kPack; ++k) sum[k] += keep * scale[k] * added[k];
  store_pack(task.sum + i * kPack, packed(sum));
}

template <Team kTeam, bool kCodes>
void start(const ResidualNorm& task, void* stream) {
  const RowGrid grid =
      row_grid(kTeam, task.shape.rows(), task.shape.width, rows_at_once(kTeam), kResidentThreads);
  const bool adds = task.branch.values != nullptr;
  const auto kernel =
      task.norm.is_rms
          ? (adds ? norm_rows<kTeam, true, true, kCodes> : norm_rows<kTeam, true, false, kCodes>)
          : (adds ? norm_rows<kTeam, false, true, kCodes> : norm_rows<kTeam, false, false, kCodes>);
  launch(kernel, Grid{dim3(grid.blocks), dim3(grid.threads), 0, stream}, task);
}

template <Team kTeam>
void start(const ResidualNorm& task, void* stream) {
  if (task.codes.values)
    start<kTeam, true>(task, stream);
  else
    start<kTeam, false>(task, stream);
}

}  // namespace

void residual_norm(const ResidualNorm& task, void* stream) {
  check_width("residual_norm", task.shape.width, kMostNormWidth);
  check_count("residual_norm", "rows x width / 8", task.shape.rows() * (task.shape.width / kPack),
              INT32_MAX);
  if (task.shape.rows() == 0) return;
  if (task.codes.values)
    check_count("residual_norm", "the width's rest by 16", task.shape.width % 16, 0);
  if (task.y == nullptr && task.codes.values == nullptr) {
    if (task.branch.values == nullptr) return;
    const int64_t packs = task.shape.rows() * (task.shape.width / kPack);
    launch(add_branch,
           Grid{dim3(static_cast<unsigned>(ceil_div(packs, 256))), dim3(256), 0, stream}, task);
    return;
  }
  switch (team_of(task.shape.width)) {
    case Team::warp:
      return start<Team::warp>(task, stream);
    case Team::few_warps:
      return start<Team::few_warps>(task, stream);
    case Team::one_pack:
      return start<Team::one_pack>(task, stream);
    case Team::two_packs:
      return start<Team::two_packs>(task, stream);
    case Team::more_two_packs:
      return start<Team::more_two_packs>(task, stream);
    case Team::four_packs:
      return start<Team::four_packs>(task, stream);
  }
}

}  // namespace vitrail::kernels
