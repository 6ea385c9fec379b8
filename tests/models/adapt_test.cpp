#include "vitrail/models/adapt.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/models/weights.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;

/// Values without pattern.
at::Tensor values(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return at::sin(at::arange(count, at::kFloat) * 1.7f).reshape(shape);
}

double largest(const at::Tensor& difference) { return difference.abs().max().item<double>(); }

TEST(Adapt, APositionTableOfTheSameGridIsNotTouched) {
  const at::Tensor rows = values({16, 6});
  EXPECT_TRUE(at::equal(resample_positions(rows, {4, 4}, {4, 4}), rows));
}

TEST(Adapt, ResampledPositionsKeepAConstant) {
  const at::Tensor rows = at::full({16, 3}, 0.25);
  for (const std::vector<int64_t>& grid : {std::vector<int64_t>{6, 5}, {2, 2}}) {
    const double error = largest(resample_positions(rows, {4, 4}, grid) - 0.25);
    EXPECT_LE(error, 1e-6) << "weights of an interpolation add up to 1 within fp32 rounding";
  }
  EXPECT_LE(largest(resample_positions(at::full({8, 3}, 0.25), {2, 2, 2}, {4, 3, 2}) - 0.25), 1e-6);
}

TEST(Adapt, InTheMiddleOfTwoCellsTrilinearIsTheirMean) {
  // Four cells out of two along axis 0: centres at -1/4, 1/4, 3/4, 5/4 of the old cells.
  const at::Tensor rows = values({2, 5});
  const at::Tensor finer = resample_positions(rows, {2, 1, 1}, {4, 1, 1});
  EXPECT_LE(largest(finer[1] - (rows[0] * 0.75 + rows[1] * 0.25)), 1e-6);
  EXPECT_LE(largest(finer[0] - rows[0]), 1e-6);
}

TEST(Adapt, EveryDepthGetsThePlanesPositions) {
  const at::Tensor rows = values({4, 3});
  const at::Tensor volume = resample_positions(rows, {2, 2}, {3, 2, 2});
  for (int64_t d = 0; d < 3; ++d) EXPECT_TRUE(at::equal(volume.slice(0, 4 * d, 4 * d + 4), rows));
}

TEST(Adapt, AnInflatedPatchSeesAConstantStackAsItsSlice) {
  const at::Tensor weight = values({5, 2, 4, 4}), slice = values({2, 4, 4});
  const at::Tensor inflated = inflate_patch(weight, 4);
  ASSERT_EQ(inflated.sizes().vec(), (std::vector<int64_t>{5, 2, 4, 4, 4}));
  const at::Tensor stack = slice.unsqueeze(1).repeat({1, 4, 1, 1});
  const double error =
      largest(inflated.flatten(1).mv(stack.flatten()) - weight.flatten(1).mv(slice.flatten()));
  EXPECT_LE(error, 1e-5) << "128 products of order 1 in fp32";
}

TEST(Adapt, AnEnlargedPatchGivesTheTokenOfTheSmallOne) {
  // FlexiViT's definition: <resize(x), resized w> = <x, w> when the patch grows. In 2-D and 3-D.
  for (const int64_t axes : {2, 3}) {
    std::vector<int64_t> shape{5, 1};
    shape.insert(shape.end(), static_cast<size_t>(axes), 4);
    const at::Tensor weight = values(shape);
    const at::Tensor resized = resize_patch(weight, 7);
    EXPECT_EQ(resized.size(-1), 7);
    // A patch that is 1 everywhere stays 1 under the resize.
    EXPECT_LE(largest(resized.flatten(1).sum(1) - weight.flatten(1).sum(1)), 2e-5)
        << "343 products of order 1 in fp32";
  }
}

