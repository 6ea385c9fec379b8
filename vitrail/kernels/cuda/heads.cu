// Lanes of a warp in groups of a power of two; a group holds a head of one token, a pack a lane.

#include "vitrail/kernels/check_width.h"
#include "vitrail/kernels/cuda/columns.cuh"
#include "vitrail/kernels/heads.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostHeadWidth = kLanes * kPack;

/// n / divisor and the rest for n < 2^31 by one product: division is dear where it is done for eight values.
struct Divisor {
  uint32_t divisor = 1, magic = 0, shift = 0;

  explicit Divisor(int64_t d) : divisor(static_cast<uint32_t>(d)) {
    while ((1ull << shift) < divisor) ++shift;
    magic = static_cast<uint32_t>(((1ull << (31 + shift)) + divisor - 1) / divisor);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>(static_cast<uint64_t>(n) * magic >> (31 + shift));
  }
};

/// What all kernels here need to know of the shape.
struct Layout {
  Divisor heads, tokens;
  uint32_t items;  // heads of all tokens that are to be done
  int packs;       // of a head
  float share;     // 1 / values of a head
};

Layout layout_of(const HeadsShape& shape, int64_t heads) {
  return {Divisor(heads), Divisor(shape.tokens),
          static_cast<uint32_t>(shape.samples * shape.tokens * heads),
          static_cast<int>(shape.head_width / kPack), 1.0f / static_cast<float>(shape.head_width)};
}

/// The lane's place: which head of which token, which pack of it.
struct HeadPlace {
  uint32_t row, sample, token, head;
  int column;
  bool is_inside;

  __device__ __forceinline__ HeadPlace(const Layout& layout, uint32_t item, int lane) {
    is_inside = item < layout.items && lane < layout.packs;
    const uint32_t i = item < layout.items ? item : layout.items - 1;
    row = layout.heads.quotient(i);
    head = i - row * layout.heads.divisor;
    sample = layout.tokens.quotient(row);
    token = row - sample * layout.tokens.divisor;
    column = (lane < layout.packs ? lane : 0) * kPack;
  }
};

/// Turns the four pairs of a pack by their angles, or back.
__device__ __forceinline__ void turn(const Heads& task, const HeadPlace& place, bool back,
                                     float (&x)[kPack]) {
  const int64_t pairs = task.shape.head_width / 2;
  const int64_t at = place.sample * task.table_stride + place.token * pairs + place.column / 2;
  const float4 c = *reinterpret_cast<const float4*>(task.cos + at),
               s = *reinterpret_cast<const float4*>(task.sin + at);
  const float cosines[4] = {c.x, c.y, c.z, c.w}, sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const float a = x[2 * p], b = x[2 * p + 1], sine = back ? -sines[p] : sines[p];
    x[2 * p] = a * cosines[p] - b * sine;
    x[2 * p + 1] = a * sine + b * cosines[p];
  }
}

/// (x - mean) / deviation of a head, in the lanes of its group, and 1 / deviation. Lanes beyond the head hold 0 before
/// and after.
template <int kGroup>
__device__ __forceinline__ float normalise(bool is_rms, float eps, float share, bool is_inside,
                                           float (&x)[kPack]) {
  float mean = 0, square = 0;
  if (!is_rms) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) mean += x[k];
    mean = lane_sum<kGroup>(mean) * share;
    mean = is_inside ? mean : 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    x[k] -= mean;
    square += x[k] * x[k];
  }
  const float rstd = rsqrtf(lane_sum<kGroup>(square) * share + eps);
#pragma unroll
  for (int k = 0; k < kPack; ++k) x[k] *= rstd;
  return rstd;
}

__device__ __forceinline__ void load_parameter(const uint16_t* from, int column, uint32_t otherwise,
                                               float (&values)[kPack]) {
  unpack(from ? load_pack(from + column) : repeated(otherwise), values);
}

