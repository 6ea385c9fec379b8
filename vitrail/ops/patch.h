#pragma once
/// Images and volumes as rows of patches; the number of axes is a loop, so 2-D and 3-D are one code path.
///
/// Shapes   B batch, C channels, L patches in raster order (last axis fastest), P patch edge, S = P^k * C values a patch.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// Order of the S values inside a patch.
enum class PatchOrder {
  channel_first,  // (c, p, q[, r]): a convolution's weight, flattened
  channel_last    // (p, q[, r], c): He et al.'s patchify
};

/// Patches along each axis. throws Error when a side is not a multiple of `patch`.
std::vector<int64_t> patch_grid(at::IntArrayRef image_size, int64_t patch);

/// image [B, C, H, W] or [B, C, D, H, W] -> [B, L, S]. throws Error when a side is not a multiple of `patch`.
at::Tensor patchify(const at::Tensor& image, int64_t patch, PatchOrder order);

/// The inverse: tokens [B, L, S] -> [B, C, grid * patch ...]; L is the product of `grid`.
at::Tensor unpatchify(const at::Tensor& tokens, at::IntArrayRef grid, int64_t patch,
                      PatchOrder order);

}  // namespace vitrail::ops
