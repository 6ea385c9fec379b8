#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/activation_codes.h"
#include "vitrail/kernels/cuda/columns.cuh"
#include "vitrail/kernels/cuda/slope.cuh"

namespace vitrail::kernels {
namespace {

using Kind = ActivationKind;

constexpr int kThreads = 256;
constexpr int kPacksAtOnce = 4;

/// kPacksAtOnce packs a thread, a block's width apart.
template <Kind kKind>
__global__ void __launch_bounds__(kThreads) activate(Activation task) {
  const int64_t packs = task.rows * (task.width / kPack);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kPacksAtOnce) + threadIdx.x;
  Pack pre[kPacksAtOnce], gate[kPacksAtOnce] = {};
#pragma unroll
  for (int j = 0; j < kPacksAtOnce; ++j) {
    const int64_t i = first + j * kThreads;
    if (i >= packs) continue;
    pre[j] = load_pack(task.pre + i * kPack);
    if constexpr (kKind == Kind::silu_gate) gate[j] = load_pack(task.gate + i * kPack);
  }
#pragma unroll
  for (int j = 0; j < kPacksAtOnce; ++j) {
    const int64_t i = first + j * kThreads;
    if (i >= packs) continue;
    float x[kPack], g[kPack];
    unpack(pre[j], x);
    unpack(gate[j], g);
#pragma unroll
    for (int k = 0; k < kPack; ++k) x[k] = slope<kKind>(x[k], g[k]).value;
    store_pack(task.out + i * kPack, packed(x));
  }
}

/// One pack of a row: its gradients, and what they add to the columns.
template <Kind kKind>
__device__ __forceinline__ void differentiate(const ActivationBackward& task, int64_t at,
                                              const Pack& pre, const Pack& gate, const Pack& dout,
                                              float (&pre_sums)[kPack], float (&gate_sums)[kPack]) {
  float x[kPack], g[kPack], d[kPack], out[kPack], dgate[kPack];
  unpack(pre, x);
  unpack(gate, g);
  unpack(dout, d);
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    const Slope s = slope<kKind>(x[k], g[k]);
    out[k] = s.value;
    dgate[k] = d[k] * s.dgate;
    d[k] *= s.dpre;
  }
  if (task.forward.out) store_pack(task.forward.out + at, packed(out));
  store_pack(task.dpre + at, packed(d));
  round_values(d);
#pragma unroll
  for (int k = 0; k < kPack; ++k) pre_sums[k] += d[k];
  if constexpr (kKind == Kind::silu_gate) {
    store_pack(task.dgate + at, packed(dgate));
    round_values(dgate);
#pragma unroll
    for (int k = 0; k < kPack; ++k) gate_sums[k] += dgate[k];
  }
}

constexpr int kSlots = 2;

template <Kind kKind>
__global__ void __launch_bounds__(kTileThreads)
    activate_backward(ActivationBackward task, int lanes) {
  constexpr int kRows = kKind == Kind::silu_gate ? 2 : 4;
  static_assert(kTileRows % kRows == 0);
  const int64_t rows = task.forward.rows, width = task.forward.width;
  const TilePlace place(lanes, width);
  float pre_sums[kPack] = {}, gate_sums[kPack] = {};
  for (int64_t row = place.row; row < rows && place.is_inside; row += place.row_step)
#pragma unroll 1
    for (int half = 0; half < kTileRows; half += kRows) {
      Pack pre[kRows], gate[kRows] = {}, dout[kRows];
      const int64_t first = row + half * place.row_stride, step = place.row_stride * width;
      const int64_t at = first * width + place.column;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (first + r * place.row_stride >= rows) continue;
        pre[r] = load_pack(task.forward.pre + at + r * step);
        dout[r] = load_pack(task.dout + at + r * step);
        if constexpr (kKind == Kind::silu_gate)
          gate[r] = load_pack(task.forward.gate + at + r * step);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (first + r * place.row_stride < rows)
          differentiate<kKind>(task, at + r * step, pre[r], gate[r], dout[r], pre_sums, gate_sums);
    }
  if (task.partials == nullptr) return;
  float* const part = task.partials + static_cast<int64_t>(blockIdx.y) * kSlots * width;
  if (task.pre_sums) store_tile_sums(pre_sums, lanes, width, part);
  if (kKind == Kind::silu_gate && task.gate_sums)
    store_tile_sums(gate_sums, lanes, width, part + width);
}

template <Kind kKind>
void start(const Activation& task, void* stream) {
  const int64_t packs = task.rows * (task.width / kPack);
  const auto blocks = static_cast<unsigned>(ceil_div(packs, kThreads * kPacksAtOnce));
  launch(activate<kKind>, Grid{dim3(blocks), dim3(kThreads), 0, stream}, task);
}

template <Kind kKind>
void start(const ActivationBackward& task, void* stream) {
  const ColumnTiles tiles = column_tiles(task.forward.rows, task.forward.width);
  launch(activate_backward<kKind>, Grid{tiles.grid(), dim3(kTileThreads), 0, stream}, task,
         tiles.lanes);
  if (task.pre_sums == nullptr && task.gate_sums == nullptr) return;
  SumTargets targets;
  targets.sums[0] = task.pre_sums;
  targets.sums[1] = kKind == Kind::silu_gate ? task.gate_sums : nullptr;
  add_parts(task.partials, tiles.row_blocks, kSlots, task.forward.width, targets, stream);
}

template <class Task>
void start(Kind kind, const Task& task, void* stream) {
  switch (kind) {
    case Kind::gelu_erf:
      return start<Kind::gelu_erf>(task, stream);
    case Kind::gelu_tanh:
      return start<Kind::gelu_tanh>(task, stream);
    case Kind::silu_gate:
      return start<Kind::silu_gate>(task, stream);
  }
}

}  // namespace

void activation(const Activation& task, void* stream) {
  check_width("activation", task.width);
  if (task.rows == 0) return;
  if (task.codes.values)
    activation_codes(task, stream);
  else
    start(task.kind, task, stream);
}

int64_t activation_partials(int64_t rows, int64_t width) {
  return std::max(column_tiles(rows, width).row_blocks * kSlots * width,
                  activation_codes_partials(rows, width));
}

void activation_backward(const ActivationBackward& task, void* stream) {
  check_width("activation_backward", task.forward.width);
  if (task.forward.rows == 0) return;
  if (task.dpre_codes.values)
    activation_backward_codes(task, stream);
  else
    start(task.forward.kind, task, stream);
}

}  // namespace vitrail::kernels
