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

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

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
