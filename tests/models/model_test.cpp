#include "vitrail/models/model.h"

#include <cmath>
#include <cstdio>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

config::Model tiny(const char* kind) {
  config::Model options;
  options.kind.value = kind;
  options.image_size = {8, 12};
  options.patch_size = 4, options.in_channels = 2, options.num_classes = 5;
  options.embed_dim = 16, options.depth = 2, options.num_heads = 2, options.mlp_ratio = 2;
  options.decoder_embed_dim = 8, options.decoder_depth = 2, options.decoder_num_heads = 2,
  options.mask_ratio = 0.5;
  if (options.kind == "mae") options.pos_embed.value = "sincos";
  return options;
}

at::Tensor random(at::IntArrayRef shape, uint16_t layer = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return (ops::uniform({9, core::Stream::test, 0, layer}, at::zeros({1}, at::kLong), count)
              .view(shape) -
          0.5) *
         2.0;
}

data::Batch batch_for(const config::Model& options, int64_t size, int64_t first_id = 0) {
  data::Batch batch;
  std::vector<int64_t> shape{1, options.in_channels};
  shape.insert(shape.end(), options.image_size.begin(), options.image_size.end());
  std::vector<at::Tensor> images;
  shape[0] = first_id + size;
  batch.image = random(shape).slice(0, first_id);
  batch.label = at::arange(first_id, first_id + size, at::kLong).remainder(5);
  batch.sample_ids = at::arange(first_id, first_id + size, at::kLong);
  return batch;
}

nn::Draws draws_of(const data::Batch& batch, bool training = false) {
  return {3, 1, batch.sample_ids, training};
}

void randomise(Model& model) {
  const at::NoGradGuard no_grad;
  uint16_t layer = 50;
  for (nn::NamedTensor& parameter : model.named_parameters())
    parameter.tensor.copy_(random(parameter.tensor.sizes(), layer++) * 0.5);
}

std::set<std::string> names_of(const std::vector<nn::NamedTensor>& tensors) {
  std::set<std::string> names;
  for (const nn::NamedTensor& entry : tensors) names.insert(entry.name);
  return names;
}

TEST(Vit, HasTimmsNames) {
  config::Model options = tiny("vit");
  options.depth = 1, options.qk_norm = true, options.layer_scale = 0.1, options.register_tokens = 2;
  const auto names = names_of(make_model(options, 0)->named_parameters());
  EXPECT_THAT(
      names,
      testing::UnorderedElementsAre(
          "cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
          "blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.attn.qkv.weight",
          "blocks.0.attn.qkv.bias", "blocks.0.attn.q_norm.weight", "blocks.0.attn.q_norm.bias",
          "blocks.0.attn.k_norm.weight", "blocks.0.attn.k_norm.bias", "blocks.0.attn.proj.weight",
          "blocks.0.attn.proj.bias", "blocks.0.ls1.gamma", "blocks.0.norm2.weight",
          "blocks.0.norm2.bias", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias",
          "blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias", "blocks.0.ls2.gamma", "norm.weight",
          "norm.bias", "head.weight", "head.bias"));
}

class EveryModel : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryModel, testing::Values("vit", "mae"));

TEST_P(EveryModel, PutsEveryParameterInExactlyOneUnit) {
  for (const char* decoder : {"transformer", "linear"}) {
    config::Model options = tiny(GetParam());
    options.decoder.value = decoder;
    const auto model = make_model(options, 0);
    std::vector<std::string> in_units, all;
    for (const UnitSpec& unit : model->units())
      for (const nn::NamedTensor& parameter : unit.parameters) in_units.push_back(parameter.name);
    for (const nn::NamedTensor& parameter : model->named_parameters())
      all.push_back(parameter.name);
    EXPECT_THAT(in_units, testing::UnorderedElementsAreArray(all));
  }
}

