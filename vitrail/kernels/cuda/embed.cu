#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/pack.cuh"
#include "vitrail/kernels/embed.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;

Grid grid_of(const char* where, int64_t threads, void* stream) {
  check_count(where, "threads", threads, INT32_MAX);
  return {dim3(static_cast<unsigned>(ceil_div(threads, kThreads))), dim3(kThreads), 0, stream};
}

/// i / by, and what is left in i. In 32 bits, in which divisions are cheap.
__device__ __forceinline__ uint32_t split_off(uint32_t& i, int64_t by) {
  const auto divisor = static_cast<uint32_t>(by);
  const uint32_t quotient = i / divisor, rest = i - quotient * divisor;
  i = quotient;
  return rest;
}

/// A thread for kWidth neighbours of a row of a patch.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) patch_rows(Patchify task, uint32_t threads) {
  uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= threads) return;
  const int64_t at = static_cast<int64_t>(i) * kWidth;
  const int64_t P = task.patch, depth = task.is_volume ? P : 1;
  const int64_t p2 = split_off(i, P / kWidth) * kWidth, p1 = split_off(i, P),
                p0 = split_off(i, depth);
  const int64_t c = split_off(i, task.channels), g2 = split_off(i, task.grid[2]),
                g1 = split_off(i, task.grid[1]), g0 = split_off(i, task.grid[0]), s = i;
  const int64_t plane = (s * task.channels + c) * (task.grid[0] * depth) + g0 * depth + p0;
  const float* const from =
      task.image + (plane * (task.grid[1] * P) + g1 * P + p1) * (task.grid[2] * P) + g2 * P + p2;
  uint16_t* const to = task.patches + at;
  if constexpr (kWidth == kPack) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    const float values[kPack] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    store_pack(to, packed(values));
  } else if constexpr (kWidth == 2) {
    const float2 pair = *reinterpret_cast<const float2*>(from);
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(pair.x, pair.y);
  } else {
    *to = static_cast<uint16_t>(pack_bf16(*from, 0.0f));
  }
}

template <int kWidth>
void start(const Patchify& task, void* stream) {
  const int64_t depth = task.is_volume ? task.patch : 1;
  const int64_t values = task.samples * task.channels * task.grid[0] * task.grid[1] * task.grid[2] *
                         depth * task.patch * task.patch;
  if (values == 0) return;
  const Grid grid = grid_of("patchify", values / kWidth, stream);
  launch(patch_rows<kWidth>, grid, task, static_cast<uint32_t>(values / kWidth));
}

__global__ void __launch_bounds__(kThreads) join_rows(JoinTokens task, uint32_t threads) {
  const uint32_t place = blockIdx.x * kThreads + threadIdx.x;
  if (place >= threads) return;
  uint32_t i = place;
  const int64_t column = static_cast<int64_t>(split_off(i, task.width / kPack)) * kPack;
  const int64_t row = split_off(i, task.prefix + task.tokens), s = i, token = row - task.prefix;
  Pack pack = load_pack(token < 0 ? task.prefix_rows + row * task.width + column
                                  : task.rows + (s * task.tokens + token) * task.width + column);
  if (token >= 0 && task.positions) {
    float values[kPack], added[kPack];
    unpack(pack, values);
    unpack(load_pack(task.positions + token * task.width + column), added);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] += added[k];
    pack = packed(values);
  }
  store_pack(task.all + static_cast<int64_t>(place) * kPack, pack);
}

__global__ void __launch_bounds__(kThreads) split_rows(SplitTokens task, uint32_t threads) {
  const uint32_t place = blockIdx.x * kThreads + threadIdx.x;
  if (place >= threads) return;
  uint32_t i = place;
  const int64_t in_sample =
      static_cast<int64_t>(split_off(i, task.tokens * (task.width / kPack))) * kPack;
  const int64_t from =
      (static_cast<int64_t>(i) * (task.prefix + task.tokens) + task.prefix) * task.width;
  store_pack(task.rows + static_cast<int64_t>(place) * kPack,
             load_pack(task.all + from + in_sample));
}

}  // namespace

void patchify(const Patchify& task, void* stream) {
  if (task.patch % kPack == 0) return start<kPack>(task, stream);
  if (task.patch % 2 == 0) return start<2>(task, stream);
  start<1>(task, stream);
}

void join_tokens(const JoinTokens& task, void* stream) {
  check_width("join_tokens", task.width);
  const int64_t threads = task.samples * (task.prefix + task.tokens) * (task.width / kPack);
  if (threads > 0)
    launch(join_rows, grid_of("join_tokens", threads, stream), task,
           static_cast<uint32_t>(threads));
}

void split_tokens(const SplitTokens& task, void* stream) {
  check_width("split_tokens", task.width);
  const int64_t threads = task.samples * task.tokens * (task.width / kPack);
  if (threads > 0)
    launch(split_rows, grid_of("split_tokens", threads, stream), task,
           static_cast<uint32_t>(threads));
}

}  // namespace vitrail::kernels
