#pragma once
// Rows of a norm: who holds them, how they are read, and sums over them.
//
// A row belongs to a team: a warp for narrow rows, otherwise a whole block of about width / 8 threads. A team keeps
// the parameters of its columns in registers and takes several rows at a time, so that one barrier serves them all.

#include "vitrail/kernels/cuda/pack.cuh"

namespace vitrail::kernels {

constexpr int kNormWarps = 16;  // most warps of a block

/// Who shares a row and how many packs each holds, by width.
enum class Team { warp, few_warps, one_pack, two_packs, more_two_packs, four_packs };
__host__ __device__ constexpr int packs_of(Team team) {
  return team == Team::four_packs                                  ? 4
         : team == Team::two_packs || team == Team::more_two_packs ? 2
                                                                   : 1;
}
__host__ __device__ constexpr int most_threads(Team team) {
  switch (team) {
    case Team::warp:
    case Team::few_warps:
      return 128;
    case Team::two_packs:
      return 192;
    case Team::four_packs:
      return 512;
    default:
      return 256;
  }
}
/// Two packs from 2056 columns on: fewer warps then meet at a barrier, and each has more to read.
inline Team team_of(int64_t width) {
  if (width <= kLanes * kPack) return Team::warp;
  for (const Team team : {Team::few_warps, Team::one_pack, Team::two_packs, Team::more_two_packs})
    if (width <= most_threads(team) * packs_of(team) * kPack) return team;
  return Team::four_packs;
}

/// A launch over rows.
struct RowGrid {
  unsigned blocks, threads;
  int64_t teams;
};
/// `rows_at_once`: of a team. `resident`: threads that a multiprocessor should hold times the waves of them.
inline RowGrid row_grid(Team team, int64_t rows, int64_t width, int rows_at_once, int resident) {
  const int64_t packs = width / kPack;
  const bool is_warp = team == Team::warp;
  const int64_t threads =
      is_warp ? most_threads(team) : ceil_div(ceil_div(packs, packs_of(team)), kLanes) * kLanes;
  const int64_t teams_of_block = is_warp ? threads / kLanes : 1;
  const int64_t fit = resident / threads < 1 ? 1 : resident / threads;
  const int64_t most = kMultiprocessors * fit;
  const int64_t needed = ceil_div(rows, rows_at_once * teams_of_block);
  const int64_t blocks = needed < most ? needed : most;
  return {static_cast<unsigned>(blocks), static_cast<unsigned>(threads), blocks * teams_of_block};
}

/// A thread's place in its team and its columns: packs first, first + stride, ...
template <Team kTeam>
struct RowPlace {
  static constexpr int kPacks = packs_of(kTeam);
  static constexpr bool kWarp = kTeam == Team::warp;
  int thread, threads, packs;
  int64_t team, teams;

  __device__ __forceinline__ explicit RowPlace(int64_t width) {
    const int x = static_cast<int>(threadIdx.x), size = static_cast<int>(blockDim.x);
    thread = kWarp ? x % kLanes : x;
    threads = kWarp ? kLanes : size;
    packs = static_cast<int>(width / kPack);
    team = kWarp ? static_cast<int64_t>(blockIdx.x) * (size / kLanes) + x / kLanes : blockIdx.x;
    teams = kWarp ? static_cast<int64_t>(gridDim.x) * (size / kLanes) : gridDim.x;
  }
  __device__ __forceinline__ bool has(int p) const { return thread + p * threads < packs; }
  __device__ __forceinline__ int column(int p) const { return (thread + p * threads) * kPack; }
};

/// The thread's columns of a vector; `otherwise` without one and beyond the width.
template <Team kTeam>
__device__ __forceinline__ void load_columns(const RowPlace<kTeam>& place, const uint16_t* from,
                                             const Pack& otherwise, Pack (&to)[packs_of(kTeam)]) {
#pragma unroll
  for (int p = 0; p < place.kPacks; ++p)
    to[p] = from && place.has(p) ? load_pack(from + place.column(p)) : otherwise;
}

/// The thread's columns of rows first .. first + kRows; 0 beyond the last row and the width.
template <int kRows, Team kTeam>
__device__ __forceinline__ void load_rows(const RowPlace<kTeam>& place, const uint16_t* from,
                                          int64_t first, int64_t rows, int64_t width,
                                          Pack (&to)[kRows][packs_of(kTeam)]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int p = 0; p < place.kPacks; ++p)
      to[r][p] = first + r < rows && place.has(p)
                     ? load_pack(from + (first + r) * width + place.column(p))
                     : Pack{};
}

/// The sums over the team of kCount values, in every thread. `shared` holds kNormWarps * kCount floats and may be used
/// again after the barrier of the next call that uses other floats.
template <Team kTeam, int kCount>
__device__ __forceinline__ void team_sums(float (&values)[kCount], float* shared) {
  constexpr int kLanesOfValue = kLanes / kCount;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const float mine = fold(values);
  if constexpr (kTeam == Team::warp) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = __shfl_sync(kAllLanes, mine, i * kLanesOfValue);
    return;
  }
  const int warp = static_cast<int>(threadIdx.x) / kLanes,
            warps = static_cast<int>(blockDim.x) / kLanes;
  if (lane % kLanesOfValue == 0) shared[warp * kCount + lane / kLanesOfValue] = mine;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = 0;
#pragma unroll 1
  for (int w = 0; w < warps; ++w) {
    if constexpr (kCount % 4 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(shared + w * kCount + i);
        values[i] += four.x, values[i + 1] += four.y;
        values[i + 2] += four.z, values[i + 3] += four.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] += shared[w * kCount + i];
    }
  }
}

}  // namespace vitrail::kernels
