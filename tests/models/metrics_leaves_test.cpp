// Metrics of masked autoencoders over leaves: those of a grid where the leaves are a grid.

#include "vitrail/models/metrics_leaves.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/models/leaf_pictures.h"
#include "vitrail/models/metrics_reconstruction.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {
namespace {

config::Model options_of(bool norm_pix_loss) {
  config::Model options;
  options.kind.value = "mae";
  options.loss.value = "masked_mse";
  options.image_size = {12, 12};
  options.patch_size = 4;
  options.in_channels = 2;
  options.norm_pix_loss = norm_pix_loss;
  return options;
}

/// The nine patches of a 12x12 image in raster order, as leaves.
at::Tensor grid_boxes(int64_t batch) {
  std::vector<float> corners;
  for (float y = 0; y < 12; y += 4)
    for (float x = 0; x < 12; x += 4) corners.insert(corners.end(), {y, x, y + 4, x + 4});
  return at::tensor(corners, at::kFloat).view({1, 9, 4}).repeat({batch, 1, 1});
}

data::Batch leaves_of(const at::Tensor& image, const at::Tensor& boxes) {
  data::Batch batch;
  batch.image = image;
  batch.leaf_boxes = boxes;
  batch.leaf_tokens = patching::serialise(image, boxes, 4, patching::Resample::area);
  return batch;
}

TEST(LeafMetrics, OfAGridAreThoseOfItsPatches) {
  for (const bool normalised : {false, true}) {
    config::Model dense = options_of(normalised), leaves = dense;
    leaves.adaptive.fixed_length = 9;
    const PixelScale scale{{0.4, 0.5}, {0.2, 0.3}};
    const data::Batch batch = leaves_of(at::randn({3, 2, 12, 12}), grid_boxes(3));
    Output output;
    output.output = at::randn({3, 9, 32});
    output.mask = at::rand({3, 9}).gt(0.4).to(at::kFloat);
    output.mask[2].fill_(0);  // hides none: all are scored
    data::Batch plain;
    plain.image = batch.image;
    ReconstructionTally expected(dense, scale);
    expected.add(plain, output);
    LeafReconstructionTally found(leaves, scale);
    found.add(batch, output);
    double worst = 0;
    for (const auto& [name, value] : expected.metrics()) {
      if (name == "loss") continue;  // 0 / 0 for the sample that hides none
      // ssim and r2 of random pictures come near 0, where nothing is right in relative terms.
      const double error = std::abs(metric(found.metrics(), name) - value);
      worst = std::max(worst, error / std::max(1.0, std::abs(value)));
    }
    fmt::print("worst difference {:.1e} of max(1, value) (allowed 1e-6)\n", worst);
    EXPECT_LE(worst, 1e-6);  // fp32 pictures of predictions
    EXPECT_EQ(found.samples(), 3);
  }
}

TEST(LeafMetrics, ScoreWhatALargeLeafCannotSay) {
  config::Model options = options_of(false);
  options.adaptive.fixed_length = 2;
  const at::Tensor boxes =
      at::tensor(std::vector<float>{0, 0, 12, 12, 0, 0, 0, 0}, at::kFloat).view({1, 2, 4});
  Output output;
  output.mask = at::tensor(std::vector<float>{1, 0}, at::kFloat).view({1, 2});
  for (const bool is_constant : {true, false}) {
    const at::Tensor image = is_constant
                                 ? at::rand({1, 2, 1, 1}).expand({1, 2, 12, 12}).contiguous()
                                 : at::rand({1, 2, 12, 12});
    const data::Batch batch = leaves_of(image, boxes);
    output.output = batch.leaf_tokens.permute({0, 2, 3, 1}).flatten(2).contiguous();  // perfect
    LeafReconstructionTally tally(options, {});
    tally.add(batch, output);
    EXPECT_EQ(metric(tally.metrics(), "loss"), 0);
    const double rmse = metric(tally.metrics(), "rmse");
    // Standard deviation of uniform values halved by std 0.5: 0.144; means of nine know little of it.
    if (is_constant)
      EXPECT_LT(rmse, 1e-7);
    else
      EXPECT_NEAR(rmse, 0.14, 0.03);
  }
}

TEST(LeafPictures, AreOfEachChannelsOwnTree) {
  config::Model options = options_of(false);
  options.adaptive.fixed_length = 9;
  options.adaptive.trees.value = "per_channel";
  data::Batch batch;
  batch.image = at::randn({2, 2, 12, 12});
  batch.leaf_boxes = grid_boxes(2).repeat({1, 2, 1});
  batch.leaf_tokens = at::randn({2, 1, 18, 16});
  const at::Tensor prediction = at::rand({2, 18, 16}), mask = at::rand({2, 18}).gt(0.5);
  const LeafPictures found = paste_prediction(batch, prediction, mask.to(at::kFloat), options);
  for (int64_t c = 0; c < 2; ++c)
    for (int64_t y = 0; y < 12; ++y)
      for (int64_t x = 0; x < 12; ++x) {
        const int64_t leaf = c * 9 + y / 4 * 3 + x / 4;
        EXPECT_EQ(found.predicted[1][c][y][x].item<float>(),
                  prediction[1][leaf][y % 4 * 4 + x % 4].item<float>());
        EXPECT_EQ(found.hidden[1][c][y][x].item<bool>(), mask[1][leaf].item<bool>());
      }
}

}  // namespace
}  // namespace vitrail::models
