#include "vitrail/models/mixed_resolution.h"

#include <cmath>
#include <limits>
#include <set>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/mixed_resolution_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/leaf_grid.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {
namespace {

/// Sums of some hundred squares of fp32 in another order, then a root.
constexpr double kScoreTolerance = 1e-5;
/// Weights of a resized pixel are quarters here, so that only sums round.
constexpr double kPixelTolerance = 1e-6;

double score_of(const at::Tensor& scores, int64_t b, int64_t y, int64_t x) {
  return scores[b][y][x].item<float>();
}

/// sqrt(edge * mean squared difference) by loops.
double plain_blur_score(const at::Tensor& image, int64_t b, int64_t edge, int64_t patch, int64_t y,
                        int64_t x) {
  const auto factor = static_cast<size_t>(edge / patch);
  double sum = 0.0;
  for (int64_t c = 0; c < image.size(1); ++c) {
    const Plane plane = plane_of(image, b, c);
    const size_t height = plane.size(), width = plane[0].size();
    const Plane blurred =
        plain_resize(plain_resize(plane, height / factor, width / factor), height, width);
    for (int64_t i = y * edge; i < (y + 1) * edge; ++i)
      for (int64_t j = x * edge; j < (x + 1) * edge; ++j)
        sum += (blurred[i][j] - plane[i][j]) * (blurred[i][j] - plane[i][j]);
  }
  const auto e = static_cast<double>(edge);
  return std::sqrt(e * sum / (static_cast<double>(image.size(1)) * e * e));
}

TEST(MixedResolution, PixelBlurScoresAgreeWithPlainLoops) {
  const config::Model options = mixed_options("pixel_blur");
  const MixedResolution mixed(options);
  const at::Tensor image = mixed_images(options, 2);
  const auto scores = mixed.scores(image, {}, mixed_draws(2));
  ASSERT_EQ(scores.size(), 3u);
  EXPECT_EQ(scores[0].sizes(), at::IntArrayRef({2, 8, 12}));
  EXPECT_EQ(scores[0].abs().max().item<float>(), 0.0f);
  double worst = 0.0;
  for (int64_t level = 1; level < 3; ++level)
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t y = 0; y < scores[level].size(1); ++y)
        for (int64_t x = 0; x < scores[level].size(2); ++x) {
          const double plain = plain_blur_score(image, b, 4 << level, 4, y, x);
          ASSERT_GT(plain, 0.0);
          worst = std::max(worst, std::abs(score_of(scores[level], b, y, x) - plain) / plain);
        }
  printf("worst relative difference %.1e (allowed %.0e)\n", worst, kScoreTolerance);
  EXPECT_LE(worst, kScoreTolerance);
}

TEST(MixedResolution, GivenScoresAreMeansOfOneChannel) {
  config::Model options = mixed_options("given");
  options.patch_size = 6;  // not a power of two
  options.image_size = {48, 24};
  options.mixed_resolution.max_patch = 24;
  options.mixed_resolution.num_tokens = 8;
  options.mixed_resolution.scorer_channel = 2;
  const MixedResolution mixed(options);
  const at::Tensor image = random({2, 3, 48, 24});
  const auto scores = mixed.scores(image, {}, mixed_draws(2));
  double worst = 0.0;
  for (int64_t level = 1; level < 3; ++level) {
    const int64_t edge = 6 << level;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t y = 0; y < 48 / edge; ++y)
        for (int64_t x = 0; x < 24 / edge; ++x) {
          const at::Tensor cell =
              image[b][2].slice(0, y * edge, (y + 1) * edge).slice(1, x * edge, (x + 1) * edge);
          worst = std::max(worst, std::abs(score_of(scores[level], b, y, x) -
                                           cell.to(at::kDouble).mean().item<double>()));
        }
  }
  printf("worst difference %.1e (allowed %.0e)\n", worst, kScoreTolerance);
  EXPECT_LE(worst, kScoreTolerance);
}

