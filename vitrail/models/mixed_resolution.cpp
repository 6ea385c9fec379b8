#include "vitrail/models/mixed_resolution.h"

#include <cmath>
#include <limits>
#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

/// Of Stream::patch_drop, whose layer 0 chooses the tokens that run.
constexpr uint16_t kScoreLayer = 1;

at::Tensor resized(const at::Tensor& image, at::IntArrayRef sides) {
  return at::upsample_bilinear2d(image, sides, /*align_corners=*/false, std::nullopt, std::nullopt);
}

/// Sums of `factor` neighbours along an axis.
at::Tensor sum_neighbours(const at::Tensor& x, int64_t axis, int64_t factor) {
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  at::Tensor sum = x.slice(axis, 0, kEnd, factor);
  for (int64_t i = 1; i < factor; ++i) sum = sum + x.slice(axis, i, kEnd, factor);
  return sum;
}

/// Sums over squares of edge^2 pixels, x [B, H, W]. By halves: in this order whatever the batch and the device, where a
/// reduction's depends on both, so that equal images are divided equally everywhere.
at::Tensor square_sums(at::Tensor x, int64_t edge) {
  while (edge > 1) {
    const int64_t factor = edge % 2 == 0 ? 2 : edge;
    x = sum_neighbours(sum_neighbours(x, 1, factor), 2, factor);
    edge /= factor;
  }
  return x;
}

/// float [B, h, w] -> [B, grid]: averages where the map is finer by whole numbers, otherwise interpolated.
at::Tensor fit_to_grid(const at::Tensor& map, at::IntArrayRef grid) {
  if (map.sizes().slice(1) == grid) return map;
  const at::Tensor map_B1hw = map.unsqueeze(1);
  if (map.size(1) % grid[0] != 0 || map.size(2) % grid[1] != 0)
    return resized(map_B1hw, grid).squeeze(1);
  return at::avg_pool2d(map_B1hw, {map.size(1) / grid[0], map.size(2) / grid[1]}).squeeze(1);
}

}  // namespace

int64_t MixedResolution::count_levels(const config::Model& options) {
  int64_t edge = options.patch_size, levels = 1;
  for (; edge >= 1 && edge < options.mixed_resolution.max_patch; edge *= 2) ++levels;
  return edge == options.mixed_resolution.max_patch ? levels : 0;
}

MixedResolution::MixedResolution(const config::Model& options)
    : options_(options), patch_(options.patch_size), levels_(count_levels(options)) {
  const config::MixedResolution& mixed = options.mixed_resolution;
  VT_REQUIRE(ConfigError, mixed.min_patch.value_or(patch_) == patch_,
             "[config] model.mixed_resolution.min_patch must equal model.patch_size but got {} and "
             "{}",
             *mixed.min_patch, patch_);
  VT_REQUIRE(ConfigError, levels_ > 0,
             "[config] model.mixed_resolution.max_patch must be model.patch_size times a power of "
             "two but got {} and {}",
             mixed.max_patch, patch_);
  VT_REQUIRE(ConfigError,
             options.image_size.size() == 2 && options.image_size[0] % mixed.max_patch == 0 &&
                 options.image_size[1] % mixed.max_patch == 0,
             "[config] model.image_size must have 2 sides, multiples of "
             "model.mixed_resolution.max_patch, but got [{}] and {}",
             fmt::join(options.image_size, ", "), mixed.max_patch);
  VT_REQUIRE(ConfigError,
             mixed.scorer != "given" ||
                 (mixed.scorer_channel >= 0 && mixed.scorer_channel < options.in_channels),
             "[config] model.mixed_resolution.scorer_channel must be one of {} channels but got {}",
             options.in_channels, mixed.scorer_channel);
  if (mixed.scorer == "feature_based")
    features_ = std::make_shared<const FeatureScorer>(mixed.scorer_weights);
}

std::vector<int64_t> MixedResolution::grid(int64_t level) const {
  const int64_t edge = patch_ << level;
  return {options_.image_size[0] / edge, options_.image_size[1] / edge};
}

patching::LeafTensors MixedResolution::leaves_of(const at::Tensor& image,
                                                 const at::Tensor& pixel_range,
                                                 const nn::Draws& draws) const {
  check_image(options_, options_.in_channels, image);
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> levels = pyramid(image.to(at::kFloat));
  const at::Tensor boxes =
      patching::divide(scores(levels, pixel_range, draws), patch_,
                       options_.mixed_resolution.num_tokens, patching::Order::morton);
  return {tokens(levels, boxes), boxes};
}

std::vector<at::Tensor> MixedResolution::pyramid(const at::Tensor& image) const {
  std::vector<at::Tensor> levels{image};
  for (int64_t level = 1; level < levels_; ++level)
    levels.push_back(resized(image, {image.size(2) >> level, image.size(3) >> level}));
  return levels;
}

