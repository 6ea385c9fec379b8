#include "vitrail/kernels/cuda/pack.cuh"
#include "vitrail/kernels/losses.h"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kLanes;
constexpr float kLog2e = 1.4426950408889634f;

/// The sums over the block of kCount values, in every thread, in a fixed order.
template <int kCount>
__device__ __forceinline__ void block_sums(float (&values)[kCount]) {
  __shared__ float warps[kWarps][kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = lane_sum<kLanes>(values[i]);
  __syncthreads();  // what an earlier call left has been read
  if (threadIdx.x % kLanes == 0)
#pragma unroll
    for (int i = 0; i < kCount; ++i) warps[threadIdx.x / kLanes][i] = values[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = 0;
    for (int w = 0; w < kWarps; ++w) values[i] += warps[w][i];
  }
}

__device__ __forceinline__ float block_largest(float value) {
  __shared__ float warps[kWarps];
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  __syncthreads();
  if (threadIdx.x % kLanes == 0) warps[threadIdx.x / kLanes] = value;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) value = fmaxf(value, warps[w]);
  return value;
}

/// *sum = the sum of `count` values, one block.
__global__ void __launch_bounds__(kThreads)
    add_all(const float* __restrict__ values, int64_t count, float* __restrict__ sum) {
  float mine[1] = {};
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += kThreads) mine[0] += values[i];
  block_sums(mine);
  if (threadIdx.x == 0) *sum = mine[0];
}

/// *loss = the sum of `count` values / (divisor * *total), one block.
__global__ void __launch_bounds__(kThreads)
    finish_loss(const float* __restrict__ values, int64_t count, const float* __restrict__ total,
                float divisor, float* __restrict__ loss) {
  float mine[1] = {};
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += kThreads) mine[0] += values[i];
  block_sums(mine);
  if (threadIdx.x == 0) *loss = mine[0] / (divisor * (*total > 0.0f ? *total : 1.0f));
}

// ---- cross-entropy ----

/// One of a row's labels: how much of the row it is, and the weight of its class. Both 0 where it counts nowhere.
struct Part {
  int64_t label;
  float share, weight;
};

__device__ __forceinline__ Part part_of(const CrossEntropy& task, int64_t label, float share) {
  if (label < 0 || label >= task.classes) return {0, 0.0f, 0.0f};
  return {label, share, task.class_weights ? task.class_weights[label] : 1.0f};
}

struct Parts {
  Part own, other;
  __device__ __forceinline__ Parts(const CrossEntropy& task, int64_t row) {
    const float share = task.other ? task.share[row] : 1.0f;
    own = part_of(task, task.label[row], share);
    other = task.other ? part_of(task, task.other[row], 1.0f - share) : Part{0, 0.0f, 0.0f};
  }
  /// The row's part of the mean's divisor.
  __device__ __forceinline__ float weight() const {
    return own.share * own.weight + other.share * other.weight;
  }
};

/// The mean's divisor, before the rows need it; one block.
__global__ void __launch_bounds__(kThreads) sum_weights(CrossEntropy task, float* total) {
  float mine[1] = {};
  for (int64_t row = threadIdx.x; row < task.rows; row += kThreads)
    mine[0] += Parts(task, row).weight();
  block_sums(mine);
  if (threadIdx.x == 0) *total = mine[0];
}

/// A block a row. loss = -sum of q log p with q = (1 - smoothing) of the labels + smoothing / classes of every class,
/// each by its class's weight; the gradient is p sum(q) - q.
__global__ void __launch_bounds__(kThreads)
    cross_entropy_rows(CrossEntropy task, const float* __restrict__ total,
                       float* __restrict__ losses) {
  const int64_t row = blockIdx.x;
  const uint16_t* const logits = task.logits + row * task.stride;
  const int classes = static_cast<int>(task.classes), thread = static_cast<int>(threadIdx.x);
  const auto logit = [&](int64_t c) {
    return __uint_as_float(static_cast<uint32_t>(logits[c]) << 16);
  };
  const auto class_weight = [&](int c) {
    return task.class_weights ? task.class_weights[c] : 1.0f;
  };
  float largest = -INFINITY;
  for (int c = thread; c < classes; c += kThreads) largest = fmaxf(largest, logit(c));
  largest = block_largest(largest);

  enum { kExponentials, kWeighted, kWeights, kCount };
  float sums[kCount] = {};
  for (int c = thread; c < classes; c += kThreads) {
    const float x = logit(c) - largest, weight = class_weight(c);
    sums[kExponentials] += exp2_approx(x * kLog2e);
    sums[kWeighted] += weight * x;
    sums[kWeights] += weight;
  }
  block_sums(sums);

  const Parts parts(task, row);
  const float sharp = 1.0f - task.smoothing;
  const float own = sharp * parts.own.share * parts.own.weight,
              other = sharp * parts.other.share * parts.other.weight;
  const float smooth =
      task.smoothing * (parts.own.share + parts.other.share) / static_cast<float>(classes);
  const float all = own + other + smooth * sums[kWeights];
  if (thread == 0)
    losses[row] = all * logf(sums[kExponentials]) - own * (logit(parts.own.label) - largest) -
                  other * (logit(parts.other.label) - largest) - smooth * sums[kWeighted];
  if (task.dlogits == nullptr) return;
  __syncthreads();  // the gradient may lie where the logits of the labels were
  const float scale = task.scale / (*total > 0.0f ? *total : 1.0f);
  const float of_p = all / sums[kExponentials];
  for (int c = thread; c < classes; c += kThreads) {
    float d = of_p * exp2_approx((logit(c) - largest) * kLog2e) - smooth * class_weight(c);
    if (c == parts.own.label) d -= own;
    if (c == parts.other.label) d -= other;
    task.dlogits[row * task.stride + c] = static_cast<uint16_t>(pack_bf16(d * scale, 0.0f));
  }
}