template <int kGroup, bool kNorm>
__global__ void __launch_bounds__(kThreads) prepare(Heads task, Layout layout) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  const HeadPlace place(layout, thread / kGroup, static_cast<int>(thread % kGroup));
  const HeadsShape& shape = task.shape;
  const int64_t of_head = place.head * shape.head_width + place.column;
  const int64_t in_row = (shape.heads + 2 * shape.kv_heads) * shape.head_width;
  const Pack bits = place.is_inside ? load_pack(task.qkv + place.row * in_row + of_head) : Pack{};
  float x[kPack];
  unpack(bits, x);
  if constexpr (kNorm) {
    const bool is_q = place.head < static_cast<uint32_t>(shape.heads);
    normalise<kGroup>(task.q_norm.is_rms, is_q ? task.q_norm.eps : task.k_norm.eps, layout.share,
                      place.is_inside, x);
    float weight[kPack], bias[kPack];
    load_parameter(is_q ? task.q_norm.weight : task.k_norm.weight, place.column, kOneBits, weight);
    load_parameter(is_q ? task.q_norm.bias : task.k_norm.bias, place.column, 0, bias);
#pragma unroll
    for (int k = 0; k < kPack; ++k) x[k] = x[k] * weight[k] + bias[k];
  }
  if (task.cos) turn(task, place, /*back=*/false, x);
  if (place.is_inside) store_pack(task.qk + place.row * task.qk_token_stride + of_head, packed(x));
}

/// Only turned: q and k alike, no sums.
template <int kGroup>
__global__ void __launch_bounds__(kThreads) turn_back(HeadsBackward task, Layout layout) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  const HeadPlace place(layout, thread / kGroup, static_cast<int>(thread % kGroup));
  const HeadsShape& shape = task.forward.shape;
  if (!place.is_inside) return;
  uint16_t* const at = task.dqkv +
                       place.row * ((shape.heads + 2 * shape.kv_heads) * shape.head_width) +
                       place.head * shape.head_width + place.column;
  float d[kPack];
  unpack(load_pack(at), d);
  turn(task.forward, place, /*back=*/true, d);
  store_pack(at, packed(d));
}

constexpr int kSlots = 2;  // weight, bias
// Enough to fill the GPU; every block leaves its sums.
constexpr int64_t kMostBlocks = kMultiprocessors * 4;

/// The heads of q, or those of k.
struct Kind {
  int64_t first_head;
  NormParameters norm;
  bool wants_sums;
  float* parts;
};

/// d becomes the gradient of what was normed; the sums gain what this head adds to the gradients of weight and bias.
template <int kGroup>
__device__ __forceinline__ void norm_backward(const NormParameters& norm, float share,
                                              bool is_inside, const float (&weight)[kPack],
                                              float (&x)[kPack], float (&d)[kPack],
                                              float (&weight_sums)[kPack],
                                              float (&bias_sums)[kPack]) {
  const float rstd = normalise<kGroup>(norm.is_rms, norm.eps, share, is_inside, x);
  float middle = 0, slope = 0;
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    weight_sums[k] += d[k] * x[k];
    bias_sums[k] += d[k];
    d[k] *= weight[k];
    middle += d[k];
    slope += d[k] * x[k];
  }
  middle = norm.is_rms ? 0.0f : lane_sum<kGroup>(middle) * share;
  slope = lane_sum<kGroup>(slope) * share;
#pragma unroll
  for (int k = 0; k < kPack; ++k) d[k] = rstd * (d[k] - middle - x[k] * slope);
}

/// Adds up what the groups of a block hold and writes it to part[column].
template <int kGroup>
__device__ __forceinline__ void store_group_sums(const float (&sums)[kPack], int packs,
                                                 float* part) {
  __align__(16) __shared__ float held[kThreads * kPack];
  store_floats(held + threadIdx.x * kPack, sums);
  __syncthreads();
  const int c = static_cast<int>(threadIdx.x);
  if (c < packs * kPack) {
    float sum = 0;
    for (int i = c; i < kThreads * kPack; i += kGroup * kPack) sum += held[i];
    part[c] = sum;
  }
  __syncthreads();
}

template <int kGroup>
__global__ void __launch_bounds__(kThreads)
    norm_back(HeadsBackward task, Layout layout, Kind kind) {
  const HeadsShape& shape = task.forward.shape;
  const int64_t in_row = (shape.heads + 2 * shape.kv_heads) * shape.head_width;
  constexpr uint32_t kGroups = kThreads / kGroup;
  const uint32_t group = threadIdx.x / kGroup;
  const int lane = static_cast<int>(threadIdx.x % kGroup);
  float weight[kPack], weight_sums[kPack] = {}, bias_sums[kPack] = {};
  load_parameter(kind.norm.weight, (lane < layout.packs ? lane : 0) * kPack, kOneBits, weight);
  // Whole warps stay together: a group without an item left works on zeros.
  for (uint32_t first = blockIdx.x * kGroups; first < layout.items; first += gridDim.x * kGroups) {
    const HeadPlace place(layout, first + group, lane);
    const int64_t at =
        place.row * in_row + (kind.first_head + place.head) * shape.head_width + place.column;
    const Pack x_bits = place.is_inside ? load_pack(task.forward.qkv + at) : Pack{};
    const Pack d_bits = place.is_inside ? load_pack(task.dqkv + at) : Pack{};
    float x[kPack], d[kPack];
    unpack(x_bits, x);
    unpack(d_bits, d);
    if (task.forward.cos) turn(task.forward, place, /*back=*/true, d);
    norm_backward<kGroup>(kind.norm, layout.share, place.is_inside, weight, x, d, weight_sums,
                          bias_sums);
    if (place.is_inside) store_pack(task.dqkv + at, packed(d));
  }
  if (!kind.wants_sums) return;
  float* const part = kind.parts + static_cast<int64_t>(blockIdx.x) * kSlots * shape.head_width;
  store_group_sums<kGroup>(weight_sums, layout.packs, part);
  store_group_sums<kGroup>(bias_sums, layout.packs, part + shape.head_width);
}

