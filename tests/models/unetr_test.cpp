#include "vitrail/models/unetr.h"

#include <cmath>
#include <cstdio>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/leaf_grid.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;
using Sides = std::vector<int64_t>;

std::shared_ptr<Unetr> make(const config::Model& options) {
  auto model = std::make_shared<Unetr>(options);
  initialise(model->named_parameters(), 1, unetr_initial(options));
  return model;
}

/// What making the model says, empty when it succeeds.
std::string refusal(const config::Model& options) {
  try {
    const Unetr model(options);
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "";
}

enum class Form { skips, conv, linear };

config::Model options_of(Form form, Sides sides, int64_t patch) {
  config::Model options = segmenter("unetr", std::move(sides), patch);
  options.skips = form == Form::skips;
  if (form == Form::linear) options.decoder.value = "linear";
  return options;
}

TEST(Unetr, ClassifiesEveryPlaceForAnyPatchSizeAndFormInTwoAndThreeAxes) {
  const std::vector<std::pair<Sides, int64_t>> sizes{
      {{32, 16}, 16}, {{32, 64}, 32},     {{16, 8}, 8},    {{8, 12}, 4},   {{4, 6}, 2},
      {{6, 12}, 6},   {{16, 16, 16}, 16}, {{8, 8, 16}, 8}, {{4, 8, 4}, 4}, {{6, 3, 3}, 3}};
  int64_t B = 1;
  for (const Form form : {Form::skips, Form::conv, Form::linear})
    for (const auto& [sides, patch] : sizes) {
      B = 3 - B;
      const config::Model options = options_of(form, sides, patch);
      const auto model = make(options);
      const data::Batch batch = images(options, B);
      const Output out = model->forward(batch, draws_of(batch));
      EXPECT_EQ(out.output.sizes().vec(), shape_of(B, 3, sides)) << "patch " << patch;
      EXPECT_EQ(out.output.scalar_type(), at::kFloat);
      out.loss.backward();
      for (const nn::NamedTensor& parameter : model->named_parameters()) {
        ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
        ASSERT_TRUE(at::isfinite(parameter.tensor.grad()).all().item<bool>()) << parameter.name;
      }
    }
}

TEST(Unetr, HasMonaisNamesBehindTheEncoders) {
  std::set<std::string> expected{"out.conv.conv.weight", "out.conv.conv.bias"};
  for (const char* name : {"conv1", "conv2", "conv3"}) {
    expected.insert(fmt::format("encoder1.layer.{}.conv.weight", name));
    for (int d = 2; d <= 5; ++d)
      expected.insert(fmt::format("decoder{}.conv_block.{}.conv.weight", d, name));
  }
  for (int e = 2; e <= 4; ++e)
    expected.insert(fmt::format("encoder{}.transp_conv_init.conv.weight", e));
  for (int d = 2; d <= 5; ++d) expected.insert(fmt::format("decoder{}.transp_conv.conv.weight", d));
  for (const char* place : {"2.blocks.0", "2.blocks.1", "3.blocks.0"})
    for (const char* part : {"0.conv", "1.conv1.conv", "1.conv2.conv"})
      expected.insert(fmt::format("encoder{}.{}.weight", place, part));
  const auto model = make(options_of(Form::skips, {32, 32}, 16));
  EXPECT_EQ(names_of(model->units().back().parameters).size(), expected.size() + 2);
  expected.insert({"norm.weight", "norm.bias"});
  EXPECT_EQ(names_of(model->units().back().parameters), expected);

  EXPECT_THAT(
      names_of(make(options_of(Form::conv, {32, 32}, 16))->units().back().parameters),
      testing::UnorderedElementsAre(
          "norm.weight", "norm.bias", "decoder5.transp_conv.conv.weight",
          "decoder4.transp_conv.conv.weight", "decoder3.transp_conv.conv.weight",
          "decoder2.transp_conv.conv.weight", "out.conv.conv.weight", "out.conv.conv.bias"));
  EXPECT_THAT(
      names_of(make(options_of(Form::linear, {32, 32}, 16))->units().back().parameters),
      testing::UnorderedElementsAre("norm.weight", "norm.bias", "head.weight", "head.bias"));
}

TEST(Unetr, PutsEveryParameterInExactlyOneUnit) {
  for (const Form form : {Form::skips, Form::conv, Form::linear}) {
    const auto model = make(options_of(form, {8, 8}, 4));
    std::vector<std::string> in_units, all, units;
    for (const UnitSpec& unit : model->units()) {
      units.push_back(unit.name);
      for (const nn::NamedTensor& parameter : unit.parameters) in_units.push_back(parameter.name);
    }
    for (const nn::NamedTensor& parameter : model->named_parameters())
      all.push_back(parameter.name);
    EXPECT_THAT(in_units, testing::UnorderedElementsAreArray(all));
    EXPECT_THAT(units, testing::ElementsAre("embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3",
                                            "decoder"));
  }
}

/// 64^3 cubes, patch 4: 85.1 M blocks, 3.1 M positions, 4.4 M decoder.
TEST(Unetr, HasTheParametersOfTheSpecifiedModel) {
  config::Model options = segmenter("unetr", {64, 64, 64}, 4);
  options.in_channels = 1, options.num_classes = 5;
  options.embed_dim = 768, options.depth = 12, options.num_heads = 12, options.mlp_ratio = 4;
  options.feature_size = 16;
  const nn::ShapesOnly shapes_only;
  Unetr model(options);
  int64_t decoder = 0;
  const std::vector<UnitSpec> units = model.units();
  for (const nn::NamedTensor& parameter : units.back().parameters)
    decoder += parameter.tensor.numel();
  EXPECT_NEAR(static_cast<double>(decoder), 4.4e6, 0.05e6);
  EXPECT_NEAR(static_cast<double>(model.parameter_count()), 92.7e6, 0.05e6);
}

TEST(Unetr, ReadsTheBlocksThatMonaiReads) {
  // Zeroing what follows block 3d's successors must change the output; the first d blocks feed all.
  config::Model options = options_of(Form::skips, {32, 32}, 16);
  options.depth = 9;  // d = 2: blocks 2, 4 and 6
  const auto model = make(options);
  randomise(*model);
  const data::Batch batch = images(options, 1);
  const at::NoGradGuard no_grad;
  const auto run = [&](const std::vector<std::string>& taps) {
    return model->forward(batch, draws_of(batch), taps);
  };
  const Output before = run({"enc2", "enc3", "enc4", "blocks.2", "blocks.4", "blocks.6"});
  for (const auto& [block, changed] :
       std::vector<std::pair<int, std::string>>{{7, ""}, {5, "4"}, {3, "34"}, {2, "234"}}) {
    const auto held = model->stacks()[0]->block(block).named_parameters();
    std::vector<at::Tensor> kept;
    for (const nn::NamedTensor& parameter : held) {
      kept.push_back(parameter.tensor.clone());
      at::Tensor tensor = parameter.tensor;
      tensor.mul_(1.5);
    }
    const Output after = run({"enc2", "enc3", "enc4"});
    for (const char* skip : {"2", "3", "4"})
      EXPECT_EQ(!at::equal(before.taps.at(std::string("enc") + skip),
                           after.taps.at(std::string("enc") + skip)),
                changed.find(skip) != std::string::npos)
          << "block " << block << ", enc" << skip;
    EXPECT_FALSE(at::equal(before.output, after.output));
    for (size_t p = 0; p < held.size(); ++p) {
      at::Tensor tensor = held[p].tensor;
      tensor.copy_(kept[p]);
    }
  }
}

TEST(Unetr, OffersTapsOfItsForm) {
  config::Model options = options_of(Form::skips, {8, 8, 8}, 4);
  const data::Batch batch = images(options, 2);
  const Output out = make(options)->forward(batch, draws_of(batch),
                                            {"embed", "blocks.1", "norm", "enc1", "enc2", "enc3",
                                             "enc4", "dec5", "dec4", "dec3", "dec2"});
  EXPECT_EQ(out.taps.at("enc1").sizes().vec(), shape_of(2, 4, {8, 8, 8}));
  EXPECT_EQ(out.taps.at("enc2").sizes().vec(), shape_of(2, 8, {16, 16, 16}));
  EXPECT_EQ(out.taps.at("enc3").sizes().vec(), shape_of(2, 16, {8, 8, 8}));
  EXPECT_EQ(out.taps.at("enc4").sizes().vec(), shape_of(2, 32, {4, 4, 4}));
  EXPECT_EQ(out.taps.at("dec2").sizes().vec(), shape_of(2, 4, {8, 8, 8}));
  const auto linear = make(options_of(Form::linear, {8, 8, 8}, 4));
  EXPECT_THROW(linear->forward(batch, draws_of(batch), {"dec2"}), core::ConfigError);
}

TEST(Unetr, StartsPositionsAtTheSinCosTable) {
  for (const Sides& sides : {Sides{8, 12}, Sides{8, 12, 4}}) {
    const config::Model options = options_of(Form::skips, sides, 4);
    const auto parameters = make(options)->named_parameters();
    ASSERT_EQ(parameters[0].name, "pos_embed");
    EXPECT_TRUE(at::equal(parameters[0].tensor, position_table(options, 0, options.embed_dim)));
  }
}

TEST(Unetr, StartsPositionsAtRandomWhereTheWidthHasNoTable) {
  config::Model options = options_of(Form::skips, Sides{16, 16, 16}, 4);
  options.embed_dim = 32;  // not a multiple of 6
  options.num_heads = 4;
  const auto parameters = make(options)->named_parameters();
  ASSERT_EQ(parameters[0].name, "pos_embed");
  // normal(0.02): the deviation of 64 x 32 draws is off by 1.6 % in the mean.
  EXPECT_NEAR(parameters[0].tensor.std().item<double>(), 0.02, 0.002);
}

TEST(Unetr, StartsConvolutionsAsPyTorchDoes) {
  config::Model options = options_of(Form::skips, {8, 8}, 4);
  options.feature_size = 16;
  std::map<std::string, double> largest;
  for (const nn::NamedTensor& parameter : make(options)->named_parameters())
    largest[parameter.name] = parameter.tensor.abs().max().item<double>();
  // Uniform in +-bound: of hundreds of values one lies within a few percent of it.
  const auto expect_bound = [&](const char* name, double inputs) {
    EXPECT_LE(largest.at(name), 1.0 / std::sqrt(inputs)) << name;
    EXPECT_GE(largest.at(name), 0.9 / std::sqrt(inputs)) << name;
  };
  expect_bound("encoder1.layer.conv1.conv.weight", 2 * 9);
  expect_bound("decoder5.conv_block.conv3.conv.weight", 256);
  expect_bound("decoder3.transp_conv.conv.weight", 32 * 4);  // PyTorch counts the outputs here
  EXPECT_LE(largest.at("out.conv.conv.bias"), 1.0 / std::sqrt(16.0));
  EXPECT_GT(largest.at("out.conv.conv.bias"), 0.0);
  EXPECT_LT(largest.at("blocks.0.attn.qkv.weight"), 0.1);
}

TEST(Unetr, RefusesWhatContradictsItself) {
  const config::Model good = options_of(Form::skips, {8, 8}, 4);
  EXPECT_EQ(refusal(good), "");
  config::Model bad = good;
  bad.depth = 3;
  EXPECT_THAT(refusal(bad), HasSubstr("model.depth must be at least 4"));
  bad = good, bad.decoder.value = "linear";
  EXPECT_THAT(refusal(bad), HasSubstr("set model.skips=false"));
  bad = good, bad.decoder.value = "transformer";
  EXPECT_THAT(refusal(bad), HasSubstr("model.decoder must be conv or linear"));
  bad = good, bad.class_token = true;
  EXPECT_THAT(refusal(bad), HasSubstr("set them to false and 0"));
  bad = good, bad.register_tokens = 2;
  EXPECT_THAT(refusal(bad), HasSubstr("model.register_tokens 2"));
  bad = good, bad.num_classes = 1;
  EXPECT_THAT(refusal(bad), HasSubstr("model.num_classes must be at least 2"));
  bad = good, bad.loss.value = "masked_mse";
  EXPECT_THAT(refusal(bad), HasSubstr("model.loss must be one of"));
  bad = good, bad.feature_size = 0;
  EXPECT_THAT(refusal(bad), HasSubstr("model.feature_size"));
  bad = good, bad.patch_drop_rate = 0.5;
  EXPECT_THAT(refusal(bad), HasSubstr("model.patch_drop_rate"));
  bad = options_of(Form::linear, {8, 8}, 4), bad.depth = 1;
  EXPECT_EQ(refusal(bad), "") << "without skips every depth will do";
}

TEST(Unetr, TakesEveryLossOfSegmentationAndNoneWithoutLabels) {
  for (const char* loss :
       {"cross_entropy", "dice", "dice_ce", "generalized_dice", "focal", "dice_focal"}) {
    config::Model options = options_of(Form::linear, {8, 8}, 4);
    options.loss.value = loss;
    data::Batch batch = images(options, 2);
    const auto model = make(options);
    EXPECT_GT(model->forward(batch, draws_of(batch)).loss.item<double>(), 0.0) << loss;
    batch.label = at::Tensor();
    EXPECT_FALSE(model->forward(batch, draws_of(batch)).loss.defined());
  }
}

TEST(Unetr, TreatsMissingVariablesAsImagesOfZeros) {
  config::Model options = options_of(Form::skips, {8, 8}, 4);
  options.variables = {"u", "v", "w"}, options.in_channels = 3;
  const auto model = make(options);
  randomise(*model);
  data::Batch batch = images(options, 2);
  const at::Tensor whole = batch.image;
  batch.variables = {"w", "u"};
  batch.image = at::cat({whole.slice(1, 2, 3), whole.slice(1, 0, 1)}, 1);
  const Output some = model->forward(batch, draws_of(batch), {"enc1"});
  data::Batch all = batch;
  all.variables = {};
  all.image = whole.clone();
  all.image.select(1, 1).zero_();
  const Output every = model->forward(all, draws_of(all), {"enc1"});
  EXPECT_TRUE(at::equal(some.taps.at("enc1"), every.taps.at("enc1")));
  some.loss.backward();
}

TEST(Unetr, CountsTheWorkOfConvolutionsTooByHand) {
  // 8 x 8 image, patch 4, so 4 tokens; linear: 4 tokens * 12 * 3 multiply-adds, six operations each.
  const config::Model linear = options_of(Form::linear, {8, 8}, 4);
  const double trunk = make(linear)->train_flops_per_sample() - 6.0 * 4 * 12 * 3;
  const auto base = trunk_flops(*make(linear)->stacks()[0], 4, 12);
  EXPECT_DOUBLE_EQ(trunk, base);
  // Doublings at F = 4 from 4, 16, 64 and 256 places, then 64 places of the image.
  const double conv = 4 * 12 * 32 * 4 + 16 * 32 * 16 * 4 + 64 * 16 * 8 * 4 + 256 * 8 * 4 * 4;
  EXPECT_DOUBLE_EQ(make(options_of(Form::conv, {8, 8}, 4))->train_flops_per_sample(),
                   base + 6.0 * (conv + 64 * 4 * 3));
  EXPECT_GT(make(options_of(Form::skips, {8, 8}, 4))->train_flops_per_sample(), base + 6.0 * conv);
}

TEST(LeafShares, GiveEveryCellToTheLeafAroundItOrDivideIt) {
  // A 4 x 4 image on a 2 x 2 grid: the left half is one leaf, the upper right cell another, the lower right cell is cut
  // in two; the last leaf is padding.
  const at::Tensor boxes = at::tensor({0.f, 0.f, 4.f, 2.f, 0.f, 2.f, 2.f,  4.f,  2.f,  2.f,
                                       3.f, 4.f, 3.f, 2.f, 4.f, 4.f, -1.f, -1.f, -1.f, -1.f})
                               .view({1, 5, 4});
  const at::Tensor expected = at::tensor({1.f, 0.f, 0.f, 0.f, 0.f, 0.f, 1.f, 0.f, 0.f, 0.f,  //
                                          1.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, .5f, .5f, 0.f})
                                  .view({1, 4, 5});
  EXPECT_TRUE(at::equal(leaf_shares(boxes, {4, 4}, {2, 2}), expected));
}

TEST(Unetr, PutsAdaptiveLeavesBackWhereTheyWere) {
  for (const Sides& sides : {Sides{8, 8}, Sides{8, 8, 8}}) {
    config::Model options = options_of(Form::skips, sides, 4);
    options.adaptive.fixed_length = sides.size() == 2 ? 4 : 8;
    const auto model = make(options);
    randomise(*model);
    data::Batch batch = images(options, 2);
    add_leaves(batch, options, 2);
    const Output straight = model->forward(batch, draws_of(batch));
    EXPECT_EQ(straight.output.sizes().vec(), shape_of(2, 3, sides));
    data::Batch turned = batch;
    turned.leaf_tokens = batch.leaf_tokens.flip(2);
    turned.leaf_boxes = batch.leaf_boxes.flip(1);
    // The order of leaves is no information; attention adds in another order. Worst seen: 2e-6.
    EXPECT_LE(worst(model->forward(turned, draws_of(turned)).output, straight.output), 2e-5);
    turned.leaf_boxes = batch.leaf_boxes;
    EXPECT_GT(worst(model->forward(turned, draws_of(turned)).output, straight.output), 1e-3);
  }
}

/// With no position and no norm around the embedding, a mixed-resolution model whose patches all have one size is a dense
/// one whose tokens come in another order.
TEST(Unetr, OverLeavesOfAUniformGridIsTheDenseModel) {
  for (const Form form : {Form::skips, Form::conv, Form::linear}) {
    config::Model dense = options_of(form, {16, 32}, 4);
    dense.pos_embed.value = "none";
    config::Model leaves = dense;
    leaves.mixed_resolution.num_tokens = 32, leaves.mixed_resolution.max_patch = 8;
    const auto one = make(dense), other = make(leaves);
    randomise(*one), randomise(*other);
    ASSERT_EQ(names_of(one->named_parameters()), names_of(other->named_parameters()));
    const data::Batch batch = images(dense, 2);
    const Output straight = one->forward(batch, draws_of(batch)),
                 pasted = other->forward(batch, draws_of(batch));
    // Attention adds in another order.
    const double far = worst(pasted.output, straight.output);
    std::printf("worst difference %.2e of values up to %.1f (allowed 1e-4)\n", far,
                straight.output.abs().max().item<double>());
    EXPECT_LE(far, 1e-4);
    EXPECT_NEAR(pasted.loss.item<double>(), straight.loss.item<double>(), 1e-4);
  }
}

TEST(Unetr, PaddingLeavesChangeNothing) {
  for (const Form form : {Form::skips, Form::conv, Form::linear}) {
    config::Model options = options_of(form, {8, 12}, 4);
    options.adaptive.fixed_length = 9;
    const auto model = make(options);
    randomise(*model);
    data::Batch batch = images(options, 2);
    const data::Batch leaves = batch_for(options, 2);
    batch.leaf_tokens = leaves.leaf_tokens, batch.leaf_boxes = leaves.leaf_boxes;
    const Output before = model->forward(batch, draws_of(batch));
    batch.leaf_tokens = batch.leaf_tokens.clone();
    batch.leaf_tokens.select(0, 1).slice(1, 6).fill_(9.0);  // the last three are padding
    const Output after = model->forward(batch, draws_of(batch));
    EXPECT_TRUE(at::equal(before.output, after.output));
    EXPECT_EQ(before.loss.item<double>(), after.loss.item<double>());
    batch.leaf_tokens.select(0, 1).select(1, 5).copy_(random({2, 16}, 77));
    EXPECT_GT(worst(model->forward(batch, draws_of(batch)).output, before.output), 1e-4);
  }
}

TEST(LeafShares, OfAUniformGridAreOneEach) {
  const at::Tensor boxes = at::tensor({0.f, 0.f, 2.f, 4.f, 2.f, 4.f, 4.f, 8.f,  //
                                       0.f, 4.f, 2.f, 8.f, 2.f, 0.f, 4.f, 4.f})
                               .view({1, 4, 4});
  const at::Tensor expected = at::tensor({1.f, 0.f, 0.f, 0.f, 0.f, 0.f, 1.f, 0.f,  //
                                          0.f, 0.f, 0.f, 1.f, 0.f, 1.f, 0.f, 0.f})
                                  .view({1, 4, 4});
  EXPECT_TRUE(at::equal(leaf_shares(boxes, {4, 8}, {2, 2}), expected));
}

TEST(LeafShares, AverageLeavesFinerThanACellByTheirAreas) {
  // One cell of 4 x 4: a half, a quarter and two eighths.
  const at::Tensor boxes = at::tensor({0.f, 0.f, 2.f, 4.f, 2.f, 0.f, 4.f, 2.f,  //
                                       2.f, 2.f, 3.f, 4.f, 3.f, 2.f, 4.f, 4.f})
                               .view({1, 4, 4});
  EXPECT_TRUE(at::equal(leaf_shares(boxes, {4, 4}, {1, 1}).flatten(),
                        at::tensor({.5f, .25f, .125f, .125f})));
}

}  // namespace
}  // namespace vitrail::models
