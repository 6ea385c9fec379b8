// Positions of leaves, the frozen network, and scores by its features.
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/mixed_resolution_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/feature_scorer.h"
#include "vitrail/models/leaf_positions.h"
#include "vitrail/models/weights.h"

namespace vitrail::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Angles up to some hundred radians in fp32 would be off by 1e-5; centres here are below 40.
constexpr double kWaveTolerance = 1e-5;

double plain_wave(double centre, int64_t place, int64_t width_of_axis) {
  const int64_t count = width_of_axis / 2;
  const double frequency = std::exp(-std::log(10000.0) * static_cast<double>(place % count) /
                                    static_cast<double>(count - 1));
  return place < count ? std::sin(centre * frequency) : std::cos(centre * frequency);
}

TEST(LeafPositions, FollowTheFormula) {
  for (const int64_t axes : {2, 3}) {
    const int64_t width = 24 * axes, L = 20;
    const at::Tensor low = ((random({2, L, axes}) + 1.0) * 200.0).floor_();
    at::Tensor boxes = at::cat({low, low + ((random({2, L, axes}, 1) + 1.5) * 20.0).floor_()}, -1);
    boxes[1][4].zero_();
    const at::Tensor found = sincos_of_leaves(boxes, 16.0, width);
    ASSERT_EQ(found.sizes(), at::IntArrayRef({2, L, width}));
    double worst = 0.0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t i = 0; i < L; ++i)
        for (int64_t d = 0; d < width; ++d) {
          if (b == 1 && i == 4) {
            ASSERT_EQ(found[b][i][d].item<float>(), 0.0f);
            continue;
          }
          const int64_t axis = axes - 1 - d / 24;  // x first
          const double centre = (boxes[b][i][axis] + boxes[b][i][axes + axis]).item<double>() / 32;
          worst = std::max(
              worst, std::abs(found[b][i][d].item<double>() - plain_wave(centre, d % 24, 24)));
        }
    printf("%ld-D: worst difference %.1e (allowed %.0e)\n", axes, worst, kWaveTolerance);
    EXPECT_LE(worst, kWaveTolerance);
  }
}

TEST(LeafPositions, RefuseWidthsWithoutFrequencies) {
  const at::Tensor boxes = random({1, 2, 4});
  EXPECT_THROW(sincos_of_leaves(boxes, 16.0, 18), core::ConfigError);
  EXPECT_THROW(sincos_of_leaves(boxes, 16.0, 4), core::ConfigError);
  EXPECT_THROW(sincos_of_leaves(random({1, 2, 6}), 16.0, 16), core::ConfigError);
  EXPECT_THROW(sincos_of_leaves(random({2, 4}), 16.0, 16), core::Error);
}

std::string message_of(const std::vector<nn::NamedTensor>& tensors) {
  try {
    nn::ShuffleNet network(tensors, "net.safetensors");
  } catch (const core::CheckpointError& error) {
    return error.what();
  }
  return "";
}

TEST(ShuffleNet, NamesMissingAndMisshapenTensors) {
  std::vector<nn::NamedTensor> tensors = random_shufflenet();
  EXPECT_EQ(message_of(tensors), "");
  tensors.push_back({"fc.weight", random({10, 1024})});
  tensors.push_back({"conv1.1.num_batches_tracked", at::full({}, 7, at::kLong)});
  EXPECT_EQ(message_of(tensors), "");
  tensors[0].tensor = random({24, 3, 5, 5});
  std::erase_if(tensors, [](const auto& entry) { return entry.name == "conv5.1.running_var"; });
  EXPECT_THAT(
      message_of(tensors),
      AllOf(HasSubstr("net.safetensors: tensor 'conv1.0.weight' must be [24, 3, 3, 3] but is "
                      "[24, 3, 5, 5]"),
            HasSubstr("tensor 'conv5.1.running_var' must be [1024] but is missing")));
  EXPECT_THAT(message_of({}), HasSubstr("tensors more"));
  EXPECT_THROW(FeatureScorer("no/such/file.safetensors"), core::Error);
}

TEST(ShuffleNet, FeaturesOfASampleDoNotDependOnItsBatch) {
  const nn::ShuffleNet network(random_shufflenet(), "random");
  const at::Tensor image = random({3, 3, 70, 33});
  const at::Tensor all = network.features(image);
  ASSERT_EQ(all.sizes(), at::IntArrayRef({3, 1024, 3, 2}));
  EXPECT_GT(all.abs().max().item<float>(), 0.01f);
  const at::Tensor one = network.features(image.slice(0, 1, 2));
  // Frozen norms: only the order of sums may differ with the algorithm chosen for a batch.
  const double worst = ((all.slice(0, 1, 2) - one).norm() / one.norm()).item<double>();
  printf("worst relative difference %.1e (allowed 1e-5)\n", worst);
  EXPECT_LE(worst, 1e-5);
  EXPECT_THROW(network.features(random({1, 4, 64, 64})), core::Error);
}

class Scorer : public testing::Test {
 protected:
  Scorer() { write_tensors(path_, random_shufflenet(), {}); }
  std::string path_ = testing::TempDir() + "vitrail_shufflenet.safetensors";
};

