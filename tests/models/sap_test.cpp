#include "vitrail/models/sap.h"

#include <cmath>
#include <cstdio>

#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/conv_transpose3d.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;
using Sides = std::vector<int64_t>;

std::shared_ptr<Sap> make(const config::Model& options) {
  auto model = std::make_shared<Sap>(options);
  initialise(model->named_parameters(), 1, sap_initial(options));
  return model;
}

std::string refusal(const config::Model& options) {
  try {
    const Sap model(options);
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "";
}

at::Tensor parameter_of(const Model& model, const std::string& name) {
  for (const nn::NamedTensor& parameter : model.named_parameters())
    if (parameter.name == name) return parameter.tensor;
  return {};
}

TEST(Sap, EqualsTransposedConvolutionThenConvolution) {
  for (const Sides& sides : {Sides{8, 12}, Sides{4, 8, 8}}) {
    const config::Model options = segmenter("sap", sides, 4);
    const auto model = make(options);
    randomise(*model);
    const data::Batch batch = images(options, 2);
    const Output out = model->forward(batch, draws_of(batch), {"norm"});
    Sides grid;
    for (const int64_t side : sides) grid.push_back(side / 4);
    const at::Tensor map = as_map(out.taps.at("norm"), grid);
    const at::Tensor neck = parameter_of(*model, "neck.weight"),
                     head = parameter_of(*model, "head.weight"),
                     bias = parameter_of(*model, "head.bias");
    const at::Tensor expected =
        sides.size() == 2 ? at::conv2d(at::conv_transpose2d(map, neck, {}, 4), head, bias)
                          : at::conv3d(at::conv_transpose3d(map, neck, {}, 4), head, bias);
    // Sums of 12 * 8 products of values near 1. Worst seen: 1e-6.
    const double far = worst(out.output, expected);
    std::printf("worst difference %.2e (allowed 1e-05)\n", far);
    EXPECT_LE(far, 1e-5);
  }
}

/// 64^3 cubes, patch 4: 85.1 M blocks, 3.1 M positions, 12.6 M neck.
TEST(Sap, HasTheParametersOfTheSpecifiedModel) {
  config::Model options = segmenter("sap", {64, 64, 64}, 4);
  options.in_channels = 1, options.num_classes = 5;
  options.embed_dim = 768, options.depth = 12, options.num_heads = 12, options.mlp_ratio = 4;
  options.decoder_embed_dim = 256;
  const nn::ShapesOnly shapes_only;
  EXPECT_NEAR(static_cast<double>(Sap(options).parameter_count()), 100.8e6, 0.05e6);
}

TEST(Sap, PutsEveryParameterInExactlyOneUnitAndStartsAsPyTorchDoes) {
  const config::Model options = segmenter("sap", {8, 8}, 4);
  const auto model = make(options);
  EXPECT_EQ(names_of(model->units().back().parameters),
            (std::set<std::string>{"norm.weight", "norm.bias", "neck.weight", "head.weight",
                                   "head.bias"}));
  EXPECT_EQ(model->units().back().name, "decoder");
  const double neck = parameter_of(*model, "neck.weight").abs().max().item<double>();
  EXPECT_LE(neck, 1.0 / std::sqrt(8.0 * 16));
  EXPECT_GE(neck, 0.9 / std::sqrt(8.0 * 16));
  EXPECT_GT(parameter_of(*model, "head.bias").abs().max().item<double>(), 0.0);
  EXPECT_TRUE(
      at::equal(parameter_of(*model, "pos_embed"), position_table(options, 0, options.embed_dim)));
}

TEST(Sap, RefusesWhatContradictsItself) {
  const config::Model good = segmenter("sap", {8, 8}, 4);
  EXPECT_EQ(refusal(good), "");
  config::Model bad = good;
  bad.class_token = true;
  EXPECT_THAT(refusal(bad), HasSubstr("model.class_token is true"));
  bad = good, bad.decoder_embed_dim = 0;
  EXPECT_THAT(refusal(bad), HasSubstr("model.decoder_embed_dim"));
  bad = good, bad.loss.value = "masked_mse";
  EXPECT_THAT(refusal(bad), HasSubstr("model.loss must be one of"));
  bad = good, bad.adaptive.fixed_length = 10;
  EXPECT_EQ(refusal(bad), "") << "any number of leaves will do";
  bad.adaptive.trees.value = "per_channel";
  EXPECT_THAT(refusal(bad), HasSubstr("one prediction a place"));
}

TEST(Sap, RefusesLabelsOfAnotherShape) {
  const config::Model options = segmenter("sap", {8, 8}, 4);
  data::Batch batch = images(options, 2);
  batch.label = labels(2, {8, 4}, 3);
  EXPECT_THROW(make(options)->forward(batch, draws_of(batch)), core::Error);
}

}  // namespace
}  // namespace vitrail::models
