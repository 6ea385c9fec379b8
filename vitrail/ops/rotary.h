#pragma once
/// Rotary positions: pairs of neighbouring channels of q and k turned by an angle per token.
///
/// Paper    Su et al. 2021, arXiv:2104.09864; pairs (2k, 2k + 1) as in Llama.
/// Shapes   B batch, T tokens, N heads, E head width, L patches of a grid, K kept patches.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// cos and sin of every token's angles, fp32 [1 or B, T, E / 2]; or [1 or B, N, T, E / 2] where heads turn differently.
struct Rotary {
  at::Tensor cos, sin;
  bool defined() const { return cos.defined(); }
};

/// Angle of patch i: i * theta^(-2k / E), i the raster index; `prefix` tokens before the patches are not turned.
/// throws ConfigError when E is odd.
Rotary raster_rotary(at::IntArrayRef grid, int64_t prefix, int64_t head_width, double theta);

/// Each axis turns its own equal part of the E / 2 pairs by coordinate * theta^(-j / (E / (2 axes))), j counted within
/// the part; axes in order.
/// throws ConfigError when E is not a multiple of 2 * axes.
Rotary axial_rotary(at::IntArrayRef grid, int64_t prefix, int64_t head_width, double theta);

/// The rows of the prefix and of the patches ids_BK: [B, prefix + K, E / 2].
Rotary gather(const Rotary& rotary, const at::Tensor& ids_BK, int64_t prefix);

/// x_BNTE turned; computed in fp32 (fp64 for fp64), returned in x's type. Differentiable in x; in tables with heads too.
at::Tensor rotate(const at::Tensor& x_BNTE, const Rotary& rotary);

}  // namespace vitrail::ops
