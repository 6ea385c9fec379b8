// Leaves of adaptive patching in batches: made by the loader's threads they are those of the step.

#include "vitrail/data/leaves.h"

#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/loader.h"
#include "vitrail/patching/batch.h"

namespace vitrail::data {
namespace {

using testing::HasSubstr;

config::Model model_of(const std::string& kind, std::vector<int64_t> sides, int64_t channels,
                       int64_t length) {
  config::Model model = test::model_of(std::move(sides), channels, 3);
  model.kind.value = kind;
  model.patch_size = 4;
  model.adaptive.fixed_length = length;
  return model;
}

/// A disc on nothing, [2, 16, 16], normalised by (v - 0.5) / 0.5.
std::vector<float> disc() {
  std::vector<float> image;
  for (int c = 0; c < 2; ++c)
    for (int y = 0; y < 16; ++y)
      for (int x = 0; x < 16; ++x)
        image.push_back((x - 5) * (x - 5) + (y - 5) * (y - 5) < 12 ? 0.5f + 0.1f * float(c)
                                                                   : -1.0f);
  return image;
}

const std::vector<float> kHalf{-1, 1, -1, 1};  // pixel_range of mean and std 0.5

TEST(LeafRows, AreOfTheKindsThatThreadsCanMake) {
  config::Model model = model_of("vit", {16, 16}, 3, 0);
  EXPECT_FALSE(has_loader_leaves(model));
  model.mixed_resolution.num_tokens = 7;
  EXPECT_FALSE(has_loader_leaves(model));
  model.mixed_resolution.num_tokens = 0;
  model.adaptive.fixed_length = 7;
  EXPECT_TRUE(has_loader_leaves(model));
  model.adaptive.trees.value = "per_channel";
  EXPECT_FALSE(has_loader_leaves(model));
  model.adaptive.trees.value = "shared";
  model.adaptive.importance.value = "feature_based";
  EXPECT_FALSE(has_loader_leaves(model));
}

TEST(LeafRows, FillTheirRowAndNoOther) {
  const config::Model model = model_of("vit", {16, 16}, 2, 7);
  const LeafRows rows(model, false);
  Batch batch;
  rows.allocate(batch, 3, 2, false);
  EXPECT_EQ(batch.leaf_tokens.sizes(), (std::vector<int64_t>{3, 2, 7, 16}));
  EXPECT_EQ(batch.leaf_boxes.sizes(), (std::vector<int64_t>{3, 7, 4}));
  EXPECT_EQ(batch.size(), 3);
  batch.leaf_tokens.fill_(9);
  batch.leaf_boxes.fill_(9);
  std::vector<float> image = disc();
  rows.place(image, kHalf, {}, batch, 1);
  rows.pad(batch, 2);
  EXPECT_TRUE(batch.leaf_tokens[0].eq(9).all().item<bool>());
  EXPECT_TRUE(batch.leaf_boxes[0].eq(9).all().item<bool>());
  EXPECT_TRUE(batch.leaf_tokens[2].eq(0).all().item<bool>());
  EXPECT_TRUE(batch.leaf_boxes[2].eq(0).all().item<bool>());
  const at::Tensor ids = at::empty({1}, at::kLong).fill_(0);
  const patching::LeafTensors expected = patching::make_leaves(
      at::from_blob(image.data(), {1, 2, 16, 16}, at::kFloat), pixel_ranges(kHalf, 1),
      patching::leaf_options(model), patching::edge_options({}, 0, 0, ids, false));
  EXPECT_TRUE(at::equal(batch.leaf_boxes[1], expected.boxes[0]));
  EXPECT_TRUE(at::equal(batch.leaf_tokens[1], expected.tokens[0]));
  // The disc's corner is divided.
  EXPECT_TRUE(batch.leaf_boxes[1][0].select(0, 2).eq(4).item<bool>());
}

TEST(LeafRows, DrawTheirThresholdsOnlyInTraining) {
  // A long weak border, which only low thresholds without a blur see, and a strong spot elsewhere.
  std::vector<float> image(2 * 256, -1.0f);
  for (size_t i = 0; i < image.size(); ++i) {
    const size_t y = i % 256 / 16, x = i % 16;
    if (y >= 2 && y < 4 && x >= 11 && x < 13) image[i] = 0.8f;
    if (y >= 8 && x >= 2 && x < 6) image[i] = -1.0f + 2.0f * 30 / 255;
  }
  const auto trees = [&](bool training) {
    const LeafRows rows(model_of("vit", {16, 16}, 2, 7), training);
    Batch batch;
    rows.allocate(batch, 40, 2, false);
    for (int64_t p = 0; p < 40; ++p) rows.place(image, kHalf, {7, 1, p}, batch, p);
    return batch.leaf_boxes;
  };
  const at::Tensor fixed = trees(false), drawn = trees(true);
  EXPECT_TRUE(at::equal(fixed, fixed[0].expand_as(fixed)));
  EXPECT_FALSE(at::equal(drawn, drawn[0].expand_as(drawn)));
  EXPECT_TRUE(at::equal(drawn, trees(true)));
}

TEST(LeafRows, RefuseWhatIsNoNumber) {
  const LeafRows rows(model_of("vit", {16, 16}, 2, 7), false);
  Batch batch;
  rows.allocate(batch, 1, 2, false);
  std::vector<float> image = disc();
  image[77] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(rows.place(image, kHalf, {}, batch, 0), core::Error);
}

TEST(PixelRange, IsWhereZeroAndOneWentByMeanAndStd) {
  config::Source source = test::random_source(4);
  source.mean = {0.5, 0.25};
  source.std = {0.5, 0.125};
  const config::Model model = model_of("vit", {16, 16}, 2, 7);
  EXPECT_EQ(pixel_range_of(source, model), (std::vector<float>{-1, 1, -2, 6}));
  EXPECT_EQ(pixel_range_of(source, model, /*raw=*/true), (std::vector<float>{0, 1, 0, 1}));
  source.normalize.value = "none";
  EXPECT_EQ(pixel_range_of(source, model), (std::vector<float>{0, 0, 0, 0}));
  const at::Tensor rows = pixel_ranges({-1, 1, -2, 6}, 3);
  EXPECT_EQ(rows.sizes(), (std::vector<int64_t>{3, 2, 2}));
  EXPECT_EQ(rows[2][1][1].item<float>(), 6);
}

LoaderOptions options_of(bool training, Patching patching) {
  LoaderOptions options;
  options.global_batch = 6;
  options.seed = 11;
  options.training = training;
  options.drop_last = training;
  options.patching = patching;
  return options;
}

/// Every batch of two epochs both ways.
void expect_equal_ways(const std::vector<config::Source>& sources, const config::Model& model,
                       LoaderOptions options) {
  options.patching = Patching::loader;
  Loader threads(sources, model, options);
  options.patching = Patching::step;
  Loader plain(sources, model, options);
  for (int64_t b = 0; b < 2 * threads.batches_per_epoch(); ++b) {
    const Batch made = threads.next(), given = plain.next();
    ASSERT_FALSE(given.leaf_tokens.defined() || given.leaf_boxes.defined());
    ASSERT_TRUE(at::equal(made.image, given.image));
    ASSERT_TRUE(at::equal(made.label, given.label));
    ASSERT_TRUE(at::equal(made.pixel_range, given.pixel_range));
    ASSERT_EQ(made.pixel_range.sizes(),
              (std::vector<int64_t>{made.image.size(0), made.image.size(1), 2}));
    const at::Tensor real = given.sample_ids.ge(0);
    const patching::LeafTensors leaves = patching::make_leaves(
        given.image, given.pixel_range, patching::leaf_options(model),
        patching::edge_options({}, options.seed, given.epoch, given.sample_ids, options.training));
    for (int64_t p = 0; p < given.size(); ++p) {
      if (!real[p].item<bool>()) {
        EXPECT_TRUE(made.leaf_boxes[p].eq(0).all().item<bool>());
        EXPECT_TRUE(made.pixel_range[p].eq(0).all().item<bool>());
        continue;
      }
      ASSERT_TRUE(at::equal(made.leaf_boxes[p], leaves.boxes[p]))
          << "batch " << b << " place " << p;
      ASSERT_TRUE(at::equal(made.leaf_tokens[p], leaves.tokens[p]))
          << "batch " << b << " place " << p << ", worst "
          << (made.leaf_tokens[p] - leaves.tokens[p]).abs().max().item<float>();
    }
  }
}

TEST(LoaderLeaves, AreThoseOfTheStep) {
  for (const bool training : {true, false})
    for (const std::string importance : {"edges", "variance", "gradient", "given"})
      for (const std::string normalize : {"unit", "none"}) {
        config::Model model = model_of("vit", {24, 20}, 3, 10);
        model.adaptive.importance.value = importance;
        model.adaptive.min_leaf = 2;
        config::Source source = test::random_source(training ? 24 : 19);
        source.normalize.value = normalize;
        LoaderOptions options = options_of(training, {});
        options.data_ranks = 2;
        options.data_rank = 1;  // its part of the last batch of an evaluation is padding
        expect_equal_ways({source}, model, options);
      }
}

TEST(LoaderLeaves, AreThoseOfTheStepInVolumesAndWithMasks) {
  config::Model model = model_of("sap", {16, 12, 16}, 1, 22);
  config::Source source = test::random_source(9);
  source.augment = {"flips"};
  expect_equal_ways({source}, model, options_of(true, {}));
}

TEST(LoaderLeaves, AreDrawnByTheBatchsEpochWhereSourcesRunAtTheirOwn) {
  config::Model model = model_of("vit", {32, 32}, 3, 28);
  config::Source small = test::random_source(5), large = test::random_source(31);
  small.name = "small";
  LoaderOptions options = options_of(true, {});
  options.mixing = Mixing::batch;
  expect_equal_ways({small, large}, model, options);
}

TEST(LoaderLeaves, AreOfTheOneVariableThatABatchKeeps) {
  config::Model model = model_of("vit", {16, 16}, 3, 7);
  model.variables = {"u", "v", "w"};
  model.single_channel = true;
  config::Source source = test::random_source(24);
  source.mean = {0.4, 0.5, 0.6};
  source.std = {0.3, 0.2, 0.1};
  expect_equal_ways({source}, model, options_of(true, {}));
}

TEST(LoaderLeaves, ComeBesideLabelsOfTheImage) {
  for (const int64_t length : {0, 10}) {
    config::Model model = model_of("sap", {16, 16}, 3, length);
    Loader loader({test::random_source(12)}, model, options_of(false, {}));
    const Batch batch = loader.next();
    EXPECT_EQ(batch.image.sizes(), (std::vector<int64_t>{6, 3, 16, 16}));
    EXPECT_EQ(batch.label.sizes(), (std::vector<int64_t>{6, 16, 16}));
    EXPECT_EQ(batch.leaf_tokens.defined(), length > 0);
    EXPECT_EQ(batch.pixel_range.defined(), length > 0);
  }
}

TEST(LoaderLeaves, AreLeftToTheStepWhereThreadsCannotMakeThem) {
  config::Model model = model_of("vit", {16, 16}, 3, 0);
  model.mixed_resolution.num_tokens = 7;
  const Batch batch =
      Loader({test::random_source(12)}, model, options_of(true, Patching::loader)).next();
  EXPECT_FALSE(batch.leaf_tokens.defined());
  EXPECT_TRUE(batch.pixel_range.defined());
}

TEST(LoaderLeaves, WaitForStepsThatAreDoneOnTheDevice) {
  const config::Model model = model_of("vit", {16, 16}, 3, 7);
  config::Source source = test::random_source(12);
  source.augment = {"gamma:0.7:1.5"};
  const Batch batch = Loader({source}, model, options_of(true, Patching::automatic)).next();
  EXPECT_TRUE(batch.augment_plan.defined());
  EXPECT_FALSE(batch.leaf_tokens.defined());
  EXPECT_TRUE(batch.pixel_range.defined());
  try {
    Loader refused({source}, model, options_of(true, Patching::loader));
    FAIL() << "must be refused";
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("data.patching"));
  }
  // Evaluation has no augmentation.
  EXPECT_TRUE(
      Loader({source}, model, options_of(false, Patching::loader)).next().leaf_tokens.defined());
}

TEST(LoaderOptions, SayWhereLeavesAreMade) {
  config::Recipe recipe;
  const auto chosen = [&](const std::string& word, bool on_gpu) {
    recipe.data.patching.value = word;
    return loader_options(recipe, 0, 1, on_gpu).patching;
  };
  EXPECT_EQ(chosen("auto", false), Patching::automatic);
  EXPECT_EQ(chosen("auto", true), Patching::step);
  EXPECT_EQ(chosen("loader", true), Patching::loader);
  EXPECT_EQ(chosen("step", false), Patching::step);
  EXPECT_EQ(evaluation_options(recipe, 0, 1, false).patching, Patching::step);
}

}  // namespace
}  // namespace vitrail::data