std::vector<at::Tensor> MixedResolution::scores(const std::vector<at::Tensor>& pyramid,
                                                const at::Tensor& pixel_range,
                                                const nn::Draws& draws) const {
  const at::NoGradGuard no_grad;
  const std::string& scorer = options_.mixed_resolution.scorer.value;
  const at::Tensor& image = pyramid[0];
  const std::vector<int64_t> finest = grid(0);
  std::vector<at::Tensor> scores = scorer == "pixel_blur" ? blur_scores(pyramid)
                                   : scorer == "feature_based"
                                       ? feature_scores(pyramid, pixel_range)
                                   : scorer == "given" ? given_scores(image)
                                                       : random_scores(draws);
  for (at::Tensor& score : scores) score = at::nan_to_num(score, 0.0).contiguous();
  scores.insert(scores.begin(), at::zeros({image.size(0), finest[0], finest[1]}, image.options()));
  return scores;
}

std::vector<at::Tensor> MixedResolution::blur_scores(const std::vector<at::Tensor>& pyramid) const {
  const at::Tensor& image = pyramid[0];
  std::vector<at::Tensor> scores;
  for (int64_t level = 1; level < levels_; ++level) {
    const int64_t edge = patch_ << level;
    const at::Tensor loss =
        at::mse_loss(resized(pyramid[level], options_.image_size), image, at::Reduction::None);
    // edge * sum / (C edge^2)
    scores.push_back(square_sums(loss.sum(1), edge)
                         .mul(1.0 / static_cast<double>(options_.in_channels * edge))
                         .sqrt_());
  }
  return scores;
}

std::vector<at::Tensor> MixedResolution::feature_scores(const std::vector<at::Tensor>& pyramid,
                                                        const at::Tensor& pixel_range) const {
  std::vector<at::Tensor> blurred, scores;
  for (int64_t level = 1; level < levels_; ++level)
    blurred.push_back(resized(pyramid[level], options_.image_size));
  if (blurred.empty()) return scores;
  const at::Tensor losses = features_->losses(pyramid[0], pixel_range, blurred);
  for (int64_t level = 1; level < levels_; ++level)
    scores.push_back(fit_to_grid(losses[level - 1], grid(level)));
  return scores;
}

std::vector<at::Tensor> MixedResolution::given_scores(const at::Tensor& image) const {
  std::vector<at::Tensor> scores;
  at::Tensor sums = square_sums(image.select(1, options_.mixed_resolution.scorer_channel), patch_);
  for (int64_t level = 1; level < levels_; ++level) {
    const auto edge = static_cast<double>(patch_ << level);
    sums = square_sums(sums, 2);
    scores.push_back(sums * (1.0 / (edge * edge)));
  }
  return scores;
}

std::vector<at::Tensor> MixedResolution::random_scores(const nn::Draws& draws) const {
  int64_t cells = 0;
  for (int64_t level = 1; level < levels_; ++level) cells += grid(level)[0] * grid(level)[1];
  const core::DrawKey key{draws.seed, core::Stream::patch_drop, draws.training ? draws.step : 0,
                          kScoreLayer};
  const at::Tensor values = ops::uniform(key, draws.sample_ids, cells);
  std::vector<at::Tensor> scores;
  for (int64_t level = 1, first = 0; level < levels_; ++level) {
    const std::vector<int64_t> cells_of = grid(level);
    const int64_t count = cells_of[0] * cells_of[1];
    scores.push_back(values.slice(1, first, first + count).unflatten(1, cells_of));
    first += count;
  }
  return scores;
}

at::Tensor MixedResolution::tokens(const std::vector<at::Tensor>& pyramid,
                                   const at::Tensor& boxes) const {
  const at::NoGradGuard no_grad;
  const at::Tensor& image = pyramid[0];
  std::vector<at::Tensor> rows;
  std::vector<int64_t> starts, widths;  // of each level, in pixels
  int64_t pixels = 0;
  for (const at::Tensor& level : pyramid) {
    rows.push_back(level.flatten(2));
    starts.push_back(pixels), widths.push_back(level.size(3));
    pixels += level.size(2) * level.size(3);
  }
  const at::Tensor all_BCT = rows.size() > 1 ? at::cat(rows, 2) : rows[0];
  const at::Tensor level_Bn = levels_of(boxes, patch_);
  const auto by_level = [&](const std::vector<int64_t>& values) {
    return indices_.on(image.device(), values).take(level_Bn);
  };
  const at::Tensor width_Bn = by_level(widths);
  // In pixels of the patch's own level.
  const at::Tensor low_Bn2 =
      boxes.slice(2, 0, 2).to(at::kLong).bitwise_right_shift(level_Bn.unsqueeze(-1));
  const at::Tensor first_Bn =
      by_level(starts) + low_Bn2.select(2, 0) * width_Bn + low_Bn2.select(2, 1);
  const at::Tensor offset = at::arange(patch_, level_Bn.options());
  const at::Tensor place_BnPP = first_Bn.unsqueeze(-1).unsqueeze(-1) +
                                width_Bn.unsqueeze(-1).unsqueeze(-1) * offset.unsqueeze(-1) +
                                offset;
  const at::Tensor place_BCT = place_BnPP.flatten(1).unsqueeze(1).expand({-1, image.size(1), -1});
  return all_BCT.gather(2, place_BCT).unflatten(2, {boxes.size(1), patch_ * patch_});
}

}  // namespace vitrail::models