// ---- mean squared error of tokens ----

constexpr int64_t kMostBlocks = kMultiprocessors * 8;

/// kVector neighbouring values in one access.
template <int kVector>
__device__ __forceinline__ void load_floats(const float* from, float (&values)[kVector]) {
  if constexpr (kVector == 4) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  } else {
    values[0] = *from;
  }
}
template <int kVector>
__device__ __forceinline__ void load_values(const uint16_t* from, float (&values)[kVector]) {
  if constexpr (kVector == 4) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    values[0] = low_bf16(words.x), values[1] = high_bf16(words.x);
    values[2] = low_bf16(words.y), values[3] = high_bf16(words.y);
  } else {
    values[0] = __uint_as_float(static_cast<uint32_t>(*from) << 16);
  }
}
template <int kVector>
__device__ __forceinline__ void store_values(uint16_t* to, const float (&values)[kVector]) {
  if constexpr (kVector == 4)
    *reinterpret_cast<uint2*>(to) =
        make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
  else
    *to = static_cast<uint16_t>(pack_bf16(values[0], 0.0f));
}

/// Mean and 1 / deviation of a token's target; the whole warp calls it.
template <int kVector>
__device__ __forceinline__ void target_scale(const float* target, int width, int lane, float& mean,
                                             float& share) {
  float sum = 0, squares = 0;
  for (int c = lane * kVector; c < width; c += kLanes * kVector) {
    float values[kVector];
    load_floats(target + c, values);
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum += values[k];
  }
  mean = lane_sum<kLanes>(sum) / static_cast<float>(width);
  for (int c = lane * kVector; c < width; c += kLanes * kVector) {
    float values[kVector];
    load_floats(target + c, values);
#pragma unroll
    for (int k = 0; k < kVector; ++k) squares += (values[k] - mean) * (values[k] - mean);
  }
  share = rsqrtf(lane_sum<kLanes>(squares) / static_cast<float>(width - 1) + 1e-6f);
}

/// The gradient of one token and a lane's part of its squared error.
template <int kVector>
__device__ __forceinline__ float score_token(const TokenError& task, int64_t row,
                                             const float* target, float weight, float scale,
                                             int lane) {
  const int width = static_cast<int>(task.width);
  const int64_t at = row * width;
  float mean = 0, share = 1, sum = 0;
  if (task.normalises && weight != 0.0f) target_scale<kVector>(target, width, lane, mean, share);
  for (int c = lane * kVector; c < width; c += kLanes * kVector) {
    float values[kVector] = {}, wanted[kVector];
    if (weight != 0.0f) {
      load_values(task.prediction + at + c, values);
      load_floats(target + c, wanted);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        const float miss = values[k] - (wanted[k] - mean) * share;
        sum += miss * miss;
        values[k] = miss * scale;
      }
    }
    if (task.dprediction) store_values(task.dprediction + at + c, values);
  }
  return sum;
}

/// A warp a token. Every warp leaves the sum of its tokens' errors.
template <int kVector>
__global__ void __launch_bounds__(kThreads)
    score_tokens(TokenError task, const float* __restrict__ total, float* __restrict__ losses) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kWarps;
  const int64_t all = task.prefix + task.tokens;
  const float of_all = *total > 0.0f ? *total : 1.0f;
  float loss = 0;
  for (int64_t row = warp; row < task.samples * all; row += warps) {
    const int64_t sample = row / all, place = row - sample * all;
    const int64_t token = sample * task.tokens + place - task.prefix;
    float weight = 0;
    if (place >= task.prefix) weight = task.weights ? task.weights[token] : 1.0f;
    const float scale = 2.0f * weight * task.scale / (static_cast<float>(task.width) * of_all);
    const float sum =
        score_token<kVector>(task, row, weight != 0.0f ? task.target + token * task.width : nullptr,
                             weight, scale, lane);
    loss += weight * lane_sum<kLanes>(sum);
  }
  if (lane == 0) losses[warp] = loss;
}

__global__ void set_total(float value, float* total) { *total = value; }

}  // namespace

int64_t cross_entropy_partials(int64_t rows) { return rows + 1; }

void cross_entropy(const CrossEntropy& task, void* stream) {
  float* const total = task.partials + task.rows;
  const Grid one{dim3(1), dim3(kThreads), 0, stream};
  launch(sum_weights, one, task, total);
  if (task.rows > 0)
    launch(cross_entropy_rows,
           Grid{dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream}, task, total,
           task.partials);
  launch(finish_loss, one, task.partials, task.rows, total, 1.0f, task.loss);
}

int64_t token_error_partials() { return kMostBlocks * kWarps + 1; }

void token_error(const TokenError& task, void* stream) {
  const int64_t rows = task.samples * (task.prefix + task.tokens);
  const int64_t needed = ceil_div(rows, kWarps);
  const int64_t blocks = needed < kMostBlocks ? needed : kMostBlocks;
  float* const total = task.partials + kMostBlocks * kWarps;
  const Grid one{dim3(1), dim3(kThreads), 0, stream};
  const int64_t scored = task.samples * task.tokens;
  if (task.weights)
    launch(add_all, one, task.weights, scored, total);
  else
    launch(set_total, Grid{dim3(1), dim3(1), 0, stream}, static_cast<float>(scored), total);
  if (blocks > 0)
    launch(task.width % 4 == 0 ? score_tokens<4> : score_tokens<1>,
           Grid{dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream}, task, total,
           task.partials);
  launch(finish_loss, one, task.partials, blocks * kWarps, total, static_cast<float>(task.width),
         task.loss);
}

}  // namespace vitrail::kernels
