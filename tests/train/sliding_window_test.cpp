#include "vitrail/train/sliding_window.h"

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

/// Logits of a pixel that depend on that pixel alone: a tiled result must equal the untiled one.
class PixelModel : public models::Model {
 public:
  models::Task task() const override { return models::Task::segmentation; }
  models::Output forward(const data::Batch& batch, const nn::Draws&,
                         const std::vector<std::string>&) override {
    largest_batch = std::max(largest_batch, batch.image.size(0));
    windows += batch.image.size(0);
    pixel_range = batch.pixel_range;
    models::Output out;
    const at::Tensor x = batch.image.narrow(1, 0, 1);
    out.output = at::cat({at::zeros_like(x), x * 3, x * x}, 1);
    return out;
  }
  std::vector<models::UnitSpec> units() override { return {}; }
  std::vector<nn::Stack*> stacks() override { return {}; }
  double train_flops_per_sample() const override { return 0; }
  int64_t tokens_per_sample() const override { return 0; }

  int64_t windows = 0, largest_batch = 0;
  at::Tensor pixel_range;  // of the last batch
};

config::Model options(std::vector<int64_t> size) {
  config::Model model;
  model.image_size = std::move(size);
  model.in_channels = 2;
  model.num_classes = 3;
  return model;
}

at::Tensor directly(const at::Tensor& image) {
  const at::Tensor x = image.narrow(0, 0, 1);
  return at::softmax(at::cat({at::zeros_like(x), x * 3, x * x}, 0), 0);
}

TEST(SlidingWindow, APixelwiseModelGivesTheSameTiledAndWhole) {
  double worst = 0;
  for (const auto& [size, sides] :
       std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>>{
           {{8, 8}, {29, 17}}, {{8, 8}, {5, 30}}, {{4, 6, 6}, {9, 13, 6}}, {{8, 8}, {8, 8}}}) {
    PixelModel model;
    std::vector<int64_t> shape{2};
    shape.insert(shape.end(), sides.begin(), sides.end());
    const at::Tensor image = at::rand(shape);
    const at::Tensor probabilities =
        segment(model, options(size), image, at::kCPU, {.overlap = 0.5, .batch_size = 5});
    ASSERT_EQ(probabilities.sizes().slice(1), image.sizes().slice(1));
    worst = std::max(worst, (probabilities - directly(image)).abs().max().item<double>());
    EXPECT_LE(model.largest_batch, 5);
  }
  // A weighted mean of equal fp32 numbers: a few roundings of 6e-8.
  std::printf("worst difference %.2g (allowed 5e-7)\n", worst);
  EXPECT_LE(worst, 5e-7);
}

TEST(SlidingWindow, WeightsPeakInTheMiddleAndNeverVanish) {
  const at::Tensor weights = window_weights({9, 5});
  EXPECT_EQ(weights[4][2].item<float>(), 1.0f);
  EXPECT_GE(weights.min().item<float>(), 1e-3f);
  EXPECT_LT(weights[0][0].item<float>(), weights[4][2].item<float>());
}

TEST(SlidingWindow, RefusesAnotherNumberOfChannels) {
  PixelModel model;
  EXPECT_THROW(segment(model, options({8, 8}), at::rand({1, 8, 8}), at::kCPU, {}), core::Error);
}

TEST(SlidingWindow, EveryWindowHasTheRangeOfItsPixels) {
  PixelModel model;
  const config::Model small = options({4, 4});
  const at::Tensor image = at::rand({small.in_channels, 6, 4});
  SlidingWindow window;
  segment(model, small, image, at::kCPU, window);
  EXPECT_FALSE(model.pixel_range.defined());
  for (int64_t c = 0; c < small.in_channels; ++c) {
    window.pixel_range.push_back(-1);
    window.pixel_range.push_back(static_cast<float>(c));
  }
  segment(model, small, image, at::kCPU, window);
  EXPECT_EQ(model.pixel_range.sizes(), (std::vector<int64_t>{2, small.in_channels, 2}));
  EXPECT_TRUE(model.pixel_range.select(2, 0).eq(-1).all().item<bool>());
  EXPECT_TRUE(model.pixel_range.select(1, small.in_channels - 1)
                  .select(1, 1)
                  .eq(small.in_channels - 1)
                  .all()
                  .item<bool>());
}

}  // namespace
}  // namespace vitrail::train