TEST_P(EveryModel, StartsEqualForEqualSeedsAndNotForOthers) {
  const auto a = make_model(tiny(GetParam()), 1)->named_parameters(),
             b = make_model(tiny(GetParam()), 1)->named_parameters(),
             c = make_model(tiny(GetParam()), 2)->named_parameters();
  bool any_other = false;
  for (size_t p = 0; p < a.size(); ++p) {
    EXPECT_TRUE(at::equal(a[p].tensor, b[p].tensor)) << a[p].name;
    any_other |= !at::equal(a[p].tensor, c[p].tensor);
  }
  EXPECT_TRUE(any_other);
}

TEST_P(EveryModel, InitialValuesDoNotDependOnTheRestOfTheModel) {
  config::Model deeper = tiny(GetParam());
  deeper.depth = 3;
  const auto small = make_model(tiny(GetParam()), 1)->named_parameters(),
             large = make_model(deeper, 1)->named_parameters();
  for (const nn::NamedTensor& parameter : small)
    for (const nn::NamedTensor& other : large)
      if (other.name == parameter.name) {
        EXPECT_TRUE(at::equal(parameter.tensor, other.tensor)) << parameter.name;
      }
}

/// A sample's output must not depend on its neighbours in the batch, dropouts included.
TEST_P(EveryModel, ASampleComputesTheSameInAnyBatch) {
  config::Model options = tiny(GetParam());
  options.drop_path_rate = 0.5,
  options.proj_drop_rate = options.attn_drop_rate = options.pos_drop_rate = 0.2;
  const auto model = make_model(options, 0);
  randomise(*model);
  const data::Batch four = batch_for(options, 4), last = batch_for(options, 1, 3);
  const at::Tensor together = model->forward(four, draws_of(four, true)).output[3];
  const at::Tensor alone = model->forward(last, draws_of(last, true)).output[0];
  const double worst = (together - alone).abs().max().item<double>();
  EXPECT_LE(worst, 1e-5)
      << "outputs of order 1; matrix products of another batch size add in another order";
}

TEST_P(EveryModel, TrainingDrawsChangeWithTheStep) {
  config::Model options = tiny(GetParam());
  options.proj_drop_rate = 0.5;
  const auto model = make_model(options, 0);
  randomise(*model);
  const data::Batch batch = batch_for(options, 2);
  nn::Draws draws = draws_of(batch, true);
  const at::Tensor first = model->forward(batch, draws).output;
  EXPECT_TRUE(at::equal(first, model->forward(batch, draws).output));
  draws.step = 2;
  EXPECT_FALSE(at::equal(first, model->forward(batch, draws).output));
}

/// Central differences of the loss along one direction a parameter: half the gradient's, so that the slope is not lost in
/// rounding, half random, so that a wrong direction shows. The loss is fp32 (1e-7 of about 2) and the step 1e-2, so
/// rounding leaves 1e-5 / |slope|, and the third derivative adds step^2: 1 % allowed on slopes above 1e-2.
TEST_P(EveryModel, GradientsAgreeWithFiniteDifferences) {
  config::Model options = tiny(GetParam());
  options.qk_norm = true, options.layer_scale = 0.5;
  const auto model = make_model(options, 0);
  randomise(*model);
  data::Batch batch = batch_for(options, 3);
  const auto loss = [&] { return model->forward(batch, draws_of(batch)).loss; };
  loss().backward();
  double worst = 0;
  std::string where;
  int tested = 0;
  uint16_t layer = 200;
  for (nn::NamedTensor& parameter : model->named_parameters()) {
    const at::Tensor other = random(parameter.tensor.sizes(), layer++),
                     gradient = parameter.tensor.grad();
    const at::Tensor unit = (other / other.norm() + gradient / gradient.norm()) * 0.5;
    const double slope = (parameter.tensor.grad() * unit).sum().item<double>();
    const at::NoGradGuard no_grad;
    constexpr double kStep = 1e-2;
    const at::Tensor start = parameter.tensor.clone();
    parameter.tensor.copy_(start + unit * kStep);
    const double above = loss().item<double>();
    parameter.tensor.copy_(start - unit * kStep);
    const double below = loss().item<double>();
    parameter.tensor.copy_(start);
    if (std::abs(slope) < 1e-2) continue;
    ++tested;
    const double error = std::abs((above - below) / (2 * kStep) - slope) / std::abs(slope);
    if (error > worst) worst = error, where = parameter.name;
  }
  std::printf("%s: %d slopes, worst relative error %.2e at %s (allowed 1e-2)\n", GetParam(), tested,
              worst, where.c_str());
  EXPECT_GE(tested, 20);
  EXPECT_LE(worst, 1e-2) << where;
}

