#include "vitrail/kernels/activation.h"
#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/columns.cuh"

namespace vitrail::kernels {
namespace {

using Kind = ActivationKind;

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kTanhScale = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kTanhCube = 0.044715f;

__device__ __forceinline__ float sigmoid(float x) {
  return reciprocal(1.0f + exp2_approx(-kLog2e * x));
}

/// Phi(-|x|) and the density of the standard normal distribution at x.
struct Normal {
  float tail, density;
};

/// Phi(-|x|) = exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.3 sqrt 2 |x|), the form of Abramowitz & Stegun 7.1.26: the
/// exponential is the density that backward wants too. P is fitted so that the error is at most 2e-7 and, where Phi is
/// small, 4e-5 of it; with rounding 4e-7.
__device__ __forceinline__ Normal normal(float x) {
  constexpr float kP = 0.42426406871192857f, kDensity = 0.3989422804014327f;
  const float t = reciprocal(fmaf(kP, fabsf(x), 1.0f));
  const float e = exp2_approx(-0.5f * kLog2e * x * x);
  float p = 0.05823427793505883f;
  p = fmaf(p, t, -0.23138874762376527f);
  p = fmaf(p, t, 0.2446181308097316f);
  p = fmaf(p, t, 0.08097496736451132f);
  p = fmaf(p, t, 0.17891272486483376f);
  p = fmaf(p, t, 0.16864859887859135f);
  return {p * t * e, kDensity * e};
}

/// Value and derivatives of one activation. Without a gate, dgate stays 0.
struct Slope {
  float value, dpre, dgate;
};

template <Kind kKind>
__device__ __forceinline__ Slope slope(float x, float gate) {
  if constexpr (kKind == Kind::gelu_erf) {
    // x Phi(x) = max(x, 0) - |x| Phi(-|x|). An infinite x gives NaN.
    const Normal n = normal(x);
    const float below = x < 0.0f ? n.tail : 1.0f - n.tail;
    return {fmaf(-fabsf(x), n.tail, fmaxf(x, 0.0f)), fmaf(x, n.density, below), 0.0f};
  } else if constexpr (kKind == Kind::gelu_tanh) {
    // (1 + tanh u) / 2 = sigmoid(2 u), without cancellation where it is small.
    const float square = x * x;
    const float s = sigmoid(2.0f * kTanhScale * x * fmaf(kTanhCube, square, 1.0f));
    const float inner = 2.0f * kTanhScale * fmaf(3.0f * kTanhCube, square, 1.0f);
    return {x * s, fmaf(x * inner, s * (1.0f - s), s), 0.0f};
  } else {
    const float s = sigmoid(gate), silu = gate * s;
    return {silu * x, silu, x * s * fmaf(gate, 1.0f - s, 1.0f)};
  }
}

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
  if (task.rows > 0) start(task.kind, task, stream);
}

int64_t activation_partials(int64_t rows, int64_t width) {
  return column_tiles(rows, width).row_blocks * kSlots * width;
}

void activation_backward(const ActivationBackward& task, void* stream) {
  check_width("activation_backward", task.forward.width);
  if (task.forward.rows > 0) start(task.forward.kind, task, stream);
}

}  // namespace vitrail::kernels
