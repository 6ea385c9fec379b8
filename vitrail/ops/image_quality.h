#pragma once
/// How alike two images or volumes look.

#include <vector>

#include <ATen/core/Tensor.h>

namespace vitrail::ops {

/// Sides of the window of `structural_similarity`; smaller images have none.
constexpr int64_t kSimilarityWindow = 11;

/// Mean structural similarity of each pair, fp64 [B]: over channels and over every place where the
/// whole window fits.
///
/// Window   Gaussian, 11 wide, sigma 1.5, along every axis; population variances; k1 0.01, k2 0.03.
/// Equals   MONAI's SSIMMetric; scikit-image's structural_similarity(gaussian_weights=True,
///          sigma=1.5, use_sample_covariance=False), there averaged over channels.
/// Paper    Wang et al. 2004, IEEE Transactions on Image Processing 13(4).
/// Shapes   a and b [B, C, sides...] alike, 2-D or 3-D; no side below 11.
/// throws   Error naming the shapes; data_range not above zero.
at::Tensor structural_similarity(const at::Tensor& a, const at::Tensor& b, double data_range);

}  // namespace vitrail::ops
