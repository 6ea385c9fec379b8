#pragma once
/// Linear resizing over any number of axes.

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// x [B, C, sides...] -> [B, C, new sides...], linear along each axis with the corner values kept in place ("align
/// corners": new place i reads old place i * (old - 1) / (new - 1)); bilinear in 2-D, trilinear in 3-D.
/// One product with a small matrix of weights per axis, so that forward and backward add in a fixed order on every
/// device, where ATen's backward adds atomically on GPUs.
/// throws Error when the numbers of axes differ or a side is not positive.
at::Tensor resize_linear(const at::Tensor& x, at::IntArrayRef sides);

}  // namespace vitrail::ops