TEST(Adapt, ChannelsAreSummedOrRepeatedAndScaled) {
  const at::Tensor weight = values({4, 3, 2, 2});
  EXPECT_LE(largest(change_channels(weight, 1) - weight.sum(1, true)), 1e-6);
  const at::Tensor five = change_channels(weight, 5);
  EXPECT_LE(largest(five.select(1, 3) - weight.select(1, 0) * 0.6), 1e-6);
  EXPECT_LE(largest(five.select(1, 2) - weight.select(1, 2) * 0.6), 1e-6);
}

config::Model small(const std::vector<int64_t>& image, int64_t patch, int64_t channels) {
  config::Model options;
  options.image_size = image;
  options.patch_size = patch, options.in_channels = channels, options.num_classes = 5,
  options.embed_dim = 12, options.depth = 1, options.num_heads = 2;
  return options;
}

LoadReport load(const config::Model& from, config::Model to, bool strict = true,
                bool adapt = true) {
  to.weights.adapt = adapt, to.weights.strict = strict;
  return load_tensors(*make_model(to, 2), model_tensors(*make_model(from, 1)), load_options(to),
                      "file");
}

std::string notes(const LoadReport& report) {
  std::string text;
  for (const auto& [name, what] : report.changed) text += name + ": " + what + "\n";
  return text;
}

TEST(Adapt, AnImageModelStartsAVolumeModel) {
  config::Model volume = small({8, 16, 16}, 4, 1);
  volume.register_tokens = 2;
  const LoadReport report = load(small({32, 32}, 8, 3), volume);
  EXPECT_TRUE(report.complete()) << report.describe();
  EXPECT_THAT(notes(report), HasSubstr("pos_embed: resampled from 4x4 to 2x4x4"));
  EXPECT_THAT(notes(report),
              HasSubstr("patch_embed.proj.weight: 3 channels summed, patch resized from "
                        "8 to 4, 2-D patch repeated along depth and divided by 4"));
  EXPECT_THAT(notes(report), HasSubstr("reg_token: not in the file, keeps its initial value"));
}

TEST(Adapt, AdaptedWeightsAreInTheModelWithThePrefixRowsKept) {
  const config::Model from = small({8, 8}, 4, 3);
  config::Model to = small({16, 8}, 4, 3);
  to.weights.adapt = true;
  const auto source = make_model(from, 1), model = make_model(to, 2);
  load_tensors(*model, model_tensors(*source), load_options(to), "file");
  const auto table = [](Model& of) {
    for (const nn::NamedTensor& entry : model_tensors(of))
      if (entry.name == "pos_embed") return entry.tensor;
    return at::Tensor();
  };
  const at::Tensor old = table(*source)[0], fresh = table(*model)[0];
  EXPECT_TRUE(at::equal(fresh[0], old[0]));
  EXPECT_TRUE(at::equal(fresh.slice(0, 1), resample_positions(old.slice(0, 1), {2, 2}, {4, 2})));
}

TEST(Adapt, AHeadOfOtherClassesIsLeftOutAndNamed) {
  config::Model to = small({8, 8}, 4, 3);
  to.num_classes = 7;
  const LoadReport report = load(small({8, 8}, 4, 3), to);
  EXPECT_TRUE(report.complete());
  EXPECT_THAT(notes(report),
              HasSubstr("head.weight: [5, 12] in the file, [7, 12] here, keeps its initial value"));
  EXPECT_THAT(notes(report), HasSubstr("head.bias"));
}

TEST(Adapt, ATokenThatTheModelLacksIsLeftOutWithItsPosition) {
  config::Model to = small({8, 8}, 4, 3);
  to.class_token = false, to.pool.value = "avg", to.final_norm = true;
  const LoadReport report = load(small({8, 8}, 4, 3), to, /*strict=*/false);
  EXPECT_THAT(notes(report), HasSubstr("cls_token: left out: this model has no such token"));
  EXPECT_TRUE(report.mismatched.empty()) << report.describe();
}