TEST_P(EveryModel, RunsInBf16WithLossAndOutputInFp32) {
  const config::Model options = tiny(GetParam());
  const auto model = make_model(options, 0);
  const data::Batch batch = batch_for(options, 2);
  const double full = model->forward(batch, draws_of(batch)).loss.item<double>();
  move_parameters(*model, at::kCPU, at::kBFloat16);
  const Output out = model->forward(batch, draws_of(batch));
  EXPECT_EQ(out.loss.scalar_type(), at::kFloat);
  EXPECT_EQ(out.output.scalar_type(), at::kFloat);
  EXPECT_NEAR(out.loss.item<double>(), full, 0.02 * full) << "bf16 keeps 8 bits";
  out.loss.backward();
  for (const nn::NamedTensor& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    EXPECT_EQ(parameter.tensor.grad().scalar_type(), at::kBFloat16) << parameter.name;
  }
}

TEST_P(EveryModel, AnUnknownTapIsRefusedWithTheOnesThatExist) {
  const auto model = make_model(tiny(GetParam()), 0);
  const data::Batch batch = batch_for(tiny(GetParam()), 1);
  try {
    model->forward(batch, draws_of(batch), {"blocks.9"});
    FAIL();
  } catch (const core::ConfigError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("blocks.9"),
                                             testing::HasSubstr("blocks.0 ... blocks.1")));
  }
}

TEST_P(EveryModel, AnImageOfAnotherSizeIsRefusedWithBothShapes) {
  const auto model = make_model(tiny(GetParam()), 0);
  data::Batch batch = batch_for(tiny(GetParam()), 1);
  batch.image = batch.image.slice(3, 0, 8);
  try {
    model->forward(batch, draws_of(batch));
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("2, 8, 12"), testing::HasSubstr("1, 2, 8, 8")));
  }
}

TEST_P(EveryModel, TheSinCosTableIsNotAParameter) {
  config::Model options = tiny(GetParam());
  options.pos_embed.value = "sincos";
  const auto model = make_model(options, 0);
  EXPECT_THAT(names_of(model->named_parameters()), testing::Not(testing::Contains("pos_embed")));
  EXPECT_THAT(names_of(model->fixed_tensors()), testing::Contains("pos_embed"));
}

TEST(Vit, PaddingRowsDoNotChangeTheLoss) {
  const config::Model options = tiny("vit");
  const auto model = make_model(options, 0);
  randomise(*model);
  data::Batch padded = batch_for(options, 4), plain = batch_for(options, 3);
  padded.label[3] = -1;
  const double a = model->forward(padded, draws_of(padded)).loss.item<double>();
  const double b = model->forward(plain, draws_of(plain)).loss.item<double>();
  EXPECT_NEAR(a, b, 1e-5) << "the same three terms, products of another batch size";
}

