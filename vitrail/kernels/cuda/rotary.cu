#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/cuda/launch.cuh"
#include "vitrail/kernels/rotary.h"

namespace vitrail::kernels {
namespace {

__device__ float wide(float value) { return value; }
__device__ float wide(uint16_t bits) { return from_bf16(bits); }
__device__ void store(float* place, float value) { *place = value; }
__device__ void store(uint16_t* place, float value) { *place = to_bf16(value); }

/// `Pairs` neighbouring pairs, read and written as one word.
template <class T, int Pairs>
struct alignas(2 * Pairs * sizeof(T)) Pack {
  T values[2 * Pairs];
};

/// One thread for `Pairs` pairs of one head.
template <class T, int Pairs>
__global__ void rotate(const T* x, const float* cos, const float* sin, RotaryShape shape, T* out) {
  const int64_t per_head = shape.pairs / Pairs;
  const int64_t total = shape.batch * shape.tokens * shape.heads * per_head;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total;
       i += stride) {
    const int64_t first = i % per_head * Pairs, head = i / per_head % shape.heads;
    const int64_t row = i / per_head / shape.heads;  // of batch and token
    const int64_t token = row % shape.tokens, sample = row / shape.tokens;
    const T* from = x + sample * shape.stride_batch + token * shape.stride_token +
                    head * shape.stride_head + 2 * first;
    const int64_t turn = sample * shape.table_stride + token * shape.pairs + first;
    Pack<T, Pairs> pack = *reinterpret_cast<const Pack<T, Pairs>*>(from);
    for (int p = 0; p < Pairs; ++p) {
      const float a = wide(pack.values[2 * p]), b = wide(pack.values[2 * p + 1]);
      const float c = cos[turn + p], s = shape.back ? -sin[turn + p] : sin[turn + p];
      store(&pack.values[2 * p], a * c - b * s);
      store(&pack.values[2 * p + 1], a * s + b * c);
    }
    *reinterpret_cast<Pack<T, Pairs>*>(out + (row * shape.heads + head) * 2 * shape.pairs +
                                       2 * first) = pack;
  }
}

/// Whether every head begins on a whole pack.
template <class T, int Pairs>
bool fits(const T* x, const T* out, const RotaryShape& shape) {
  constexpr int64_t kValues = 2 * Pairs;
  return shape.pairs % Pairs == 0 && shape.stride_batch % kValues == 0 &&
         shape.stride_token % kValues == 0 && shape.stride_head % kValues == 0 &&
         reinterpret_cast<uintptr_t>(x) % sizeof(Pack<T, Pairs>) == 0 &&
         reinterpret_cast<uintptr_t>(out) % sizeof(Pack<T, Pairs>) == 0;
}

template <class T, int Pairs>
void start(const T* x, const float* cos, const float* sin, const RotaryShape& shape, T* out,
           void* stream) {
  constexpr int kThreads = 256;
  const int64_t threads = shape.batch * shape.tokens * shape.heads * (shape.pairs / Pairs);
  if (threads == 0) return;
  launch(rotate<T, Pairs>, Grid{grid_size(threads, kThreads), kThreads, 0, stream}, x, cos, sin,
         shape, out);
}

}  // namespace

void rotate_f32(const float* x, const float* cos, const float* sin, const RotaryShape& shape,
                float* out, void* stream) {
  if (fits<float, 2>(x, out, shape))
    start<float, 2>(x, cos, sin, shape, out, stream);
  else
    start<float, 1>(x, cos, sin, shape, out, stream);
}

void rotate_bf16(const uint16_t* x, const float* cos, const float* sin, const RotaryShape& shape,
                 uint16_t* out, void* stream) {
  if (fits<uint16_t, 4>(x, out, shape))
    start<uint16_t, 4>(x, cos, sin, shape, out, stream);
  else
    start<uint16_t, 1>(x, cos, sin, shape, out, stream);
}

}  // namespace vitrail::kernels
