#include "faulty_kernels.h"

#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/cuda/mma.cuh"

namespace emulation {
namespace {

using namespace vitrail::kernels;

__global__ void reverse_kernel(const float* in, float* out, bool has_barrier) {
  __shared__ float values[1024];
  values[threadIdx.x] = in[threadIdx.x];
  if (has_barrier) __syncthreads();
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

__global__ void reverse_dynamic_kernel(const float* in, float* out) {
  auto* const values = dynamic_shared<float>();
  values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

__global__ void pass_on_kernel(float* values, int rounds, bool has_second_barrier) {
  __shared__ float shared[1024];
  float mine = values[threadIdx.x];
  for (int round = 0; round < rounds; ++round) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    mine = shared[(threadIdx.x + 1) % blockDim.x] + 1.0f;
    if (has_second_barrier) __syncthreads();
  }
  values[threadIdx.x] = mine;
}

__global__ void leave_early_kernel(float* out, int stop) {
  if (static_cast<int>(threadIdx.x) < stop) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void divergent_kernel(float* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    __syncthreads();
    out[threadIdx.x] = 2;
  }
}

__global__ void partial_warp_sum_kernel(float* out, int lanes) {
  if (static_cast<int>(threadIdx.x) >= lanes) return;
  float sum = 1;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
  out[threadIdx.x] = sum;
}

__global__ void copy_async_kernel(const float* in, float* out, bool waits, bool has_barrier) {
  __shared__ float4 packs[32];
  cp_async_16(&packs[threadIdx.x], in + 4 * threadIdx.x);
  cp_async_commit();
  if (waits) cp_async_wait<0>();
  if (has_barrier) __syncthreads();
  reinterpret_cast<float4*>(out)[threadIdx.x] = packs[31 - threadIdx.x];
}

__global__ void multiply_tile_kernel(const uint16_t* a, const uint16_t* b, float* c) {
  __align__(16) __shared__ uint16_t a_tile[16 * 16];
  __align__(16) __shared__ uint16_t b_tile[16 * 8];
  for (unsigned i = threadIdx.x; i < 256; i += 32) a_tile[i] = a[i];
  for (unsigned i = threadIdx.x; i < 128; i += 32) b_tile[i] = b[i];
  __syncwarp();
  const unsigned lane = threadIdx.x;
  uint32_t a_words[4], b_words[2];
  ldmatrix_x4(a_words, a_tile + lane % 16 * 16 + lane / 16 * 8);
  ldmatrix_x2_trans(b_words, b_tile + lane % 16 * 8);
  float sums[4] = {};
  mma_bf16(sums, a_words, b_words[0], b_words[1], sums);
  const unsigned g = lane / 4, t = lane % 4;
  c[g * 8 + 2 * t] = sums[0], c[g * 8 + 2 * t + 1] = sums[1];
  c[(g + 8) * 8 + 2 * t] = sums[2], c[(g + 8) * 8 + 2 * t + 1] = sums[3];
}

__global__ void reverse_halves_kernel(const float* in, float* out) {
  __shared__ float values[128];
  const unsigned half = threadIdx.x / 64, i = threadIdx.x % 64;
  values[threadIdx.x] = in[threadIdx.x];
  named_barrier(1 + static_cast<int>(half), 64);
  out[threadIdx.x] = values[half * 64 + 63 - i];
}

__global__ void copy_bulk_kernel(const float* in, float* out, bool waits, int arrivals) {
  __align__(16) __shared__ float values[128];
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) phase_init(&barrier, arrivals);
  phase_publish();
  __syncthreads();
  if (threadIdx.x == 0) bulk_copy(values, in, sizeof values, &barrier);
  if (waits) phase_wait(&barrier, 0);
  for (unsigned i = threadIdx.x; i < 128; i += 32) out[i] = values[127 - i];
}

__global__ void multiply_panel_kernel(const uint16_t* a, const uint16_t* b, float* c, bool waits) {
  __align__(16) __shared__ uint16_t matrix[256];
  for (unsigned i = threadIdx.x; i < 256; i += 128) matrix[i] = b[i];
  phase_publish();
  __syncthreads();
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const unsigned row = threadIdx.x / 32 * 16 + g;
  uint32_t words[4];
  for (unsigned j = 0; j < 4; ++j)
    std::memcpy(words + j, a + (row + j % 2 * 8) * 16 + 2 * t + j / 2 * 8, 4);
  float sums[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  wgmma_fence();
  wgmma_f16(sums, words, shared_matrix(matrix, 256), true);
  wgmma_commit();
  if (waits) wgmma_wait();
  for (unsigned i = 0; i < 8; ++i)
    c[(row + i / 2 % 2 * 8) * 16 + i / 4 * 8 + 2 * t + i % 2] = sums[i];
}

__global__ void read_unwritten_kernel(float* out) {
  __shared__ float values[1024];
  out[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = 1;  // the next block must not see it
}

Grid block_of(int threads) { return {1, static_cast<unsigned>(threads), 0, nullptr}; }

}  // namespace

void reverse(const float* in, float* out, int threads, bool has_barrier) {
  launch(reverse_kernel, block_of(threads), in, out, has_barrier);
}
void reverse_dynamic(const float* in, float* out, int threads, int bytes) {
  launch(reverse_dynamic_kernel,
         Grid{1, static_cast<unsigned>(threads), static_cast<size_t>(bytes), nullptr}, in, out);
}
void pass_on(float* values, int threads, int rounds, bool has_second_barrier) {
  launch(pass_on_kernel, block_of(threads), values, rounds, has_second_barrier);
}
void leave_early(float* out, int threads, int stop) {
  launch(leave_early_kernel, block_of(threads), out, stop);
}
void divergent(float* out, int threads) { launch(divergent_kernel, block_of(threads), out); }
void partial_warp_sum(float* out, int lanes) {
  launch(partial_warp_sum_kernel, block_of(32), out, lanes);
}
void copy_async(const float* in, float* out, bool waits, bool has_barrier) {
  launch(copy_async_kernel, block_of(32), in, out, waits, has_barrier);
}
void multiply_tile(const uint16_t* a, const uint16_t* b, float* c) {
  launch(multiply_tile_kernel, block_of(32), a, b, c);
}
void reverse_halves(const float* in, float* out) {
  launch(reverse_halves_kernel, block_of(128), in, out);
}
void copy_bulk(const float* in, float* out, bool waits, int arrivals) {
  launch(copy_bulk_kernel, block_of(32), in, out, waits, arrivals);
}
void multiply_panel(const uint16_t* a, const uint16_t* b, float* c, bool waits) {
  launch(multiply_panel_kernel, block_of(128), a, b, c, waits);
}
void read_unwritten(float* out, int threads) {
  launch(read_unwritten_kernel, Grid{2, static_cast<unsigned>(threads), 0, nullptr}, out);
}

}  // namespace emulation
