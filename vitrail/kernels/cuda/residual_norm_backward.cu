// One pass over the rows writes the gradients of the stream and of the branch and keeps the sums of columns in
// registers; each team leaves its sums in `partials`, and a second kernel adds them in order.

#include <algorithm>

#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/columns.cuh"
#include "vitrail/kernels/cuda/norm_rows.cuh"
#include "vitrail/kernels/residual_norm.h"

namespace vitrail::kernels {
namespace {

/// What the branch wants of the pass over the rows.
enum class Wants { nothing, sums, scaled };

__host__ __device__ constexpr int rows_at_once(Team team, Wants wants) {
  if (packs_of(team) > 1) return 1;
  return team == Team::few_warps && wants != Wants::scaled ? 4 : 2;
}
/// Sums of four packs do not fit in registers: a pass over columns makes them.
__host__ __device__ constexpr bool keeps_sums(Team team) { return team != Team::four_packs; }
/// Threads of a multiprocessor: as many as registers allow, for one wave; every further team costs partial sums.
__host__ __device__ constexpr int resident_threads(Team team, Wants wants) {
  const bool is_large = packs_of(team) == 2       ? wants != Wants::nothing
                        : team == Team::few_warps ? wants != Wants::scaled
                                                  : team == Team::warp && wants == Wants::scaled;
  return is_large ? 384 : 512;  // at 168 or 128 registers a thread
}

constexpr int kSlots = 4;
enum Slot { kWeight, kBias, kGamma, kBranch };

SumTargets targets_of(const ResidualNormBackward& task) {
  SumTargets targets;
  targets.sums[kWeight] = task.dweight;
  targets.sums[kBias] = task.dbias;
  targets.sums[kGamma] = task.dgamma;
  targets.sums[kBranch] = task.branch_sums;
  return targets;
}

/// What a thread adds up of its columns.
template <int kPacks>
struct ColumnSums {
  float weight[kPacks][kPack] = {}, bias[kPacks][kPack] = {};
  float gamma[kPacks][kPack] = {}, branch[kPacks][kPack] = {};
};

/// The branch's part of eight values of a row: dx_bits as stored -> dbranch, and the sums.
__device__ __forceinline__ void branch_values(const ResidualNormBackward& task, const Pack& dx_bits,
                                              const Pack& branch, const Pack& gamma, float keep,
                                              int64_t place, bool stores,
                                              float (&gamma_sums)[kPack],
                                              float (&branch_sums)[kPack]) {
  float d[kPack];
  unpack(dx_bits, d);
  if (task.branch.is_scaled()) {
    float values[kPack], scale[kPack];
    unpack(branch, values);
    unpack(gamma, scale);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      gamma_sums[i] += keep * values[i] * d[i];
      d[i] *= keep * scale[i];
    }
    const Pack bits = packed(d);
    if (stores && task.dbranch) store_pack(task.dbranch + place, bits);
    unpack(bits, d);
  }
#pragma unroll
  for (int i = 0; i < kPack; ++i) branch_sums[i] += d[i];
}

/// mean(g) and mean(g xhat) of kRows rows, g = dy weight: what the norm takes out of its gradient. [0, kRows) the first,
/// then the second (RMSNorm has no first).
template <bool kRms, Team kTeam, int kRows, int kCount>
__device__ __forceinline__ void row_means(const Pack (&dy)[kRows][packs_of(kTeam)],
                                          const Pack (&sum)[kRows][packs_of(kTeam)],
                                          const Pack (&weight)[packs_of(kTeam)],
                                          const float (&mean)[kRows], const float (&rstd)[kRows],
                                          float share, float* shared, float (&means)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) means[i] = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int p = 0; p < packs_of(kTeam); ++p) {
      float d[kPack], x[kPack], scale[kPack];
      unpack(dy[r][p], d);
      unpack(sum[r][p], x);
      unpack(weight[p], scale);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const float g = d[i] * scale[i];
        if constexpr (!kRms) means[r] += g;
        means[kCount - kRows + r] += g * (x[i] * rstd[r] - mean[r] * rstd[r]);
      }
    }
  team_sums<kTeam>(means, shared);
#pragma unroll
  for (int i = 0; i < kCount; ++i) means[i] *= share;
}

template <int kPacks, Team kTeam>
__device__ __forceinline__ void store_part(const RowPlace<kTeam>& place,
                                           const ResidualNormBackward& task,
                                           const ColumnSums<kPacks>& sums, Wants wants) {
  const int64_t width = task.shape.width;
  float* const part = task.partials + place.team * kSlots * width;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (!place.has(p)) continue;
    float* const to = part + place.column(p);
    if (task.dweight) store_floats(to + kWeight * width, sums.weight[p]);
    if (task.dbias) store_floats(to + kBias * width, sums.bias[p]);
    if (wants == Wants::scaled && task.dgamma) store_floats(to + kGamma * width, sums.gamma[p]);
    if (wants != Wants::nothing && task.branch_sums)
      store_floats(to + kBranch * width, sums.branch[p]);
  }
}