TEST(MixedResolution, RandomScoresAreTheSamplesOwnAndNewAtEveryTrainingStep) {
  const config::Model options = mixed_options("random");
  const MixedResolution mixed(options);
  const auto draw = [&](int64_t size, bool training, uint32_t step, int64_t first) {
    const auto scores =
        mixed.scores(mixed_images(options, size), {}, mixed_draws(size, training, step, first));
    return at::cat({scores[1].flatten(1), scores[2].flatten(1)}, 1);
  };
  const at::Tensor together = draw(3, true, 5, 0);
  EXPECT_TRUE(at::equal(together.slice(0, 2, 3), draw(1, true, 5, 2)));
  EXPECT_FALSE(at::equal(together[0], together[1]));
  EXPECT_FALSE(at::equal(together, draw(3, true, 6, 0)));
  EXPECT_TRUE(at::equal(draw(3, false, 5, 0), draw(3, false, 6, 0)));
  std::set<float> values;
  const at::Tensor flat = together.flatten().contiguous();
  for (int64_t i = 0; i < flat.numel(); ++i) values.insert(flat.const_data_ptr<float>()[i]);
  EXPECT_EQ(static_cast<int64_t>(values.size()), flat.numel()) << "scores repeat";
}

TEST(MixedResolution, NanAndConstantImagesHaveFiniteScores) {
  const config::Model options = mixed_options("pixel_blur");
  const MixedResolution mixed(options);
  at::Tensor image = mixed_images(options, 2);
  image[0][1][3][3] = std::numeric_limits<float>::quiet_NaN();
  image[1].fill_(0.25);
  const auto scores = mixed.scores(image, {}, mixed_draws(2));
  for (const at::Tensor& score : scores) EXPECT_TRUE(at::isfinite(score).all().item<bool>());
  EXPECT_EQ(scores[2][1].abs().max().item<float>(), 0.0f);
  EXPECT_GT(scores[2][0].max().item<float>(), 0.0f);
}

TEST(MixedResolution, TokensArePatchesOfTheWholeImageResized) {
  const config::Model options = mixed_options("pixel_blur", 21);
  const MixedResolution mixed(options);
  const at::Tensor image = mixed_images(options, 3);
  const at::Tensor boxes = plain_boxes(options, mixed.scores(image, {}, mixed_draws(3)));
  const at::Tensor tokens = mixed.tokens(image, boxes);
  ASSERT_EQ(tokens.sizes(), at::IntArrayRef({3, 3, 21, 16}));
  double worst = 0.0;
  std::set<int64_t> seen;
  for (int64_t b = 0; b < 3; ++b)
    for (int64_t i = 0; i < 21; ++i) {
      const auto box = [&](int k) { return static_cast<int64_t>(boxes[b][i][k].item<float>()); };
      const int64_t factor = (box(2) - box(0)) / 4;
      seen.insert(factor);
      for (int64_t c = 0; c < 3; ++c) {
        const Plane small = plain_resize(plane_of(image, b, c), 32 / factor, 48 / factor);
        const at::Tensor token = tokens[b][c][i].contiguous();
        for (int64_t p = 0; p < 16; ++p)
          worst =
              std::max(worst, std::abs(token.const_data_ptr<float>()[p] -
                                       small[box(0) / factor + p / 4][box(1) / factor + p % 4]));
      }
    }
  printf("worst difference %.1e (allowed %.0e)\n", worst, kPixelTolerance);
  EXPECT_LE(worst, kPixelTolerance);
  EXPECT_EQ(seen, (std::set<int64_t>{1, 2, 4}));
}

