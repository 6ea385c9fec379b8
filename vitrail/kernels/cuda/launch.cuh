#pragma once
// Shared by the kernels: checked launches, grid sizes, 16-byte packs.

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace vitrail::kernels {

/// Throws core::Error unless the launch before it succeeded. In check.cpp because nvcc cannot
/// evaluate fmt's compile-time format check.
void check_launch(const char* where);

/// Blocks for a grid-stride loop: enough to fill any GPU several times over, few enough to amortise
/// the start.
inline unsigned grid_size(int64_t items, int threads) {
  constexpr int64_t kMostBlocks = 132 * 16;
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace vitrail::kernels
