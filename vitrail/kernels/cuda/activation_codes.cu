// Activations whose results leave as numbers of 8 bits: a team holds whole rows, whose largest values make the scales.

#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/activation_codes.h"
#include "vitrail/kernels/cuda/columns.cuh"
#include "vitrail/kernels/cuda/fp8_rows.cuh"
#include "vitrail/kernels/cuda/slope.cuh"
#include "vitrail/kernels/quantize.h"

namespace vitrail::kernels {
namespace {

using Kind = ActivationKind;

__host__ __device__ constexpr int rows_at_once(Team team) { return 4 / packs_of(team); }
constexpr int kResidentThreads = 2 * 2048;
// Of backward, for one wave: every further team costs partial sums.
constexpr int kResidentOfBackward = 512;

template <Kind kKind, Team kTeam>
__global__ void __launch_bounds__(most_threads(kTeam)) activate_rows(Activation task) {
  constexpr int kRows = rows_at_once(kTeam), kPacks = packs_of(kTeam);
  __align__(16) __shared__ float shared[2][kNormWarps * kRows];
  const RowPlace<kTeam> place(task.width);
  float largest = 0;
  int phase = 0;  // the maxima of one group are still read when the next one's are written
  for (int64_t first = place.team * kRows; first < task.rows; first += place.teams * kRows) {
    Pack x[kRows][kPacks];
    load_rows(place, task.pre, first, task.rows, task.width, x);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        float values[kPack];
        unpack(x[r][p], values);
#pragma unroll
        for (int k = 0; k < kPack; ++k) values[k] = slope<kKind>(values[k], 0.0f).value;
        x[r][p] = packed(values);
        if (task.out && first + r < task.rows && place.has(p))
          store_pack(task.out + (first + r) * task.width + place.column(p), x[r][p]);
      }
    store_fp8_rows<Fp8::e4m3>(place, task.codes, x, first, task.rows, task.width, shared[phase],
                              largest);
    phase ^= 1;
  }
  note_largest(place, task.codes, largest);
}

template <Kind kKind, Team kTeam>
__global__ void __launch_bounds__(most_threads(kTeam), kResidentOfBackward / most_threads(kTeam))
    activate_rows_backward(ActivationBackward task) {
  constexpr int kRows = rows_at_once(kTeam), kPacks = packs_of(kTeam);
  __align__(16) __shared__ float shared[2][kNormWarps * kRows];
  const int64_t rows = task.forward.rows, width = task.forward.width;
  const RowPlace<kTeam> place(width);
  float sums[kPacks][kPack] = {}, largest = 0;
  int phase = 0;
  for (int64_t first = place.team * kRows; first < rows; first += place.teams * kRows) {
    Pack pre[kRows][kPacks], d[kRows][kPacks];
    load_rows(place, task.forward.pre, first, rows, width, pre);
    load_rows(place, task.dout, first, rows, width, d);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        float x[kPack], values[kPack];
        unpack(pre[r][p], x);
        unpack(d[r][p], values);
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          const Slope s = slope<kKind>(x[k], 0.0f);
          x[k] = s.value;
          values[k] *= s.dpre;
        }
        d[r][p] = packed(values);
        round_values(values);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sums[p][k] += values[k];
        if (first + r >= rows || !place.has(p)) continue;
        const int64_t at = (first + r) * width + place.column(p);
        if (task.forward.out) store_pack(task.forward.out + at, packed(x));
        if (task.dpre) store_pack(task.dpre + at, d[r][p]);
      }
    store_fp8_rows<Fp8::e4m3>(place, task.dpre_codes, d, first, rows, width, shared[phase],
                              largest);
    phase ^= 1;
  }
  note_largest(place, task.dpre_codes, largest);
  if (task.pre_sums == nullptr) return;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (place.has(p)) store_floats(task.partials + place.team * width + place.column(p), sums[p]);
}

RowGrid backward_grid(int64_t rows, int64_t width) {
  const Team team = team_of(width);
  return row_grid(team, rows, width, rows_at_once(team), kResidentOfBackward);
}

template <Kind kKind, Team kTeam>
void start(const Activation& task, void* stream) {
  const RowGrid grid =
      row_grid(kTeam, task.rows, task.width, rows_at_once(kTeam), kResidentThreads);
  launch(activate_rows<kKind, kTeam>, Grid{dim3(grid.blocks), dim3(grid.threads), 0, stream}, task);
}

template <Kind kKind, Team kTeam>
void start(const ActivationBackward& task, void* stream) {
  const RowGrid grid = backward_grid(task.forward.rows, task.forward.width);
  launch(activate_rows_backward<kKind, kTeam>,
         Grid{dim3(grid.blocks), dim3(grid.threads), 0, stream}, task);
  if (task.pre_sums == nullptr) return;
  SumTargets targets;
  targets.sums[0] = task.pre_sums;
  add_parts(task.partials, grid.teams, 1, task.forward.width, targets, stream);
}

template <Kind kKind, class Task>
void start(int64_t width, const Task& task, void* stream) {
  switch (team_of(width)) {
    case Team::warp:
      return start<kKind, Team::warp>(task, stream);
    case Team::few_warps:
      return start<kKind, Team::few_warps>(task, stream);
    case Team::one_pack:
      return start<kKind, Team::one_pack>(task, stream);
    case Team::two_packs:
      return start<kKind, Team::two_packs>(task, stream);
    case Team::more_two_packs:
      return start<kKind, Team::more_two_packs>(task, stream);
    case Team::four_packs:
      return start<kKind, Team::four_packs>(task, stream);
  }
}

template <class Task>
void start(const char* where, const Activation& forward, const Task& task, void* stream) {
  check_width(where, forward.width, kMostQuantizedWidth);
  check_count(where, "the width's rest by 16", forward.width % 16, 0);
  check_count(where, "the number of gates with codes", forward.kind == Kind::silu_gate ? 1 : 0, 0);
  if (forward.kind == Kind::gelu_erf)
    start<Kind::gelu_erf>(forward.width, task, stream);
  else
    start<Kind::gelu_tanh>(forward.width, task, stream);
}

}  // namespace

void activation_codes(const Activation& task, void* stream) {
  start("activation", task, task, stream);
}

void activation_backward_codes(const ActivationBackward& task, void* stream) {
  start("activation_backward", task.forward, task, stream);
}

int64_t activation_codes_partials(int64_t rows, int64_t width) {
  if (width % 16 != 0 || width > kMostQuantizedWidth) return 0;
  return backward_grid(rows, width).teams * width;
}

}  // namespace vitrail::kernels
