// Scores and pixels of mixed-resolution patches against whole images resized, and what a GPU's threads add up against
// the CPU's loops.

#include <cstdio>
#include <limits>
#include <set>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/mixed_resolution_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/patching/blur_scores_lane.h"

namespace vitrail::models {
namespace {

using patching::BlurLevel;

/// A few hundred rounded squares in lanes, then a root, against fp64.
constexpr double kScoreTolerance = 1e-6;
/// Weights are quarters: sums of four round in another order.
constexpr double kPixelTolerance = 1e-6;

struct Case {
  int64_t batch, channels, height, width, patch, largest;
};
/// Edges below and above a strip, with more and fewer pieces than lanes, no power of two among them; levels of one
/// patch only.
const std::vector<Case> kCases{{3, 3, 32, 48, 4, 16},     {2, 1, 24, 48, 3, 24},
                               {2, 2, 128, 256, 16, 128}, {1, 3, 48, 40, 1, 8},
                               {2, 3, 34, 68, 17, 34},    {1, 4, 64, 64, 16, 64}};

config::Model options_of(const Case& one) {
  config::Model options = mixed_options("pixel_blur");
  options.image_size = {one.height, one.width};
  options.in_channels = one.channels;
  options.patch_size = one.patch;
  options.mixed_resolution.max_patch = one.largest;
  const int64_t first = one.height / one.largest * (one.width / one.largest);
  const int64_t finest = one.height / one.patch * (one.width / one.patch);
  options.mixed_resolution.num_tokens = std::min(first + 24, finest);
  return options;
}

at::Tensor resized(const at::Tensor& image, int64_t height, int64_t width) {
  return at::upsample_bilinear2d(image, {height, width}, false, std::nullopt, std::nullopt);
}

/// Whole images resized twice, in fp64.
at::Tensor plain_scores(const at::Tensor& image, int64_t edge, int64_t factor) {
  const int64_t height = image.size(2), width = image.size(3);
  const at::Tensor wide = image.to(at::kDouble);
  const at::Tensor lost =
      resized(resized(wide, height / factor, width / factor), height, width) - wide;
  return lost.square()
      .unflatten(3, {width / edge, edge})
      .unflatten(2, {height / edge, edge})
      .mean({1, 3, 5})
      .mul(static_cast<double>(edge))
      .sqrt();
}

TEST(MixedBlur, ScoresAreThoseOfWholeImagesResized) {
  double worst = 0.0;
  for (const Case& one : kCases) {
    const config::Model options = options_of(one);
    const at::Tensor image = mixed_images(options, one.batch) + 0.5;
    const auto scores = MixedResolution(options).scores(image, {}, mixed_draws(one.batch));
    for (size_t level = 1; level < scores.size(); ++level) {
      const at::Tensor plain = plain_scores(image, one.patch << level, int64_t{1} << level);
      ASSERT_EQ(scores[level].sizes(), plain.sizes());
      ASSERT_GT(plain.min().item<double>(), 0.0);
      worst = std::max(worst, ((scores[level] - plain).abs() / plain).max().item<double>());
    }
  }
  printf("worst relative difference %.1e (allowed %.0e)\n", worst, kScoreTolerance);
  EXPECT_LE(worst, kScoreTolerance);
}

BlurLevel blur_level(const Case& one, const at::Tensor& image, int32_t level) {
  BlurLevel blur;
  blur.image = image.const_data_ptr<float>();
  blur.batch = one.batch, blur.channels = one.channels;
  blur.height = static_cast<int32_t>(one.height), blur.width = static_cast<int32_t>(one.width);
  blur.patch = static_cast<int32_t>(one.patch), blur.level = level;
  return blur;
}

/// A block of threads, one after another.
float score_by_lanes(const BlurLevel& blur, int32_t patch) {
  const int32_t lanes = patching::lanes_of(blur);
  std::vector<float> sums;
  for (int32_t lane = 0; lane < lanes; ++lane) sums.push_back(lane_sum(blur, patch, lane));
  for (size_t half = sums.size() / 2; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return patching::blur_score(blur, sums[0]);
}

TEST(MixedBlur, ThreadsOfAGpuAddTheSameNumbersInTheSameOrder) {
  for (const Case& one : kCases) {
    const config::Model options = options_of(one);
    const at::Tensor image = mixed_images(options, one.batch);
    const auto scores = MixedResolution(options).scores(image, {}, mixed_draws(one.batch));
    for (size_t level = 1; level < scores.size(); ++level) {
      const BlurLevel blur = blur_level(one, image, static_cast<int32_t>(level));
      ASSERT_EQ(blur.patches(), scores[level].numel());
      for (int32_t patch = 0; patch < blur.patches(); ++patch)
        ASSERT_EQ(score_by_lanes(blur, patch), scores[level].const_data_ptr<float>()[patch])
            << "edge " << blur.edge() << " patch " << patch;
    }
  }
}

TEST(MixedBlur, RepeatsItsBitsForEveryNumberOfThreads) {
  const Case one{5, 3, 256, 256, 16, 64};
  const config::Model options = options_of(one);
  const MixedResolution mixed(options);
  const at::Tensor image = mixed_images(options, one.batch);
  const auto all = mixed.scores(image, {}, mixed_draws(one.batch));
  const int before = at::get_num_threads();
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    const auto alone = mixed.scores(image.slice(0, 4, 5), {}, mixed_draws(1));
    for (size_t level = 1; level < all.size(); ++level)
      EXPECT_TRUE(at::equal(alone[level][0], all[level][4]));
  }
  at::set_num_threads(before);
}

TEST(MixedBlur, NanCountsAsNothingAndInfinityAsTheLargestFloat) {
  const Case one{2, 3, 32, 48, 4, 16};
  const config::Model options = options_of(one);
  at::Tensor image = mixed_images(options, one.batch);
  image[0][1][20][20] = std::numeric_limits<float>::quiet_NaN();
  image[1][0][0][0] = std::numeric_limits<float>::infinity();  // in no mean
  const auto scores = MixedResolution(options).scores(image, {}, mixed_draws(one.batch));
  EXPECT_EQ(scores[1][0][2][2].item<float>(), 0.0f);
  EXPECT_GT(scores[1][0][0][0].item<float>(), 0.0f);
  EXPECT_EQ(scores[2][1][0][0].item<float>(), std::numeric_limits<float>::max());
}

TEST(MixedBlur, RefusesPatchesThatDoNotTile) {
  const Case one{1, 3, 32, 48, 4, 16};
  const at::Tensor image = random({1, 3, 32, 48});
  BlurLevel blur = blur_level(one, image, 3);
  EXPECT_NO_THROW(patching::check_blur_level(blur_level(one, image, 2)));
  EXPECT_THROW(patching::blur_scores(blur), core::Error);  // 48 is no multiple of 32
  blur.level = 0;
  EXPECT_THROW(patching::blur_scores(blur), core::Error);
}

/// The patch `box` of the whole image resized: [C, P^2].
at::Tensor plain_token(const std::vector<at::Tensor>& pyramid, int64_t b, const at::Tensor& box,
                       int64_t patch) {
  const auto corner = [&](int k) { return static_cast<int64_t>(box[k].item<float>()); };
  size_t level = 0;
  while (patch << level < corner(2) - corner(0)) ++level;
  const int64_t y = corner(0) >> level, x = corner(1) >> level;
  return pyramid[level][b].slice(1, y, y + patch).slice(2, x, x + patch).flatten(1);
}

TEST(MixedBlur, TokensAreThoseOfWholeImagesResized) {
  double worst = 0.0;
  std::set<double> edges;
  for (const Case& one : kCases) {
    const config::Model options = options_of(one);
    const MixedResolution mixed(options);
    const at::Tensor image = mixed_images(options, one.batch);
    std::vector<at::Tensor> pyramid{image};
    for (int64_t factor = 2; factor * one.patch <= one.largest; factor *= 2)
      pyramid.push_back(resized(image, one.height / factor, one.width / factor));
    const patching::LeafTensors leaves = mixed.leaves_of(image, {}, mixed_draws(one.batch));
    for (int64_t b = 0; b < one.batch; ++b)
      for (int64_t i = 0; i < leaves.boxes.size(1); ++i) {
        const at::Tensor box = leaves.boxes[b][i];
        edges.insert((box[2] - box[0]).item<double>() / static_cast<double>(one.patch));
        const at::Tensor found = leaves.tokens.select(2, i)[b];
        worst = std::max(
            worst, (found - plain_token(pyramid, b, box, one.patch)).abs().max().item<double>());
      }
  }
  printf("worst difference %.1e (allowed %.0e)\n", worst, kPixelTolerance);
  EXPECT_LE(worst, kPixelTolerance);
  EXPECT_EQ(edges, (std::set<double>{1, 2, 4, 8}));
}

}  // namespace
}  // namespace vitrail::models
