#include "vitrail/ops/image_quality.h"

#include <array>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"

namespace vitrail::ops {
namespace {

constexpr double kSigma = 1.5;

std::array<double, kSimilarityWindow> window() {
  std::array<double, kSimilarityWindow> weights{};
  double sum = 0;
  for (int64_t i = 0; i < kSimilarityWindow; ++i) {
    const double distance = static_cast<double>(i - kSimilarityWindow / 2) / kSigma;
    sum += weights[i] = std::exp(-distance * distance / 2);
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// Local means where the window fits; the Gaussian is separable, so one axis after another.
at::Tensor local_mean(at::Tensor x) {
  static const std::array<double, kSimilarityWindow> weights = window();
  for (int64_t axis = 2; axis < x.dim(); ++axis) {
    const int64_t places = x.size(axis) - kSimilarityWindow + 1;
    at::Tensor mean = x.narrow(axis, 0, places) * weights[0];
    for (int64_t i = 1; i < kSimilarityWindow; ++i)
      mean.add_(x.narrow(axis, i, places), weights[i]);
    x = mean;
  }
  return x;
}

}  // namespace

at::Tensor structural_similarity(const at::Tensor& a, const at::Tensor& b, double data_range) {
  VT_CHECK(a.dim() >= 4 && a.sizes().equals(b.sizes()),
           "[ssim] images must be [B, C, sides...] alike but got [{}] and [{}]",
           fmt::join(a.sizes(), ", "), fmt::join(b.sizes(), ", "));
  for (const int64_t side : a.sizes().slice(2))
    VT_CHECK(side >= kSimilarityWindow, "[ssim] no side must be below {} but got [{}]",
             kSimilarityWindow, fmt::join(a.sizes(), ", "));
  VT_CHECK(data_range > 0, "[ssim] data_range must be above 0 but got {}", data_range);
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double c1 = std::pow(0.01 * data_range, 2), c2 = std::pow(0.03 * data_range, 2);
  const at::Tensor mean_x = local_mean(x), mean_y = local_mean(y);
  const at::Tensor squares = mean_x.square() + mean_y.square(), product = mean_x * mean_y;
  const at::Tensor covariance = local_mean(x * y) - product;
  const at::Tensor variances = local_mean(x.square() + y.square()) - squares;
  const at::Tensor similarity =
      (2.0 * product + c1) * (2.0 * covariance + c2) / ((squares + c1) * (variances + c2));
  return similarity.flatten(1).mean(1);
}

}  // namespace vitrail::ops
