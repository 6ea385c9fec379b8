#include "vitrail/models/feature_scorer.h"

#include <algorithm>
#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/where.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/models/weights.h"

namespace vitrail::models {
namespace {

/// What takes the source's pixels to ImageNet's normalisation: pixel * scale + shift, each [B, 3, 1, 1].
struct Affine {
  at::Tensor scale, shift;
};

Affine to_image_net(const at::Tensor& image, const at::Tensor& pixel_range,
                    const at::Tensor& statistics_23) {
  const at::Tensor least = image.amin({1, 2, 3}, /*keepdim=*/true);
  const at::Tensor largest = image.amax({1, 2, 3}, /*keepdim=*/true);
  at::Tensor black = least, white = largest;
  if (pixel_range.defined()) {
    const at::Tensor range_BC211 = pixel_range.to(image.options()).unsqueeze(-1).unsqueeze(-1);
    const at::Tensor from = range_BC211.select(2, 0), to = range_BC211.select(2, 1);
    const at::Tensor none = from.eq(to);
    black = at::where(none, least, from), white = at::where(none, largest, to);
  }
  const at::Tensor range = white - black;
  const at::Tensor mean = statistics_23[0].view({1, 3, 1, 1});
  const at::Tensor deviation = statistics_23[1].view({1, 3, 1, 1});
  // A flat image is black.
  const at::Tensor unit = (range + range.eq(0)).reciprocal();
  return {unit / deviation, (-black * unit - mean) / deviation};
}

at::Tensor resized(const at::Tensor& image, int64_t height, int64_t width) {
  return at::upsample_bilinear2d(image, {height, width}, /*align_corners=*/false, std::nullopt,
                                 std::nullopt);
}

}  // namespace

FeatureScorer::FeatureScorer(const std::string& weights)
    : network_(read_tensors(weights), weights),
      statistics_(at::tensor({0.485, 0.456, 0.406, 0.229, 0.224, 0.225}, at::kFloat).view({2, 3})) {
}

at::Tensor FeatureScorer::losses(const at::Tensor& image, const at::Tensor& pixel_range,
                                 const std::vector<at::Tensor>& blurred) const {
  VT_CHECK(image.defined() && image.dim() == 4 && image.size(1) == 3,
           "[scorer] feature_based needs images [B, 3, H, W] but got [{}]",
           image.defined() ? fmt::format("{}", fmt::join(image.sizes(), ", ")) : "");
  const at::NoGradGuard no_grad;
  if (statistics_.device() != image.device()) statistics_ = statistics_.to(image.device());
  const at::Tensor wide = image.to(at::kFloat);
  std::vector<at::Tensor> copies{wide};
  for (const at::Tensor& copy : blurred) copies.push_back(copy.to(at::kFloat));
  const auto [scale, shift] = to_image_net(wide, pixel_range, statistics_);
  // Resizing keeps sums of weights at 1, so that it may come before the change of normalisation.
  const at::Tensor pixels = at::addcmul(shift, at::stack(copies), scale);
  const at::Tensor features = network_.features(pixels.flatten(0, 1));
  const at::Tensor by_copy =
      features.unflatten(0, {static_cast<int64_t>(copies.size()), image.size(0)});
  return (by_copy.slice(0, 1) - by_copy.slice(0, 0, 1)).square_().mean(2);
}

at::Tensor FeatureScorer::importance(const at::Tensor& image, const at::Tensor& pixel_range) const {
  VT_CHECK(image.defined() && image.dim() == 4 && image.numel() > 0,
           "[scorer] importance needs images of at least one pixel but got [{}]",
           image.defined() ? fmt::format("{}", fmt::join(image.sizes(), ", ")) : "");
  const at::NoGradGuard no_grad;
  const int64_t height = image.size(2), width = image.size(3);
  const at::Tensor half =
      resized(image, std::max<int64_t>(1, height / 2), std::max<int64_t>(1, width / 2));
  const at::Tensor loss =
      at::nan_to_num(losses(image, pixel_range, {resized(half, height, width)}), 0.0).select(0, 0);
  const at::Tensor largest = loss.amax({1, 2}, /*keepdim=*/true);
  const at::Tensor bytes = (loss / (largest + largest.eq(0)) * 255.0).round_().unsqueeze(1);
  const int64_t stride = nn::ShuffleNet::kStride;
  return at::upsample_nearest2d(bytes, {loss.size(1) * stride, loss.size(2) * stride}, std::nullopt,
                                std::nullopt)
      .select(1, 0)
      .slice(1, 0, height)
      .slice(2, 0, width)
      .to(at::kByte)
      .contiguous();
}

}  // namespace vitrail::models