TEST(MixedResolution, LeavesAreThoseOfThePlainDivisionAndTileTheImage) {
  for (const char* scorer : {"pixel_blur", "random"})
    for (const int64_t count : {6, 9, 30, 96}) {
      const config::Model options = mixed_options(scorer, count);
      const MixedResolution mixed(options);
      const at::Tensor image = mixed_images(options, 3);
      const patching::LeafTensors leaves = mixed.leaves_of(image, {}, mixed_draws(3));
      const auto scores = mixed.scores(image, {}, mixed_draws(3));
      ASSERT_EQ(leaves.boxes.sizes(), at::IntArrayRef({3, count, 4}));
      EXPECT_TRUE(at::equal(leaves.boxes, plain_boxes(options, scores))) << scorer << " " << count;
      EXPECT_TRUE(at::equal(leaves.tokens, mixed.tokens(image, leaves.boxes)));
      const at::Tensor covered = leaf_shares(leaves.boxes, options.image_size, {32, 48});
      EXPECT_TRUE(covered.sum(2).eq(1).all().item<bool>()) << "a pixel in no leaf, or shared";
      EXPECT_TRUE(covered.gt(0).sum(2).eq(1).all().item<bool>()) << "a pixel in two leaves";
    }
}

TEST(MixedResolution, RoughPlacesGetSmallPatches) {
  const config::Model options = mixed_options("pixel_blur", 18);
  const MixedResolution mixed(options);
  const at::Tensor image = mixed_images(options, 4);
  const patching::LeafTensors leaves = mixed.leaves_of(image, {}, mixed_draws(4));
  for (int64_t b = 0; b < 4; ++b) {  // the middle of the rough rectangle
    const auto y = static_cast<float>(b % 2 * 16 + 4), x = static_cast<float>(b / 2 * 24 + 6);
    for (int64_t i = 0; i < 18; ++i) {
      const at::Tensor box = leaves.boxes[b][i];
      const auto at_corner = [&](int k) { return box[k].item<float>(); };
      if (at_corner(0) <= y && y < at_corner(2) && at_corner(1) <= x && x < at_corner(3)) {
        EXPECT_EQ(at_corner(2) - at_corner(0), 4.0f) << "sample " << b;
      }
    }
  }
}

TEST(MixedResolution, LeavesDoNotDependOnBatchOrThreads) {
  for (const char* scorer : {"pixel_blur", "given", "random"}) {
    const config::Model options = mixed_options(scorer);
    const MixedResolution mixed(options);
    const at::Tensor image = mixed_images(options, 5);
    const patching::LeafTensors all = mixed.leaves_of(image, {}, mixed_draws(5, true));
    const int before = at::get_num_threads();
    at::set_num_threads(1);
    const patching::LeafTensors one =
        mixed.leaves_of(image.slice(0, 3, 4), {}, mixed_draws(1, true, 7, 3));
    at::set_num_threads(before);
    EXPECT_TRUE(at::equal(all.boxes.slice(0, 3, 4), one.boxes)) << scorer;
    EXPECT_TRUE(at::equal(all.tokens.slice(0, 3, 4), one.tokens)) << scorer;
  }
}

TEST(MixedResolution, RefusesOptionsThatTheRecipeRefuses) {
  const auto refused = [](auto change) {
    config::Model options = mixed_options("given");
    change(options);
    EXPECT_THROW(MixedResolution{options}, core::ConfigError);
  };
  refused([](config::Model& m) { m.mixed_resolution.min_patch = 8; });
  refused([](config::Model& m) { m.mixed_resolution.max_patch = 12; });
  refused([](config::Model& m) { m.mixed_resolution.max_patch = 2; });
  refused([](config::Model& m) { m.image_size = {40, 48}; });
  refused([](config::Model& m) { m.image_size = {32, 48, 32}; });
  refused([](config::Model& m) { m.mixed_resolution.scorer_channel = 3; });
  const config::Model options = mixed_options("given");
  EXPECT_THROW(MixedResolution(options).leaves_of(random({1, 3, 32, 32}), {}, mixed_draws(1)),
               core::Error);
}