template <Team kTeam, bool kRms, Wants kWants>
__global__ void __launch_bounds__(most_threads(kTeam),
                                  resident_threads(kTeam, kWants) / most_threads(kTeam))
    norm_rows_backward(ResidualNormBackward task) {
  constexpr int kRows = rows_at_once(kTeam, kWants), kPacks = packs_of(kTeam);
  constexpr int kCount = kRms ? kRows : 2 * kRows;
  __align__(16) __shared__ float shared[2][kNormWarps * kCount];
  const int64_t rows = task.shape.rows(), width = task.shape.width;
  const RowPlace<kTeam> place(width);
  Pack weight[kPacks], gamma[kPacks];
  load_columns(place, task.norm.weight, repeated(kOneBits), weight);
  load_columns(place, task.branch.gamma, repeated(kOneBits), gamma);
  const uint16_t* const branch_values_of_gamma = task.dgamma ? task.branch.values : nullptr;
  ColumnSums<kPacks> sums;
  const float share = 1.0f / static_cast<float>(width);
  int phase = 0;  // the means of one group are still read when the next one's are written
  for (int64_t first = place.team * kRows; first < rows; first += place.teams * kRows) {
    Pack dy[kRows][kPacks], sum[kRows][kPacks], past[kRows][kPacks] = {},
                                                branch[kRows][kPacks] = {};
    float mean[kRows], rstd[kRows], means[kCount];
    load_rows(place, task.dy, first, rows, width, dy);
    load_rows(place, task.sum, first, rows, width, sum);
    if (task.dsum) load_rows(place, task.dsum, first, rows, width, past);
    if constexpr (kWants == Wants::scaled)
      if (branch_values_of_gamma)
        load_rows(place, branch_values_of_gamma, first, rows, width, branch);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first + r < rows ? first + r : rows - 1;
      mean[r] = kRms ? 0.0f : task.mean[row];
      rstd[r] = task.rstd[row];
    }
    row_means<kRms, kTeam>(dy, sum, weight, mean, rstd, share, shared[phase], means);
    phase ^= 1;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= rows) continue;
      const float keep = kWants == Wants::scaled && task.branch.keep
                             ? task.branch.keep[static_cast<uint32_t>(first + r) /
                                                static_cast<uint32_t>(task.shape.tokens)]
                             : 1.0f;
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        float d[kPack], x[kPack], scale[kPack], dx[kPack];
        unpack(dy[r][p], d);
        unpack(sum[r][p], x);
        unpack(weight[p], scale);
        unpack(past[r][p], dx);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          const float normed = x[i] * rstd[r] - mean[r] * rstd[r];
          const float middle = kRms ? 0.0f : means[r];
          dx[i] += rstd[r] * (d[i] * scale[i] - middle - normed * means[kCount - kRows + r]);
          if constexpr (keeps_sums(kTeam)) sums.weight[p][i] += d[i] * normed;
          if constexpr (keeps_sums(kTeam) && !kRms) sums.bias[p][i] += d[i];
        }
        const Pack bits = packed(dx);
        const int64_t at = (first + r) * width + place.column(p);
        if (place.has(p)) store_pack(task.dx + at, bits);
        if constexpr (kWants != Wants::nothing)
          branch_values(task, bits, branch[r][p], gamma[p], keep, at, place.has(p), sums.gamma[p],
                        sums.branch[p]);
      }
    }
  }
  if constexpr (keeps_sums(kTeam)) store_part(place, task, sums, kWants);
}