TEST(Vit, InitialValuesFollowTimm) {
  config::Model options = tiny("vit");
  options.embed_dim = 128, options.mlp = {"swiglu", {"gelu", "swiglu"}}, options.layer_scale = 1e-5;
  const auto model = make_model(options, 0);
  for (const nn::NamedTensor& parameter : model->named_parameters()) {
    const std::string& name = parameter.name;
    const double spread = parameter.tensor.square().mean().sqrt().item<double>();
    // 640 values or more: 3 % standard error at most
    if (name.ends_with("qkv.weight") || name == "head.weight" || name == "pos_embed") {
      EXPECT_NEAR(spread, 0.02, 0.002) << name;
    }
    if (name == "cls_token" || name.ends_with("fc1_g.weight")) {
      EXPECT_NEAR(spread, 1e-6, 2.5e-7) << name;
    }
    if (name.ends_with("fc1_g.bias") || name == "norm.weight") {
      EXPECT_EQ(spread, 1.0) << name;
    }
    if (name.ends_with("gamma")) {
      EXPECT_NEAR(spread, 1e-5, 1e-11) << name;
    }
    if (name == "patch_embed.proj.weight") {
      EXPECT_NEAR(spread, 1.0 / std::sqrt(32.0) / std::sqrt(3.0), 0.01) << name;
    }
    if (name == "patch_embed.proj.bias") {
      EXPECT_GT(spread, 0.0) << name;
    }
  }
}

TEST(Mae, LossIgnoresVisibleTokens) {
  const config::Model options = tiny("mae");
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 1);
  batch.mask_noise =
      at::arange(6, at::kFloat).view({1, 6});  // keeps patches 0, 1, 2: the upper row
  batch.image.set_requires_grad(true);
  const Output out = model->forward(batch, draws_of(batch));
  EXPECT_TRUE(at::equal(out.mask, at::tensor({0.f, 0.f, 0.f, 1.f, 1.f, 1.f}).view({1, 6})));
  const at::Tensor error = (out.output.slice(1, 0, 3)).sum();
  error.backward();
  EXPECT_EQ(batch.image.grad().slice(2, 4).abs().max().item<float>(), 0.0f)
      << "hidden pixels reached the encoder";
  EXPECT_GT(batch.image.grad().slice(2, 0, 4).abs().max().item<float>(), 0.0f);
}

TEST(Mae, MasksDependOnTheSampleAndStepOnly) {
  const config::Model options = tiny("mae");
  const auto model = make_model(options, 0);
  const data::Batch four = batch_for(options, 4), last = batch_for(options, 1, 3);
  const at::Tensor masks = model->forward(four, draws_of(four)).mask;
  EXPECT_TRUE(at::equal(masks[3], model->forward(last, draws_of(last)).mask[0]));
  EXPECT_TRUE(at::equal(masks.sum(1), at::zeros({4}) + 3.0));
}

TEST(Mae, AMaskThatHidesNothingOrAllIsRefused) {
  config::Model options = tiny("mae");
  options.mask_ratio = 0.0;
  EXPECT_THROW(make_model(options, 0), core::ConfigError);
  options.mask_ratio = 0.99;
  EXPECT_THROW(make_model(options, 0), core::ConfigError);
}

TEST(Models, CountFloatingPointOperationsByTheFormula) {
  const config::Model options = tiny("vit");
  const auto model = make_model(options, 0);
  // Per block: qkv 16*48+48, proj 16*16+16, fc1 16*32+32, fc2 32*16+16, two norms of 32; 7 tokens.
  const double parameters = 2 * (816 + 272 + 544 + 528 + 64);
  EXPECT_DOUBLE_EQ(model->train_flops_per_sample(), 6 * parameters * 7 + 12 * 49 * 16 * 2);
  EXPECT_EQ(model->tokens_per_sample(), 7);
}

TEST(Models, OnlyMatricesOfLayersDecay) {
  for (const char* kind : {"vit", "mae"})
    for (const nn::NamedTensor& parameter : make_model(tiny(kind), 0)->named_parameters()) {
      const bool matrix =
          parameter.name.ends_with(".weight") && parameter.name.find("norm") == std::string::npos;
      EXPECT_EQ(decays(parameter.name, parameter.tensor), matrix) << parameter.name;
    }
}

}  // namespace
}  // namespace vitrail::models
