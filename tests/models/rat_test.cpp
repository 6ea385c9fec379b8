#include "vitrail/models/rat.h"

#include <cmath>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"
#include "vitrail/models/rat_scales.h"

namespace vitrail::models {
namespace {

config::Model rat(std::vector<int64_t> sides = {12, 16}) {
  config::Model options = tiny("rat");
  options.image_size = std::move(sides);
  options.patch_size = 1, options.num_classes = 2;
  options.embed_dim = 24, options.num_heads = 3;
  options.class_token = false, options.pos_embed.value = "none";
  options.loss.value = "bce_dice";
  options.rat.scales = {1.0, 0.5};
  options.rat.kernel = 3, options.rat.proj_kernel = 3, options.rat.stride = {2};
  return options;
}

data::Batch batch_of(const config::Model& options, int64_t count = 2) {
  data::Batch batch;
  std::vector<int64_t> shape{count, options.in_channels};
  shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
  batch.image = random(shape, 3);
  batch.label = batch.image.select(1, 0).gt(0.0).to(at::kLong);
  batch.sample_ids = at::arange(count, at::kLong);
  return batch;
}

Output run(Model& model, const data::Batch& batch, const std::vector<std::string>& taps = {}) {
  return model.forward(batch, {1, 0, batch.sample_ids, false}, taps);
}

/// The first program's options: no final norm, one logit a pixel, no learned spacing.
config::Model printed(int64_t width, int64_t depth, int64_t heads, int64_t kernel) {
  config::Model options = rat({256, 256});
  options.in_channels = 3, options.mlp_ratio = 4;
  options.embed_dim = width, options.depth = depth, options.num_heads = heads;
  options.final_norm = false;
  options.rat.scales = {1.0, 0.5, 0.25};
  options.rat.proj_kernel = 7, options.rat.kernel = kernel, options.rat.stride = {};
  options.rat.spacing_scaling.value = "none";
  return options;
}

TEST(Rat, HasTheParametersOfTheFirstProgram) {
  EXPECT_EQ(make_model_shapes(printed(256, 4, 16, 7))->parameter_count(), 18'984'197);
  EXPECT_EQ(make_model_shapes(printed(128, 2, 8, 7))->parameter_count(), 2'396'291);
  config::Model scaled = printed(256, 4, 16, 7);
  scaled.rat.spacing_scaling.value = "log";
  EXPECT_EQ(make_model_shapes(scaled)->parameter_count(), 18'984'197 + 64);
}

TEST(Rat, LargeAndHugeHaveTheSizesOfTheTable) {
  const auto millions = [](const config::Model& options) {
    return static_cast<double>(make_model_shapes(options)->parameter_count()) / 1e6;
  };
  EXPECT_NEAR(millions(printed(512, 6, 32, 7)), 113.6, 0.05);
  EXPECT_NEAR(millions(printed(1280, 32, 16, 7)), 3777, 0.5);
  // An even kernel shrinks 256 cells to none in 9 blocks; more cells do not change the parameters.
  EXPECT_NEAR(millions(printed(1280, 32, 16, 3)), 1680, 0.5);
  EXPECT_NEAR(millions(printed(1280, 32, 16, 1)), 1261, 0.5);
}

TEST(Rat, EmptyGridsAreRefusedByNameBeforeAnythingIsAllocated) {
  config::Model options = printed(1280, 32, 16, 4);
  options.image_size = {128, 128};
  options.rat.scales = {1.0};
  try {
    make_model_shapes(options);
    FAIL() << "a grid of nothing was accepted";
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(),
                ::testing::HasSubstr("block 7 without a group: scale 1 comes to it as "
                                     "a grid of 1x1"));
  }
}

TEST(Rat, GridsShrinkAsTheTableSays) {
  config::Model options = printed(32, 6, 2, 7);
  const auto model = make_model_shapes(options);
  std::vector<int64_t> sides;
  for (int i = 0; i < 6; ++i)
    sides.push_back(
        static_cast<nn::GroupingBlock&>(model->stacks()[0]->block(i)).scales_out()[0].sides[0]);
  EXPECT_EQ(sides, (std::vector<int64_t>{86, 29, 10, 4, 2, 1}));
}

TEST(Rat, EveryParameterIsInOneUnitInOrder) {
  const auto model = make_model(rat(), 1);
  std::multiset<std::string> in_units;
  std::vector<std::string> names;
  for (const UnitSpec& unit : model->units()) {
    names.push_back(unit.name);
    for (const auto& parameter : unit.parameters) in_units.insert(parameter.name);
  }
  std::multiset<std::string> all;
  for (const auto& parameter : model->named_parameters()) all.insert(parameter.name);
  EXPECT_EQ(in_units, all);
  EXPECT_EQ(names, (std::vector<std::string>{"embed", "blocks.0", "blocks.1", "head"}));
}

TEST(Rat, HeadsGiveWhatTheySay) {
  config::Model options = rat();
  const data::Batch batch = batch_of(options);
  const Output binary = run(*make_model(options, 1), batch);
  EXPECT_EQ(binary.output.sizes(), at::IntArrayRef({2, 2, 12, 16}));
  EXPECT_EQ(binary.output.select(1, 0).abs().max().item<double>(), 0.0);
  EXPECT_TRUE(std::isfinite(binary.loss.item<double>()));
  options.loss.value = "dice_ce", options.num_classes = 3;
  EXPECT_EQ(run(*make_model(options, 1), batch).output.size(1), 3);
  options.rat.head.value = "classification", options.loss.value = "cross_entropy";
  data::Batch classes = batch;
  classes.label = at::ones({2}, at::kLong);
  const Output out = run(*make_model(options, 1), classes);
  EXPECT_EQ(out.output.sizes(), at::IntArrayRef({2, 3}));
  EXPECT_TRUE(out.loss.defined());
}

TEST(Rat, DetectionReadsTheGroupsOfTheFinestScale) {
  config::Model options = rat();
  options.rat.head.value = "detection", options.loss.value = "boxes", options.num_classes = 4;
  options.detection.num_queries = 5, options.detection.decoder_depth = 1,
  options.detection.decoder_num_heads = 3;
  data::Batch batch = batch_of(options);
  batch.label = at::Tensor();
  batch.boxes = at::zeros({2, 1, 4});
  batch.boxes.select(2, 2).fill_(6.0);
  batch.boxes.select(2, 3).fill_(9.0);
  batch.box_classes = at::ones({2, 1}, at::kLong);
  const auto model = make_model(options, 1);
  const Output out = run(*model, batch);
  EXPECT_EQ(out.boxes.sizes(), at::IntArrayRef({2, 5, 4}));
  out.loss.backward();
  for (const auto& parameter : model->named_parameters())
    if (parameter.name == "proj.weight") {
      EXPECT_GT(parameter.tensor.grad().abs().max().item<double>(), 0.0);
    }
}

TEST(Rat, HiddenCellsDoNotCount) {
  const config::Model options = rat();
  const auto model = std::make_shared<Rat>(options);
  initialise(model->named_parameters(), 1, rat_initial(options));
  const at::NoGradGuard no_grad;
  const data::Batch batch = batch_of(options);
  std::vector<ScaleInput> scales{
      {Resizer()(batch.image, {12, 16}), at::ones({2, 12, 16}, at::kBool)},
      {Resizer()(batch.image, {6, 8}), {}}};
  const nn::Draws draws{1, 0, batch.sample_ids, false};
  const at::Tensor all = model->run(scales, batch, draws).output;
  EXPECT_TRUE(at::equal(all, run(*model, batch).output));
  scales[0].valid.narrow(1, 0, 6).fill_(false);
  const at::Tensor hidden = model->run(scales, batch, draws).output;
  EXPECT_FALSE(at::equal(hidden, all));
  // What lies under the mask, and nothing else, may change without any effect.
  scales[0].image = scales[0].image.clone();
  scales[0].image.narrow(2, 0, 6).fill_(7.0);
  // Pixels of row 6 see row 5 through the convolution, and are hidden for that reason.
  EXPECT_TRUE(at::equal(model->run(scales, batch, draws).output, hidden));
  scales[0].image.select(2, 8).add_(1.0);
  EXPECT_FALSE(at::equal(model->run(scales, batch, draws).output, hidden));
}

TEST(Rat, PositionsKnowTheScale) {
  // The same picture at twice the spacing turns by twice the angle: with unit spacing a coarse scale looks like a small
  // fine one.
  config::Model options = rat();
  const auto grids = scale_grids(options);
  EXPECT_EQ(grids[0].spacing, (std::vector<double>{1.0, 1.0}));
  EXPECT_EQ(grids[1].spacing, (std::vector<double>{2.0, 2.0}));
  options.rat.spacing.value = "unit";
  EXPECT_EQ(scale_grids(options)[1].spacing, (std::vector<double>{1.0, 1.0}));
}

TEST(Rat, ComposedMapsShareEveryCellOut) {
  config::Model options = rat();
  const auto model = make_model(options, 1);
  const at::NoGradGuard no_grad;
  const Output out = run(*model, batch_of(options), {"maps.0", "maps.1", "assignments.0"});
  const at::Tensor share = out.taps.at("maps.0");
  EXPECT_EQ(share.sizes(), at::IntArrayRef({2, 3, 3 * 4, 12 * 16}));
  // Shares of shares: every cell is given away once by every block.
  EXPECT_LT((share.sum(-2) - 1.0).abs().max().item<double>(), 1e-5);
  EXPECT_LT((out.taps.at("assignments.0").sum(-1) - 1.0).abs().max().item<double>(), 1e-5);
  EXPECT_THROW(run(*model, batch_of(options), {"maps.2"}), core::ConfigError);
}

TEST(Rat, StartsAsTheFirstProgramDoes) {
  config::Model options = rat();
  options.embed_dim = 96, options.rat.temperature.value = "width";
  const auto model = make_model(options, 5);
  for (const auto& [name, tensor] : model->named_parameters()) {
    if (name.ends_with("mlp.fc1.weight")) {
      EXPECT_LE(tensor.abs().max().item<double>(), 0.04) << name;
      EXPECT_GT(tensor.abs().max().item<double>(), 0.039) << name;
      // A normal cut at two deviations has 0.880 of its deviation; of 18432 values it is known to 1 %.
      EXPECT_NEAR(tensor.std().item<double>(), 0.02 * 0.8796, 3e-4) << name;
    }
    if (name.ends_with("temperature")) {
      EXPECT_FLOAT_EQ(tensor.item<float>(), static_cast<float>(1 / std::sqrt(96.0)));
    }
    if (name.ends_with("log_offset")) {
      EXPECT_NEAR(tensor.std().item<double>(), 0.02, 0.008) << name;  // of 32 values
    }
    if (name == "blocks.0.grouping.conv.bias") {
      EXPECT_LE(tensor.abs().max().item<double>(), 1 / std::sqrt(9.0 * 96));
    }
  }
}

TEST(RatScales, ShrinkingTakesMeansAndGrowingIsLinear) {
  const at::Tensor x = random({1, 1, 4, 6}, 9);
  const at::Tensor half = Resizer()(x, {2, 3});
  EXPECT_NEAR(half[0][0][1][2].item<double>(),
              x[0][0].slice(0, 2, 4).slice(1, 4, 6).mean().item<double>(), 1e-6);
  const at::Tensor grown = Resizer()(x, {4, 12});
  EXPECT_NEAR(grown[0][0][1][5].item<double>(),
              0.75 * x[0][0][1][2].item<double>() + 0.25 * x[0][0][1][3].item<double>(), 1e-6);
  EXPECT_NEAR(grown[0][0][0][0].item<double>(), x[0][0][0][0].item<double>(), 1e-6);
}

}  // namespace
}  // namespace vitrail::models