TEST_F(Scorer, LossesVanishWhereNothingIsLostAndIgnoreTheNormalisation) {
  const FeatureScorer scorer(path_);
  const at::Tensor unit = (random({2, 3, 96, 64}) + 1.0) * 0.5;
  at::Tensor blurred = unit.clone();
  blurred.slice(3, 0, 16).fill_(0.5);
  const at::Tensor none = at::tensor({0.0f, 1.0f}).expand({2, 3, 2});
  const at::Tensor losses = scorer.losses(unit, none, {unit, blurred});
  ASSERT_EQ(losses.sizes(), at::IntArrayRef({2, 2, 3, 2}));
  EXPECT_LE(losses[0].max().item<float>(), 1e-8f * losses[1].max().item<float>());
  EXPECT_GT(losses[1].min().item<float>(), 0.0f);

  // Mean and deviation of a source; another one in each sample and channel.
  const at::Tensor mean = random({2, 3, 1, 1}, 1) * 0.5, deviation = random({2, 3, 1, 1}, 2) + 1.2;
  const auto normal = [&](const at::Tensor& x) { return (x - mean) / deviation; };
  const at::Tensor range = at::cat({normal(at::zeros_like(mean)), normal(at::ones_like(mean))}, -1);
  const at::Tensor same =
      scorer.losses(normal(unit), range.squeeze(2), {normal(unit), normal(blurred)});
  const double worst = ((same[1] - losses[1]).abs() / losses[1]).max().item<double>();
  printf("another normalisation: worst relative difference %.1e\n", worst);
  EXPECT_LE(worst, 1e-4);  // squares of differences of features, each rounded at 1e-6

  // Without a range, or with an empty one, the sample's own.
  const at::Tensor least = unit.amin({1, 2, 3}), largest = unit.amax({1, 2, 3});
  const at::Tensor own = at::stack({least, largest}, -1).unsqueeze(1).expand({2, 3, 2});
  const at::Tensor expected = scorer.losses(unit, own, {blurred});
  EXPECT_TRUE(at::equal(scorer.losses(unit, {}, {blurred}), expected));
  EXPECT_TRUE(at::equal(scorer.losses(unit, none * 0.0, {blurred}), expected));
}

TEST_F(Scorer, ImportanceIsBytesOfAnyImage) {
  const FeatureScorer scorer(path_);
  at::Tensor image = random({2, 3, 70, 41}) * 0.01;
  image[0].slice(1, 0, 20).slice(2, 0, 20).mul_(100.0);
  image[1].fill_(0.3);  // flat
  const at::Tensor range = at::tensor({-1.0f, 1.0f}).expand({2, 3, 2});
  const at::Tensor bytes = scorer.importance(image, range);
  ASSERT_EQ(bytes.scalar_type(), at::kByte);
  ASSERT_EQ(bytes.sizes(), at::IntArrayRef({2, 70, 41}));
  // The copy that went through half the sides, 35 x 20.
  std::vector<at::Tensor> rows;
  for (int64_t c = 0; c < 3; ++c)
    for (const std::vector<double>& row :
         plain_resize(plain_resize(plane_of(image, 0, c), 35, 20), 70, 41))
      rows.push_back(at::tensor(row, at::kFloat));
  const at::Tensor losses = scorer.losses(image.slice(0, 0, 1), range.slice(0, 0, 1),
                                          {at::stack(rows).view({1, 3, 70, 41})})[0][0];
  for (int64_t y = 0; y < 3; ++y)
    for (int64_t x = 0; x < 2; ++x) {
      const double wanted = (losses[y][x] / losses.max()).item<double>() * 255.0;
      EXPECT_NEAR(bytes[0][32 * y][32 * x].item<int>(), wanted, 0.51);  // rounded
    }
  EXPECT_EQ(bytes[0].max().item<int>(), 255);
  EXPECT_LT(bytes[0].min().item<int>(), 255);
  for (const auto& [y, x] : std::vector<std::pair<int, int>>{{31, 31}, {63, 40}, {69, 32}}) {
    const at::Tensor square = bytes[0].slice(0, y / 32 * 32, y + 1).slice(1, x / 32 * 32, x + 1);
    EXPECT_EQ(square.min().item<int>(), square.max().item<int>()) << y << " " << x;
  }
}

TEST_F(Scorer, FeatureScoresAreMeansOfTheLossOverAPatch) {
  config::Model options = mixed_options("feature_based");
  options.image_size = {128, 192};
  options.patch_size = 16;
  options.mixed_resolution.max_patch = 64;
  options.mixed_resolution.scorer_weights = path_;
  const MixedResolution mixed(options);
  const at::Tensor image = mixed_images(options, 2);
  const auto scores = mixed.scores(image, {}, mixed_draws(2));
  std::vector<at::Tensor> blurred;
  for (const size_t factor : {2, 4}) {
    std::vector<at::Tensor> planes;
    for (int64_t i = 0; i < 6; ++i) {
      const Plane plane = plain_resize(
          plain_resize(plane_of(image, i / 3, i % 3), 128 / factor, 192 / factor), 128, 192);
      for (const std::vector<double>& row : plane) planes.push_back(at::tensor(row, at::kFloat));
    }
    blurred.push_back(at::stack(planes).view({2, 3, 128, 192}));
  }
  const at::Tensor losses = FeatureScorer(path_).losses(image, {}, blurred);
  EXPECT_TRUE(at::allclose(scores[1], losses[0], 1e-3, 1e-9));  // 4 x 6 of 32 pixels
  const at::Tensor pooled = losses[1].view({2, 2, 2, 3, 2}).mean({2, 4});
  EXPECT_TRUE(at::allclose(scores[2], pooled, 1e-3, 1e-9));
  EXPECT_GT(scores[2].min().item<float>(), 0.0f);
}

TEST_F(Scorer, ItsTensorsAreNoParameters) {
  config::Model options = mixed_options("feature_based");
  options.mixed_resolution.scorer_weights = path_;
  EXPECT_EQ(MixedEmbed(options).parameter_count(), 16 * (3 * 4 * 4 + 1));
}

}  // namespace
}  // namespace vitrail::models
