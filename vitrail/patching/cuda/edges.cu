#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/patching/edges_pixel.h"

namespace vitrail::patching {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostRows = 65535;  // of a grid

using kernels::check_launch;

/// Pixels of a sample along the grid's first axis, samples (or channels) along the second.
dim3 grid_of(int64_t pixels, int64_t rows) {
  return dim3(static_cast<unsigned>((pixels + kThreads - 1) / kThreads),
              static_cast<unsigned>(rows < kMostRows ? rows : kMostRows));
}

using PixelStep = void (*)(const EdgeBatch&, int64_t, int32_t);

template <PixelStep kStep>
__global__ void for_pixels(EdgeBatch e) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pixels_of(e)) return;
  for (int64_t b = blockIdx.y; b < e.batch; b += gridDim.y) kStep(e, b, static_cast<int32_t>(i));
}

template <PixelStep kStep>
void launch(const EdgeBatch& e, cudaStream_t stream) {
  for_pixels<kStep><<<grid_of(pixels_of(e), e.batch), kThreads, 0, stream>>>(e);
}

__global__ void blur_pixels(EdgeBatch e) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pixels_of(e)) return;
  for (int64_t row = blockIdx.y; row < e.batch * e.channels; row += gridDim.y)
    blur_pixel(e, row / e.channels, row % e.channels, static_cast<int32_t>(i));
}

void launch_blur(const EdgeBatch& e, cudaStream_t stream) {
  blur_pixels<<<grid_of(pixels_of(e), e.batch * e.channels), kThreads, 0, stream>>>(e);
}

__global__ void draw_options(const int64_t* sample_ids, int64_t batch, uint64_t seed, int64_t epoch,
                             int32_t* options) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (b >= batch) return;
  const DrawnEdges drawn = draw_edges(seed, epoch, sample_ids[b]);
  options[3 * b] = drawn.blur;
  options[3 * b + 1] = drawn.low;
  options[3 * b + 2] = drawn.high;
}

/// Largest over the block, in thread 0.
__device__ uint32_t block_largest(uint32_t key) {
  __shared__ uint32_t warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, key, offset);
    key = other > key ? other : key;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = key;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) key = warps[w] > key ? warps[w] : key;
  return key;
}

__global__ void find_limits(ByteBatch batch) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = blockIdx.y; row < batch.batch * batch.channels; row += gridDim.y) {
    const float* values = batch.image + row * batch.pixels;
    uint32_t largest = 0, least = 0;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch.pixels;
         i += stride) {
      const float value = values[i];
      if (!is_finite(value)) continue;
      const uint32_t key = order_key(value);
      largest = key > largest ? key : largest;
      least = ~key > least ? ~key : least;
    }
    largest = block_largest(largest);
    least = block_largest(least);
    if (threadIdx.x != 0) continue;
    atomicMax(batch.limits + 2 * row, largest);
    atomicMax(batch.limits + 2 * row + 1, least);
  }
}

__global__ void find_scales(ByteBatch batch) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (b >= batch.batch) return;
  const int64_t first = b * batch.channels;
  sample_scales(batch.limits + 2 * first,
                batch.range == nullptr ? nullptr : batch.range + 2 * first, batch.channels,
                batch.scales + first);
}

__global__ void round_values(ByteBatch batch) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = blockIdx.y; row < batch.batch * batch.channels; row += gridDim.y)
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch.pixels;
         i += stride)
      batch.bytes[row * batch.pixels + i] =
          byte_of(batch.image[row * batch.pixels + i], batch.scales[row]);
}

}  // namespace

void draw_edge_options(const int64_t* sample_ids, int64_t batch, uint64_t seed, int64_t epoch,
                       int32_t* options, void* stream) {
  if (batch == 0) return;
  draw_options<<<grid_of(batch, 1), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      sample_ids, batch, seed, epoch, options);
  check_launch("draw_edge_options");
}

void to_bytes(const ByteBatch& batch, void* stream) {
  if (batch.batch * batch.channels * batch.pixels == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  dim3 grid = grid_of(batch.pixels, batch.batch * batch.channels);
  // Several values a thread, so that few blocks end at the same two atomics.
  constexpr unsigned kMostChunks = 1024;
  grid.x = (grid.x + 15) / 16 < kMostChunks ? (grid.x + 15) / 16 : kMostChunks;
  find_limits<<<grid, kThreads, 0, on>>>(batch);
  find_scales<<<grid_of(batch.batch, 1), kThreads, 0, on>>>(batch);
  round_values<<<grid, kThreads, 0, on>>>(batch);
  check_launch("to_bytes");
}

void edge_maps(const EdgeBatch& batch, void* stream) {
  if (batch.batch * pixels_of(batch) == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  launch_blur(batch, on);
  launch<norm_pixel>(batch, on);
  launch<ridge_pixel>(batch, on);
  launch<plant_pixel>(batch, on);
  launch<join_pixel>(batch, on);
  launch<raise_pixel>(batch, on);
  launch<mark_pixel>(batch, on);
  check_launch("edge_maps");
}

void gradient_maps(const EdgeBatch& batch, void* stream) {
  if (batch.batch * pixels_of(batch) == 0) return;
  launch_blur(batch, static_cast<cudaStream_t>(stream));
  launch<gradient_pixel>(batch, static_cast<cudaStream_t>(stream));
  check_launch("gradient_maps");
}

void variance_maps(const EdgeBatch& batch, void* stream) {
  if (batch.batch * pixels_of(batch) == 0) return;
  launch<variance_pixel>(batch, static_cast<cudaStream_t>(stream));
  check_launch("variance_maps");
}

}  // namespace vitrail::patching
