#include "vitrail/kernels/augment_finish.h"
#include "vitrail/kernels/cuda/launch.cuh"

namespace vitrail::kernels {
namespace {

constexpr int kThreads = 256;
// Blocks of one sample: with a whole batch in flight a few are enough, and one launch must stay
// below the limits of a grid.
constexpr int64_t kMostBlocks = 256;

/// Blocks along y for the pixels of a sample; x is the sample.
dim3 grid_of(int64_t batch, int64_t pixels) {
  const int64_t blocks = (pixels + kThreads - 1) / kThreads;
  return {static_cast<unsigned>(batch),
          static_cast<unsigned>(blocks < 1             ? 1
                                : blocks < kMostBlocks ? blocks
                                                       : kMostBlocks),
          1};
}
__device__ int32_t first_pixel() {
  return static_cast<int32_t>(blockIdx.y * kThreads + threadIdx.x);
}
__device__ int32_t pixel_stride() { return static_cast<int32_t>(gridDim.y * kThreads); }

__device__ void collect_sums(const AugmentJob& job, ChannelStatistics* statistics) {
  const int64_t n = job.in_pixels;
  const bool is_rgb = job.channels == 3;
  __shared__ unsigned long long total;
  for (int32_t c = 0; c < (is_rgb ? 1 : job.channels); ++c) {
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    int64_t mine = 0;
    for (int32_t p = first_pixel(); p < job.in_pixels; p += pixel_stride())
      mine += summand(is_rgb ? grey_of(job.in[p], job.in[n + p], job.in[2 * n + p])
                             : job.in[c * n + p]);
    // Integers wrap alike signed or not.
    atomicAdd(&total, static_cast<unsigned long long>(mine));
    __syncthreads();
    if (threadIdx.x == 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(&statistics[c].sum), total);
    __syncthreads();
  }
}

__device__ void collect_histograms(const AugmentJob& job, ChannelStatistics* statistics) {
  __shared__ uint32_t histogram[256];
  static_assert(kThreads == 256, "a thread for every byte");
  for (int32_t c = 0; c < job.channels; ++c) {
    histogram[threadIdx.x] = 0;
    __syncthreads();
    const float* in = job.in + static_cast<int64_t>(c) * job.in_pixels;
    for (int32_t p = first_pixel(); p < job.in_pixels; p += pixel_stride())
      atomicAdd(&histogram[byte_of(in[p])], 1u);
    __syncthreads();
    if (histogram[threadIdx.x] > 0)
      atomicAdd(&statistics[c].histogram[threadIdx.x], histogram[threadIdx.x]);
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) collect(AugmentBatch batch, int32_t s) {
  const int64_t b = blockIdx.x;
  const AugmentRow row = row_of(batch, b);
  if (s >= row.header->steps || !needs_statistics(row.slots[s].op)) return;
  const AugmentJob job = job_of(batch, b, s);
  auto* statistics = static_cast<ChannelStatistics*>(batch.statistics) + b * batch.image.channels;
  if (row.slots[s].op == AugmentOp::contrast)
    collect_sums(job, statistics);
  else
    collect_histograms(job, statistics);
}

/// A block per channel of a sample, a thread per byte. Leaves the counts at zero for the next slot.
__global__ void __launch_bounds__(kThreads) summarise(AugmentBatch batch, int32_t s) {
  const int64_t b = blockIdx.x;
  const AugmentRow row = row_of(batch, b);
  if (s >= row.header->steps || !needs_statistics(row.slots[s].op)) return;
  const AugmentOp op = row.slots[s].op;
  const int32_t pixels = count_of(row.slots[s].in);
  ChannelStatistics& channel =
      static_cast<ChannelStatistics*>(batch.statistics)[b * batch.image.channels + blockIdx.y];
  if (op == AugmentOp::contrast) {
    if (threadIdx.x == 0) {
      channel.mean = mean_of(channel.sum, pixels);
      channel.sum = 0;
    }
    return;
  }
  __shared__ uint32_t histogram[256], before[256];
  __shared__ Levels levels;
  histogram[threadIdx.x] = channel.histogram[threadIdx.x];
  channel.histogram[threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    levels = levels_of(histogram, pixels);
    uint32_t sum = 0;
    for (int32_t byte = 0; byte < 256; ++byte) {
      before[byte] = sum;
      sum += histogram[byte];
    }
  }
  __syncthreads();
  channel.table[threadIdx.x] =
      table_value(op, levels, static_cast<int32_t>(threadIdx.x), before[threadIdx.x]);
}

__global__ void __launch_bounds__(kThreads) run_slot(AugmentBatch batch, int32_t s) {
  const int64_t b = blockIdx.x;
  if (s >= row_of(batch, b).header->steps) return;
  const AugmentJob job = job_of(batch, b, s);
  const AugmentSlot& slot = *job.slot;
  const bool moves = is_geometric(slot.op);
  const int32_t done = slot.geometric_before;
  for (int32_t p = first_pixel(); p < job.out_pixels; p += pixel_stride()) {
    augment_pixel(job, p);
    if (!moves) continue;
    if (batch.mask.in)
      buffer_of(batch.mask, b, done + 1)[p] = moved_class(slot, buffer_of(batch.mask, b, done), p);
    for (int64_t v = 0; v < batch.values.channels && batch.values.in; ++v)
      buffer_of(batch.values, b, done + 1)[v * job.out_pixels + p] =
          moved_value(slot, buffer_of(batch.values, b, done) + v * job.in_pixels, p);
  }
}

__global__ void __launch_bounds__(kThreads) finish(AugmentBatch batch, int32_t pixels) {
  const int64_t b = blockIdx.x;
  const FinishJob job = finish_job_of(batch, b);
  for (int32_t p = first_pixel(); p < pixels; p += pixel_stride()) finish_pixel(batch, job, p);
  if (blockIdx.y > 0) return;
  if (threadIdx.x == 0) finish_label(batch, b);
  for (int64_t m = threadIdx.x; m < batch.max_boxes; m += kThreads) finish_box(batch, b, m);
}

}  // namespace

void augment(const AugmentBatch& batch, void* stream) {
  if (batch.batch == 0) return;
  const int64_t channels = batch.image.channels;
  if (batch.slots > 0) {
    cudaMemsetAsync(batch.statistics, 0,
                    static_cast<size_t>(batch.batch * channels) * sizeof(ChannelStatistics),
                    static_cast<cudaStream_t>(stream));
    check_launch("augment: statistics");
  }
  const dim3 grid = grid_of(batch.batch, batch.image.row / channels);
  const dim3 per_channel(static_cast<unsigned>(batch.batch), static_cast<unsigned>(channels), 1);
  for (int32_t s = 0; s < batch.slots; ++s) {
    launch(collect, Grid{grid, kThreads, 0, stream}, batch, s);
    launch(summarise, Grid{per_channel, kThreads, 0, stream}, batch, s);
    launch(run_slot, Grid{grid, kThreads, 0, stream}, batch, s);
  }
  const int64_t pixels = batch.target[0] * batch.target[1] * batch.target[2];
  launch(finish, Grid{grid_of(batch.batch, pixels), kThreads, 0, stream}, batch,
         static_cast<int32_t>(pixels));
}

}  // namespace vitrail::kernels
