#include "vitrail/models/mixed_resolution.h"

#include <limits>
#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/ranges.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"
#include "vitrail/patching/blur_scores.h"
#include "vitrail/patching/stream.h"

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
  const at::Tensor pixels = image.to(at::kFloat).contiguous();
  const at::Tensor boxes =
      patching::divide(scores(pixels, pixel_range, draws), patch_,
                       options_.mixed_resolution.num_tokens, patching::Order::morton);
  return {tokens(pixels, boxes), boxes};
}

std::vector<at::Tensor> MixedResolution::blurred(const at::Tensor& image) const {
  std::vector<at::Tensor> copies;
  for (int64_t level = 1; level < levels_; ++level)
    copies.push_back(resized(resized(image, {image.size(2) >> level, image.size(3) >> level}),
                             {image.size(2), image.size(3)}));
  return copies;
}

std::vector<at::Tensor> MixedResolution::scores(const at::Tensor& image,
                                                const at::Tensor& pixel_range,
                                                const nn::Draws& draws) const {
  check_image(options_, options_.in_channels, image);
  const at::NoGradGuard no_grad;
  const std::string& scorer = options_.mixed_resolution.scorer.value;
  const std::vector<int64_t> finest = grid(0);
  std::vector<at::Tensor> scores;
  if (scorer == "pixel_blur") {
    scores = blur_scores(image);
  } else {
    scores = scorer == "feature_based" ? feature_scores(image, pixel_range)
             : scorer == "given"       ? given_scores(image)
                                       : random_scores(draws);
    for (at::Tensor& score : scores) score = at::nan_to_num(score, 0.0).contiguous();
  }
  scores.insert(scores.begin(), at::zeros({image.size(0), finest[0], finest[1]},
                                          image.options().dtype(at::kFloat)));
  return scores;
}

std::vector<at::Tensor> MixedResolution::blur_scores(const at::Tensor& image) const {
  const at::Tensor pixels = image.to(at::kFloat).contiguous();
  patching::BlurLevel blur;
  blur.image = pixels.const_data_ptr<float>();
  blur.batch = pixels.size(0), blur.channels = pixels.size(1);
  blur.height = static_cast<int32_t>(pixels.size(2));
  blur.width = static_cast<int32_t>(pixels.size(3));
  blur.patch = static_cast<int32_t>(patch_);
  std::vector<at::Tensor> scores;
  const c10::DeviceGuard guard(pixels.device());
  for (int64_t level = 1; level < levels_; ++level) {
    const std::vector<int64_t> cells = grid(level);
    scores.push_back(at::empty({blur.batch, cells[0], cells[1]}, pixels.options()));
    blur.level = static_cast<int32_t>(level);
    blur.scores = scores.back().mutable_data_ptr<float>();
    if (pixels.is_cpu())
      patching::blur_scores(blur);
    else
      patching::blur_scores_gpu(blur, patching::current_stream(pixels.device()));
  }
  return scores;
}

std::vector<at::Tensor> MixedResolution::feature_scores(const at::Tensor& image,
                                                        const at::Tensor& pixel_range) const {
  std::vector<at::Tensor> scores;
  if (levels_ == 1) return scores;
  const at::Tensor losses = features_->losses(image, pixel_range, blurred(image));
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

at::Tensor MixedResolution::tokens(const at::Tensor& image, const at::Tensor& boxes) const {
  const at::NoGradGuard no_grad;
  return patching::serialise(image, boxes, patch_, patching::Resample::linear);
}

}  // namespace vitrail::models
