#pragma once
// Shared by the kernels: checked launches, grid sizes, dynamic shared memory.
//
// Kernels start through launch(), never through <<<>>>, and take dynamic shared memory through dynamic_shared<T>(), so
// that tests/emulation can run the same source on a CPU (docs/kernels.md).

#include <cstddef>
#include <cstdint>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace vitrail::kernels {

/// Throws core::Error unless the launch before it succeeded. In check.cpp because nvcc cannot
/// evaluate fmt's compile-time format check.
void check_launch(const char* where);
/// The same after a launch of `kernel`, which the message names.
void check_launch(const void* kernel);
/// Lets `kernel` have `bytes` of dynamic shared memory on the current device; asks the driver once.
void allow_shared_memory(const void* kernel, size_t bytes);

/// What a launch is made of. `stream` is a cudaStream_t.
struct Grid {
  dim3 blocks, threads;
  size_t shared_bytes = 0;
  void* stream = nullptr;
};

/// Starts kernel(arguments...) on the grid. Asynchronous; throws core::Error when the launch is refused.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments&&... arguments) {
  constexpr size_t kAlwaysAllowed = 48 * 1024;
  const auto* const handle = reinterpret_cast<const void*>(kernel);
  if (grid.shared_bytes > kAlwaysAllowed) allow_shared_memory(handle, grid.shared_bytes);
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, static_cast<cudaStream_t>(grid.stream)>>>(
      static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  check_launch(handle);
}

/// The block's dynamic shared memory, aligned to 128 bytes; every call returns the same bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}

/// Blocks for a grid-stride loop: enough to fill any GPU several times over, few enough to amortise
/// the start.
inline unsigned grid_size(int64_t items, int threads) {
  constexpr int64_t kMostBlocks = 132 * 16;
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace vitrail::kernels
