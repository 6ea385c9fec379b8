// AdamW with compact moments: a warp for each block of 128 elements, four elements a lane.

#include "vitrail/kernels/compact_adamw.h"
#include "vitrail/kernels/compact_element.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/update_element.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;

struct Moments {
  float m[kPack], root[kPack];
};

template <StateType kType>
__device__ Moments read(const CompactArena& arena, int64_t block, int64_t pack) {
  Moments moments;
  if constexpr (kType == StateType::bf16) {
    const ushort4 m = static_cast<const ushort4*>(arena.first)[pack];
    const ushort4 root = static_cast<const ushort4*>(arena.second_root)[pack];
    const uint16_t ms[kPack] = {m.x, m.y, m.z, m.w};
    const uint16_t roots[kPack] = {root.x, root.y, root.z, root.w};
    for (int j = 0; j < kPack; ++j) {
      moments.m[j] = from_bf16(ms[j]);
      moments.root[j] = from_bf16(roots[j]);
    }
  } else {
    const uchar4 m = static_cast<const uchar4*>(arena.first)[pack];
    const uchar4 root = static_cast<const uchar4*>(arena.second_root)[pack];
    const uint8_t ms[kPack] = {m.x, m.y, m.z, m.w};
    const uint8_t roots[kPack] = {root.x, root.y, root.z, root.w};
    const float m_scale = power_of_two(arena.first_exponent[block]);
    const float root_scale = power_of_two(arena.second_exponent[block]);
    for (int j = 0; j < kPack; ++j) {
      moments.m[j] = from_fp8(ms[j]) * m_scale;
      moments.root[j] = from_fp8(roots[j]) * root_scale;
    }
  }
  return moments;
}

__device__ float largest_of_warp(float value) {
  for (int apart = 16; apart > 0; apart /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, apart));
  return value;
}

template <StateType kType>
__device__ void write(const CompactArena& arena, int64_t block, int64_t pack, int lane,
                      const Moments& moments, const core::Philox4& words) {
  if constexpr (kType == StateType::bf16) {
    uint16_t m[kPack], root[kPack];
    for (int j = 0; j < kPack; ++j) {
      m[j] = to_bf16_stochastic(moments.m[j], words.x[j] >> 16);
      root[j] = to_bf16_stochastic(moments.root[j], words.x[j]);
    }
    static_cast<ushort4*>(arena.first)[pack] = {m[0], m[1], m[2], m[3]};
    static_cast<ushort4*>(arena.second_root)[pack] = {root[0], root[1], root[2], root[3]};
  } else {
    float most_m = 0, most_root = 0;
    for (int j = 0; j < kPack; ++j) {
      most_m = fmaxf(most_m, fabsf(moments.m[j]));
      most_root = fmaxf(most_root, moments.root[j]);
    }
    const int8_t m_exponent = block_exponent(largest_of_warp(most_m));
    const int8_t root_exponent = block_exponent(largest_of_warp(most_root));
    if (lane == 0) {
      arena.first_exponent[block] = m_exponent;
      arena.second_exponent[block] = root_exponent;
    }
    const float m_scale = power_of_two(-m_exponent), root_scale = power_of_two(-root_exponent);
    uint8_t m[kPack], root[kPack];
    for (int j = 0; j < kPack; ++j) {
      m[j] = to_fp8_stochastic(moments.m[j] * m_scale, words.x[j] >> 16);
      root[j] = to_fp8_stochastic(moments.root[j] * root_scale, words.x[j]);
    }
    static_cast<uchar4*>(arena.first)[pack] = {m[0], m[1], m[2], m[3]};
    static_cast<uchar4*>(arena.second_root)[pack] = {root[0], root[1], root[2], root[3]};
  }
}

/// The constants and the number of an update, or where the device finds them.
struct Update {
  AdamwFactors factors;
  int64_t count;
  const AdamwFactors* place;
  const Pace* pace;
};

template <StateType kType>
__global__ void __launch_bounds__(kThreads)
    update_blocks(const CompactArena arena, const Update update_of, uint64_t seed,
                  const float* scale_pointer) {
  const float scale = *scale_pointer;
  if (scale == 0.0f) return;
  const AdamwFactors f = update_of.place ? *update_of.place : update_of.factors;
  const int64_t update_count = update_of.pace ? update_of.pace->updates : update_of.count;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t block =
      (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;  // of elements: a warp's
  if (block >= arena.count / kCompactBlock) return;
  const int64_t pack = block * (kCompactBlock / kPack) + lane;
  const float4 p = reinterpret_cast<const float4*>(arena.master)[pack];
  const float4 g = reinterpret_cast<const float4*>(arena.gradient)[pack];
  float4 ema{};
  if (arena.ema) ema = reinterpret_cast<const float4*>(arena.ema)[pack];
  Moments moments = read<kType>(arena, block, pack);
  const bool decays = arena.decay[block] != 0;
  Element e[kPack] = {{p.x, g.x, moments.m[0], 0.0f, ema.x, decays},
                      {p.y, g.y, moments.m[1], 0.0f, ema.y, decays},
                      {p.z, g.z, moments.m[2], 0.0f, ema.z, decays},
                      {p.w, g.w, moments.m[3], 0.0f, ema.w, decays}};
  for (int j = 0; j < kPack; ++j) {
    e[j].v = times(moments.root[j], moments.root[j]);
    update(e[j], f, scale);
    moments.m[j] = e[j].m;
    moments.root[j] = root(e[j].v);
  }
  reinterpret_cast<float4*>(arena.master)[pack] = {e[0].p, e[1].p, e[2].p, e[3].p};
  if (arena.ema)
    reinterpret_cast<float4*>(arena.ema)[pack] = {e[0].ema, e[1].ema, e[2].ema, e[3].ema};
  if (arena.weights_bf16)
    reinterpret_cast<ushort4*>(arena.weights_bf16)[pack] = {to_bf16(e[0].p), to_bf16(e[1].p),
                                                            to_bf16(e[2].p), to_bf16(e[3].p)};
  const uint64_t place = arena.places ? arena.places[block] : static_cast<uint64_t>(block);
  write<kType>(arena, block, pack, lane, moments,
               rounding_words(seed, static_cast<int64_t>(place * (kCompactBlock / kPack)) + lane,
                              static_cast<uint32_t>(update_count)));
}

void start(const CompactArena& arena, const Update& update, uint64_t seed, const float* scale,
           void* stream) {
  const int64_t blocks = arena.count / kCompactBlock;
  if (blocks == 0) return;
  constexpr int kBlocksAtOnce = kThreads / 32;
  const Grid grid{dim3(static_cast<unsigned>((blocks + kBlocksAtOnce - 1) / kBlocksAtOnce)),
                  dim3(kThreads), 0, stream};
  if (arena.type == StateType::bf16)
    launch(update_blocks<StateType::bf16>, grid, arena, update, seed, scale);
  else
    launch(update_blocks<StateType::fp8>, grid, arena, update, seed, scale);
}

}  // namespace

void compact_adamw(const CompactArena& arena, const AdamwStep& step, uint64_t seed,
                   const float* scale, void* stream) {
  start(arena, {factors(step), step.update_count, nullptr, nullptr}, seed, scale, stream);
}

void compact_adamw(const CompactArena& arena, const AdamwFactors* factors, const Pace* pace,
                   uint64_t seed, const float* scale, void* stream) {
  start(arena, {{}, 0, factors, pace}, seed, scale, stream);
}

}  // namespace vitrail::kernels
