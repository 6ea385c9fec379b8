#pragma once
/// Sine-cosine positions of leaves, at the fractional places of their centres.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vitrail::models {

/// One row per leaf, fp32 [B, L, width]; padding leaves (no extent) have rows of zeros. With w = width / k for k axes and
/// e(t) = [sin(t f_0), ..., sin(t f_{w/2-1}), cos(t f_0), ...], f_j = exp(-ln(10000) j / (w/2 - 1)), a row is
/// [e(c_last), ..., e(c_first)]: the last axis first, so x, y in images and x, y, z in volumes. c is the leaf's centre in
/// units of `unit_pixels`: with a unit of the smallest patch these are at j + 0.5, patches twice as large at odd numbers.
/// boxes_BLx2k: as data::Batch::leaf_boxes.
/// Paper    Ronen et al. 2023, arXiv:2304.00287, and its reference code.
/// Differs  ops::sincos_table has f_j = 10000^(-j / (w/2)) and whole numbers.
/// throws   ConfigError when width is not a multiple of 2k or below 4k; Error for boxes of another shape.
at::Tensor sincos_of_leaves(const at::Tensor& boxes_BLx2k, double unit_pixels, int64_t width);

}  // namespace vitrail::models