TEST(Adapt, AFixedTableOfAnotherGridIsLeftOut) {
  config::Model from = small({8, 8}, 4, 3), to = small({16, 16}, 4, 3);
  from.pos_embed.value = to.pos_embed.value = "sincos";
  const LoadReport report = load(from, to);
  EXPECT_TRUE(report.complete()) << report.describe();
  EXPECT_THAT(notes(report), HasSubstr("pos_embed: left out: this model computes its table"));
}

TEST(Adapt, OnePatchEmbeddingBecomesThatOfEveryVariable) {
  config::Model to = small({8, 8}, 4, 2);
  to.variables = {"u", "v"};
  const config::Model from = small({8, 8}, 4, 3);
  to.weights.adapt = true, to.weights.strict = false;
  const auto source = make_model(from, 1), model = make_model(to, 2);
  const LoadReport report = load_tensors(*model, model_tensors(*source), load_options(to), "file");
  EXPECT_THAT(notes(report),
              HasSubstr("token_embeds.1.proj.weight: taken from patch_embed.proj.weight"));
  at::Tensor mixed, own;
  for (const nn::NamedTensor& entry : model_tensors(*source))
    if (entry.name == "patch_embed.proj.weight") mixed = entry.tensor;
  for (const nn::NamedTensor& entry : model_tensors(*model))
    if (entry.name == "token_embeds.1.proj.weight") own = entry.tensor;
  ASSERT_TRUE(own.defined());
  EXPECT_TRUE(at::equal(own, mixed.sum(1, true)));
  EXPECT_TRUE(report.unexpected.empty()) << report.describe();
}

TEST(Adapt, WithoutAdaptNothingIsChangedAndTheErrorNamesTheSetting) {
  try {
    load(small({8, 8}, 4, 3), small({16, 16}, 4, 3), true, false);
    FAIL() << "nothing was thrown";
  } catch (const core::CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("'pos_embed' must be [1, 17, 12] but is [1, 5, 12]"));
    EXPECT_THAT(error.what(), HasSubstr("model.weights.adapt=true"));
  }
}

TEST(Adapt, AnotherWidthIsNotAdapted) {
  config::Model to = small({8, 8}, 4, 3);
  to.embed_dim = 24;
  EXPECT_THROW(load(small({8, 8}, 4, 3), to), core::CheckpointError);
}

TEST(Adapt, PositionsWithoutPrefixRowsFitEvenWithoutAdapt) {
  const config::Model options = small({8, 8}, 4, 3);
  auto tensors = model_tensors(*make_model(options, 1));
  for (nn::NamedTensor& entry : tensors)
    if (entry.name == "pos_embed") entry.tensor = entry.tensor.slice(1, 1);
  const LoadReport report = load_tensors(*make_model(options, 2), tensors, true, "file");
  EXPECT_TRUE(report.complete());
  EXPECT_THAT(notes(report), HasSubstr("pos_embed: 1 zero rows added"));
}

TEST(Adapt, ALinearPatchEmbeddingIsAConvolutionWithTheChannelLast) {
  const config::Model options = small({8, 8}, 4, 3);
  const auto source = make_model(options, 1), model = make_model(options, 2);
  auto tensors = model_tensors(*source);
  at::Tensor conv;
  for (nn::NamedTensor& entry : tensors) {
    if (entry.name == "patch_embed.proj.weight") {
      conv = entry.tensor;
      entry.tensor = conv.permute({0, 2, 3, 1}).flatten(1).contiguous();
    }
    if (entry.name.starts_with("patch_embed.proj.")) entry.name.replace(12, 4, "linear");
  }
  EXPECT_TRUE(load_tensors(*model, tensors, true, "file").complete());
  for (const nn::NamedTensor& entry : model_tensors(*model))
    if (entry.name == "patch_embed.proj.weight") {
      EXPECT_TRUE(at::equal(entry.tensor, conv));
    }
}

}  // namespace
}  // namespace vitrail::models