/// Column sums of rows too wide for registers, and all of a branch that is added without a norm after it (dy null).
__global__ void __launch_bounds__(kTileThreads, 2)
    norm_columns(ResidualNormBackward task, const uint16_t* dx, int lanes) {
  const int64_t rows = task.shape.rows(), width = task.shape.width;
  const TilePlace place(lanes, width);
  const bool wants_norm = task.dy && (task.dweight || task.dbias);
  const bool wants_branch = task.branch_sums || task.branch.is_scaled();
  const bool copies = task.dy == nullptr && task.dx && task.dx != dx;
  const uint16_t* const branch = task.dgamma ? task.branch.values : nullptr;
  ColumnSums<1> sums;
  const Pack gamma = task.branch.gamma && place.is_inside
                         ? load_pack(task.branch.gamma + place.column)
                         : repeated(kOneBits);
  for (int64_t row = place.row; row < rows && place.is_inside; row += place.row_step)
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t i = row + r * place.row_stride;
      if (i >= rows) break;
      const int64_t at = i * width + place.column;
      if (wants_norm) {
        float d[kPack], x[kPack];
        unpack(load_pack(task.dy + at), d);
        unpack(load_pack(task.sum + at), x);
        const float mean = task.norm.is_rms ? 0.0f : task.mean[i];
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          sums.weight[0][k] += d[k] * ((x[k] - mean) * task.rstd[i]);
          sums.bias[0][k] += d[k];
        }
      }
      if (!wants_branch && !copies) continue;
      const Pack bits = load_pack(dx + at);
      if (copies) store_pack(task.dx + at, bits);
      if (wants_branch)
        branch_values(task, bits, branch ? load_pack(branch + at) : Pack{}, gamma,
                      task.branch.keep ? task.branch.keep[static_cast<uint32_t>(i) /
                                                          static_cast<uint32_t>(task.shape.tokens)]
                                       : 1.0f,
                      at, true, sums.gamma[0], sums.branch[0]);
    }
  float* const part = task.partials + static_cast<int64_t>(blockIdx.y) * kSlots * width;
  if (wants_norm) {
    store_tile_sums(sums.weight[0], lanes, width, part + kWeight * width);
    store_tile_sums(sums.bias[0], lanes, width, part + kBias * width);
  }
  if (task.dgamma) store_tile_sums(sums.gamma[0], lanes, width, part + kGamma * width);
  if (task.branch_sums) store_tile_sums(sums.branch[0], lanes, width, part + kBranch * width);
}

void sum_columns(const ResidualNormBackward& task, const uint16_t* dx, void* stream) {
  const ColumnTiles tiles = column_tiles(task.shape.rows(), task.shape.width);
  launch(norm_columns, Grid{tiles.grid(), dim3(kTileThreads), 0, stream}, task, dx, tiles.lanes);
  SumTargets targets = targets_of(task);
  if (task.dy == nullptr) targets.sums[kWeight] = targets.sums[kBias] = nullptr;
  add_parts(task.partials, tiles.row_blocks, kSlots, task.shape.width, targets, stream);
}

RowGrid grid_of(const RowShape& shape, Wants wants) {
  const Team team = team_of(shape.width);
  return row_grid(team, shape.rows(), shape.width, rows_at_once(team, wants),
                  resident_threads(team, wants));
}

template <Team kTeam, bool kRms, Wants kWants>
void start(const ResidualNormBackward& task, void* stream) {
  const RowGrid grid = grid_of(task.shape, kWants);
  launch(norm_rows_backward<kTeam, kRms, kWants>,
         Grid{dim3(grid.blocks), dim3(grid.threads), 0, stream}, task);
  if (task.dweight || task.dbias || task.dgamma || task.branch_sums)
    add_parts(task.partials, grid.teams, kSlots, task.shape.width, targets_of(task), stream);
}

template <Team kTeam>
void start(const ResidualNormBackward& task, void* stream) {
  const bool rms = task.norm.is_rms;
  if (task.branch.is_scaled())
    return rms ? start<kTeam, true, Wants::scaled>(task, stream)
               : start<kTeam, false, Wants::scaled>(task, stream);
  if (task.branch_sums)
    return rms ? start<kTeam, true, Wants::sums>(task, stream)
               : start<kTeam, false, Wants::sums>(task, stream);
  return rms ? start<kTeam, true, Wants::nothing>(task, stream)
             : start<kTeam, false, Wants::nothing>(task, stream);
}

/// The rows first, then their columns.
void start_wide(const ResidualNormBackward& task, void* stream) {
  ResidualNormBackward only_rows = task;
  only_rows.branch = {};
  only_rows.dweight = only_rows.dbias = only_rows.dgamma = only_rows.branch_sums = nullptr;
  if (task.norm.is_rms)
    start<Team::four_packs, true, Wants::nothing>(only_rows, stream);
  else
    start<Team::four_packs, false, Wants::nothing>(only_rows, stream);
  if (task.dweight || task.dbias || task.branch.is_scaled() || task.branch_sums)
    sum_columns(task, task.dx, stream);
}

}  // namespace

int64_t residual_norm_partials(const RowShape& shape) {
  int64_t parts = column_tiles(shape.rows(), shape.width).row_blocks;
  for (const Wants wants : {Wants::nothing, Wants::sums, Wants::scaled})
    parts = std::max(parts, grid_of(shape, wants).teams);
  return parts * kSlots * shape.width;
}

void residual_norm_backward(const ResidualNormBackward& task, void* stream) {
  check_width("residual_norm_backward", task.shape.width, kMostNormWidth);
  check_count("residual_norm_backward", "the number of rows", task.shape.rows(), INT32_MAX);
  if (task.shape.rows() == 0) return;
  if (task.dy == nullptr) return sum_columns(task, task.dsum, stream);
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
      return start_wide(task, stream);
  }
}

}  // namespace vitrail::kernels
