#pragma once
/// From images to the rows that a trunk reads.
///
/// Device   CUDA with bf16 results: kernels/embed.h; else plain ATen.
/// Shapes   B batch, L tokens, P prefix tokens (class, registers), D width.

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// Patches of an image [B, C, sides...] in a convolution's order (ops/patch.h), in `dtype`: [B, L, S].
at::Tensor embed_patches(const at::Tensor& image, int64_t patch, at::ScalarType dtype);

/// [prefix_1PD for every sample; x_BLD + positions] -> [B, P + L, D]. prefix or positions undefined: none;
/// positions [1 or B, L, D].
at::Tensor join_tokens(const at::Tensor& prefix_1PD, const at::Tensor& x_BLD,
                       const at::Tensor& positions);

}  // namespace vitrail::ops
