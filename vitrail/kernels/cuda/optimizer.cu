// AdamW and SGD over a flat arena, four elements a thread: one 16-byte access per fp32 stream, so
// the pass runs at the speed of a copy of the same bytes.

#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/update_element.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;
static_assert(kFlagGroup % kPack == 0);

template <class Factors>
constexpr bool kHasSecond = sizeof(Factors) == sizeof(AdamwFactors);

template <class Factors, bool kEma, bool kCast>
__device__ void update_one(const Arena& arena, const Factors& f, float scale, int64_t i) {
  Element e{arena.master[i],
            arena.gradient[i],
            arena.first[i],
            0.0f,
            0.0f,
            arena.decay[i / kFlagGroup] != 0};
  if constexpr (kHasSecond<Factors>) e.v = arena.second[i];
  if constexpr (kEma) e.ema = arena.ema[i];
  update(e, f, scale);
  arena.master[i] = e.p;
  arena.first[i] = e.m;
  if constexpr (kHasSecond<Factors>) arena.second[i] = e.v;
  if constexpr (kEma) arena.ema[i] = e.ema;
  if constexpr (kCast) arena.weights_bf16[i] = to_bf16(e.p);
}

template <class Factors, bool kEma, bool kCast>
__device__ void update_pack(const Arena& arena, const Factors& f, float scale, int64_t pack) {
  float4 p = reinterpret_cast<float4*>(arena.master)[pack];
  const float4 g = reinterpret_cast<const float4*>(arena.gradient)[pack];
  float4 m = reinterpret_cast<float4*>(arena.first)[pack];
  const bool decays = arena.decay[pack / (kFlagGroup / kPack)] != 0;  // one byte for a warp
  float4 v{}, ema{};
  if constexpr (kHasSecond<Factors>) v = reinterpret_cast<float4*>(arena.second)[pack];
  if constexpr (kEma) ema = reinterpret_cast<float4*>(arena.ema)[pack];

  Element e[kPack] = {{p.x, g.x, m.x, v.x, ema.x, decays},
                      {p.y, g.y, m.y, v.y, ema.y, decays},
                      {p.z, g.z, m.z, v.z, ema.z, decays},
                      {p.w, g.w, m.w, v.w, ema.w, decays}};
#pragma unroll
  for (int j = 0; j < kPack; ++j) update(e[j], f, scale);

  reinterpret_cast<float4*>(arena.master)[pack] = {e[0].p, e[1].p, e[2].p, e[3].p};
  reinterpret_cast<float4*>(arena.first)[pack] = {e[0].m, e[1].m, e[2].m, e[3].m};
  if constexpr (kHasSecond<Factors>)
    reinterpret_cast<float4*>(arena.second)[pack] = {e[0].v, e[1].v, e[2].v, e[3].v};
  if constexpr (kEma)
    reinterpret_cast<float4*>(arena.ema)[pack] = {e[0].ema, e[1].ema, e[2].ema, e[3].ema};
  if constexpr (kCast)
    reinterpret_cast<ushort4*>(arena.weights_bf16)[pack] = {to_bf16(e[0].p), to_bf16(e[1].p),
                                                            to_bf16(e[2].p), to_bf16(e[3].p)};
}

template <class Factors, bool kEma, bool kCast>
__global__ void __launch_bounds__(kThreads)
    update_arena(const Arena arena, const Factors given, const Factors* __restrict__ place,
                 const float* __restrict__ scale_pointer) {
  const float scale = *scale_pointer;
  const Factors f = place ? *place : given;
  if (scale == 0.0f) return;
  const int64_t packs = arena.count / kPack;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < packs) update_pack<Factors, kEma, kCast>(arena, f, scale, i);
  // The last 0-3 elements go to the first threads of the grid.
  if (i < arena.count - packs * kPack)
    update_one<Factors, kEma, kCast>(arena, f, scale, packs * kPack + i);
}

template <class Factors>
void start(const Arena& arena, const Factors& f, const Factors* place, const float* scale,
           void* stream) {
  if (arena.count == 0) return;
  const int64_t packs = arena.count / kPack;
  const Grid grid{static_cast<unsigned>(packs / kThreads + 1), kThreads, 0, stream};
  if (arena.ema && arena.weights_bf16)
    launch(update_arena<Factors, true, true>, grid, arena, f, place, scale);
  else if (arena.ema)
    launch(update_arena<Factors, true, false>, grid, arena, f, place, scale);
  else if (arena.weights_bf16)
    launch(update_arena<Factors, false, true>, grid, arena, f, place, scale);
  else
    launch(update_arena<Factors, false, false>, grid, arena, f, place, scale);
}

__global__ void write_pace(Pace* pace, double learning_rate, uint32_t step) {
  pace->learning_rate = learning_rate;
  pace->step = step;
}

constexpr int kShares = 128;  // threads; a share each

template <class Rule, class Factors>
__global__ void __launch_bounds__(kShares)
    begin_update(Pace* pace, const Rule rule, const double* __restrict__ shares, int64_t count,
                 const float* __restrict__ scale, Factors* __restrict__ factors) {
  const int64_t updates = pace->updates;
  for (int64_t i = threadIdx.x; i < count; i += kShares)
    factors[i] = constants_at(rule, pace->learning_rate, shares[i], updates);
  __syncthreads();  // all have read the count
  if (threadIdx.x == 0 && *scale != 0.0f) pace->updates = updates + 1;
}

}  // namespace

void set_pace(Pace* pace, double learning_rate, uint32_t step, void* stream) {
  launch(write_pace, Grid{1, 1, 0, stream}, pace, learning_rate, step);
}

void begin_adamw(Pace* pace, const AdamwStep& rule, const double* shares, int64_t count,
                 const float* scale, AdamwFactors* factors, void* stream) {
  launch(begin_update<AdamwStep, AdamwFactors>, Grid{1, kShares, 0, stream}, pace, rule, shares,
         count, scale, factors);
}

void begin_sgd(Pace* pace, const SgdStep& rule, const double* shares, int64_t count,
               const float* scale, SgdFactors* factors, void* stream) {
  launch(begin_update<SgdStep, SgdFactors>, Grid{1, kShares, 0, stream}, pace, rule, shares, count,
         scale, factors);
}

void adamw(const Arena& arena, const AdamwStep& step, const float* scale, void* stream) {
  start<AdamwFactors>(arena, factors(step), nullptr, scale, stream);
}

void adamw_by(const Arena& arena, const AdamwFactors* factors, const float* scale, void* stream) {
  start<AdamwFactors>(arena, {}, factors, scale, stream);
}

void sgd(const Arena& arena, const SgdStep& step, const float* scale, void* stream) {
  start<SgdFactors>(arena, factors(step), nullptr, scale, stream);
}

void sgd_by(const Arena& arena, const SgdFactors* factors, const float* scale, void* stream) {
  start<SgdFactors>(arena, {}, factors, scale, stream);
}

}  // namespace vitrail::kernels
