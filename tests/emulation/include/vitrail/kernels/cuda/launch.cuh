#pragma once
// Stands for vitrail/kernels/cuda/launch.cuh in emulated kernels: the same functions on the emulator.

#include <cstddef>
#include <cstdint>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace vitrail::kernels {

inline void check_launch(const char*) {}

struct Grid {
  dim3 blocks, threads;
  size_t shared_bytes = 0;
  void* stream = nullptr;
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments&&... arguments) {
  const auto index = [](dim3 d) { return emulation::Index{d.x, d.y, d.z}; };
  emulation::run_grid({index(grid.blocks), index(grid.threads), grid.shared_bytes},
                      [&] { kernel(static_cast<Parameters>(arguments)...); });
}

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulation::dynamic_shared_memory());
}

inline unsigned grid_size(int64_t items, int threads) {
  constexpr int64_t kMostBlocks = 132 * 16;
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace vitrail::kernels