/// start<group>(), group being the least power of two of lanes that holds a head.
template <class Start>
void for_group(int64_t head_width, const Start& start) {
  const int64_t packs = head_width / kPack;
  if (packs <= 1) return start.template operator()<1>();
  if (packs <= 2) return start.template operator()<2>();
  if (packs <= 4) return start.template operator()<4>();
  if (packs <= 8) return start.template operator()<8>();
  if (packs <= 16) return start.template operator()<16>();
  return start.template operator()<32>();
}

template <int kGroup>
Grid grid_of(const Layout& layout, void* stream, int64_t most = INT32_MAX) {
  const int64_t blocks = ceil_div(static_cast<int64_t>(layout.items) * kGroup, kThreads);
  return {dim3(static_cast<unsigned>(std::min(blocks, most))), dim3(kThreads), 0, stream};
}

void norm_back_all(const HeadsBackward& task, int64_t heads, const Kind& kind, float* dweight,
                   float* dbias, void* stream) {
  const HeadsShape& shape = task.forward.shape;
  const Layout layout = layout_of(shape, heads);
  unsigned blocks = 0;
  for_group(shape.head_width, [&]<int kGroup>() {
    const Grid grid = grid_of<kGroup>(layout, stream, kMostBlocks);
    blocks = grid.blocks.x;
    launch(norm_back<kGroup>, grid, task, layout, kind);
  });
  if (!kind.wants_sums) return;
  SumTargets targets;
  targets.sums[0] = dweight;
  targets.sums[1] = dbias;
  add_parts(kind.parts, blocks, kSlots, shape.head_width, targets, stream);
}

void check(const char* where, const HeadsShape& shape) {
  check_width(where, shape.head_width, kMostHeadWidth);
  check_count(where, "samples x tokens x heads x 32 lanes",
              shape.samples * shape.tokens * shape.turned() * kLanes, INT32_MAX);
}

}  // namespace

void prepare_heads(const Heads& task, void* stream) {
  check("prepare_heads", task.shape);
  const Layout layout = layout_of(task.shape, task.shape.turned());
  if (layout.items == 0) return;
  for_group(task.shape.head_width, [&]<int kGroup>() {
    launch(task.has_norm ? prepare<kGroup, true> : prepare<kGroup, false>,
           grid_of<kGroup>(layout, stream), task, layout);
  });
}

int64_t heads_partials(const HeadsShape& shape) {
  return 2 * kMostBlocks * kSlots * shape.head_width;
}

void prepare_heads_backward(const HeadsBackward& task, void* stream) {
  const Heads& forward = task.forward;
  const HeadsShape& shape = forward.shape;
  check("prepare_heads_backward", shape);
  const Layout layout = layout_of(shape, shape.turned());
  if (layout.items == 0) return;
  if (!forward.has_norm) {
    if (forward.cos)
      for_group(shape.head_width, [&]<int kGroup>() {
        launch(turn_back<kGroup>, grid_of<kGroup>(layout, stream), task, layout);
      });
    return;
  }
  const Kind q{0, forward.q_norm, task.dq_weight || task.dq_bias, task.partials};
  const Kind k{shape.heads, forward.k_norm, task.dk_weight || task.dk_bias,
               task.partials + kMostBlocks * kSlots * shape.head_width};
  norm_back_all(task, shape.heads, q, task.dq_weight, task.dq_bias, stream);
  norm_back_all(task, shape.kv_heads, k, task.dk_weight, task.dk_bias, stream);
}

}  // namespace vitrail::kernels