TEST(MixedReverse, PaintsEveryTokenOverItsBox) {
  const config::Model options = mixed_options("random");
  const MixedResolution mixed(options);
  const at::Tensor boxes =
      mixed.leaves_of(mixed_images(options, 2), {}, mixed_draws(2)).boxes.contiguous();
  for (const std::vector<int64_t>& grid : {std::vector<int64_t>{8, 12}, {32, 48}}) {
    const at::Tensor tokens = random({2, 30, 5}, 3).requires_grad_();
    const at::Tensor dense = reverse(tokens, boxes, options.image_size, grid);
    ASSERT_EQ(dense.sizes(), at::IntArrayRef({2, 5, grid[0], grid[1]}));
    const at::Tensor shares = leaf_shares(boxes, options.image_size, grid);
    const at::Tensor product = at::matmul(shares, tokens).transpose(1, 2).unflatten(2, grid);
    EXPECT_TRUE(at::equal(dense, product));
    dense.sum().backward();
    const at::Tensor cells = shares.sum(1).unsqueeze(-1).expand({-1, -1, 5});
    EXPECT_TRUE(at::equal(tokens.grad(), cells));  // counts, exact in fp32
  }
  at::Tensor some = boxes.clone();
  some.slice(1, 0, 1).zero_();
  const at::Tensor painted = reverse(at::ones_like(boxes), some, options.image_size, {8, 12});
  const float edge = (boxes[0][0][2] - boxes[0][0][0]).item<float>() / 4;
  EXPECT_EQ(painted[0][0].eq(0).sum().item<int64_t>(), static_cast<int64_t>(edge * edge));
  EXPECT_THROW(reverse(random({2, 29, 5}), boxes, options.image_size, {8, 12}), core::Error);
}

data::Batch mixed_batch(const config::Model& options, int64_t size) {
  data::Batch batch;
  batch.image = mixed_images(options, size);
  const patching::LeafTensors leaves =
      MixedResolution(options).leaves_of(batch.image, {}, mixed_draws(size));
  batch.leaf_tokens = leaves.tokens, batch.leaf_boxes = leaves.boxes;
  batch.sample_ids = at::arange(size, at::kLong);
  return batch;
}

TEST(MixedEmbed, IsTheConvolutionOverTheTokensPlusTheRowOfTheirSize) {
  config::Model options = mixed_options("random");
  options.mixed_resolution.size_embedding = true;
  MixedEmbed embed(options);
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> named;
  uint16_t layer = 60;
  for (nn::NamedTensor& parameter : embed.named_parameters()) {
    parameter.tensor.copy_(random(parameter.tensor.sizes(), layer++));
    named[parameter.name] = parameter.tensor;
  }
  ASSERT_EQ(names_of(embed.named_parameters()),
            (std::set<std::string>{"proj.weight", "proj.bias", "size_embed"}));
  ASSERT_EQ(named["proj.weight"].sizes(), at::IntArrayRef({16, 3, 4, 4}));
  ASSERT_EQ(named["size_embed"].sizes(), at::IntArrayRef({3, 16}));
  const data::Batch batch = mixed_batch(options, 2);
  const at::Tensor found = embed.forward(batch, {});
  double worst = 0.0;
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t i = 0; i < 30; ++i) {
      const double edge = (batch.leaf_boxes[b][i][2] - batch.leaf_boxes[b][i][0]).item<double>();
      const int64_t size = edge == 4.0 ? 0 : edge == 8.0 ? 1 : 2;
      const at::Tensor patch = batch.leaf_tokens.select(0, b).select(1, i).reshape({1, 3, 4, 4});
      const at::Tensor row = (named["proj.weight"] * patch).sum({1, 2, 3}) + named["proj.bias"] +
                             named["size_embed"][size];
      worst = std::max(worst, (found[b][i] - row).abs().max().item<double>());
    }
  printf("worst difference %.1e\n", worst);
  EXPECT_LE(worst, 1e-5);  // 48 products of fp32 below 1
  const at::Tensor keep = at::arange(29, 19, -1, at::kLong).expand({2, -1});
  EXPECT_TRUE(at::allclose(embed.forward(batch, keep), found.slice(1, 20).flip(1), 1e-5, 1e-6));
}

TEST(MixedEmbed, HasTheWeightsOfAPlainPatchEmbedding) {
  const config::Model options = mixed_options("random");
  config::Model plain = options;
  plain.mixed_resolution = {};
  EXPECT_EQ(names_of(MixedEmbed(options).named_parameters()),
            names_of(PatchEmbed(plain).named_parameters()));
}

}  // namespace
}  // namespace vitrail::models
