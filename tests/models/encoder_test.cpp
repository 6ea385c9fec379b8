#include "vitrail/models/encoder.h"

#include <cmath>
#include <limits>

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"
#include "vitrail/ops/masking.h"

namespace vitrail::models {
namespace {

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

std::shared_ptr<Encoder> encoder_of(const config::Model& options) {
  auto encoder = std::make_shared<Encoder>(options);
  const at::NoGradGuard no_grad;
  uint16_t layer = 50;
  for (nn::NamedTensor& parameter : encoder->named_parameters())
    parameter.tensor.copy_(random(parameter.tensor.sizes(), layer++) * 0.5);
  return encoder;
}

at::Tensor run(Encoder& encoder, const Tokens& tokens) {
  std::map<std::string, at::Tensor> found;
  Taps tap({}, {}, {}, found);
  return encoder.run(tokens, tap);
}

config::Model with_rope() {
  config::Model options = tiny("vit");
  options.rope.value = "raster", options.register_tokens = 1;
  return options;
}

TEST(Encoder, ChosenPatchesAreTheSameTokensAsAmongAll) {
  const auto encoder = encoder_of(with_rope());
  const data::Batch batch = batch_for(with_rope(), 2);
  const at::Tensor keep = at::tensor({4, 0, 3, 5, 1, 2}, at::kLong).view({2, 3});
  const Tokens all = encoder->embed(batch, draws_of(batch)),
               some = encoder->embed(batch, draws_of(batch), keep);
  const at::Tensor expected =
      at::cat({all.x_BTD.slice(1, 0, 2), ops::gather_tokens(all.x_BTD.slice(1, 2), keep)}, 1);
  EXPECT_LE(worst(some.x_BTD, expected), 1e-6) << "products of another number of rows";
  for (int64_t b = 0; b < 2; ++b) {
    EXPECT_TRUE(at::equal(some.context.rotary.cos[b].slice(0, 0, 2),
                          at::zeros_like(some.context.rotary.cos[b].slice(0, 0, 2)) + 1))
        << "class and register tokens are not turned";
    EXPECT_TRUE(at::equal(some.context.rotary.sin[b].slice(0, 2),
                          all.context.rotary.sin[0].slice(0, 2).index_select(0, keep[b])));
  }
}

TEST(Encoder, TheOrderOfChosenPatchesDoesNotMatterToThem) {
  const auto encoder = encoder_of(with_rope());
  const data::Batch batch = batch_for(with_rope(), 1);
  const at::Tensor keep = at::tensor({4, 0, 3}, at::kLong).view({1, 3});
  const at::Tensor forth = run(*encoder, encoder->embed(batch, draws_of(batch), keep)),
                   back = run(*encoder, encoder->embed(batch, draws_of(batch), keep.flip(1)));
  EXPECT_LE(worst(forth.slice(1, 2), back.slice(1, 2).flip(1)), 2e-5)
      << "sums over tokens in another order; a few units in fp32, values of order 1";
}

TEST(PatchDropout, KeepsTheShareByAscendingNoiseInTrainingOnly) {
  config::Model options = with_rope();
  options.patch_drop_rate = 0.4;  // 6 patches: floor(6 * 0.6) = 3 stay
  const auto encoder = encoder_of(options);
  const data::Batch batch = batch_for(options, 3);
  const Tokens all = encoder->embed(batch, draws_of(batch)),
               some = encoder->embed(batch, draws_of(batch, true));
  EXPECT_EQ(all.x_BTD.size(1), 2 + 6);
  ASSERT_EQ(some.x_BTD.size(1), 2 + 3);
  const at::Tensor noise =
      ops::uniform(draws_of(batch).key(core::Stream::patch_drop, 0), batch.sample_ids, 6);
  const at::Tensor keep = ops::random_masking(noise, 3).keep_BK;
  EXPECT_LE(worst(some.x_BTD.slice(1, 2), ops::gather_tokens(all.x_BTD.slice(1, 2), keep)), 1e-6);
  EXPECT_LE(worst(some.x_BTD.slice(1, 0, 2), all.x_BTD.slice(1, 0, 2)), 0.0);
}

TEST(PatchDropout, KeepsOnePatchAtLeast) {
  config::Model options = tiny("vit");
  options.patch_drop_rate = 0.99;
  const auto encoder = encoder_of(options);
  const data::Batch batch = batch_for(options, 2);
  EXPECT_EQ(encoder->embed(batch, draws_of(batch, true)).x_BTD.size(1), 1 + 1);
}

TEST(PatchDropout, LeavesOutPaddingFirst) {
  config::Model options = tiny("vit");
  make_adaptive(options);
  options.patch_drop_rate = 0.34;  // 3 of 6 leaves stay, and sample 1 has 4 real ones
  const auto encoder = encoder_of(options);
  const data::Batch batch = batch_for(options, 3);
  const Tokens some = encoder->embed(batch, draws_of(batch, true));
  EXPECT_EQ(some.x_BTD.size(1), 1 + 3);
  EXPECT_TRUE(some.context.key_mask_BT.all().item<bool>());
}

TEST(PatchDropout, IsRefusedWhereTheOutputNeedsEveryPatch) {
  config::Model options = tiny("mae");
  options.patch_drop_rate = 0.5;
  EXPECT_THROW(make_model_shapes(options), core::ConfigError);
}

TEST(Rope, IsRefusedForHeadsAndPatchesItDoesNotFit) {
  config::Model options = tiny("vit");
  options.rope.value = "axial", options.embed_dim = 12;  // heads of 6, 2-D needs a multiple of 4
  EXPECT_THROW(Encoder{options}, core::ConfigError);
  options.embed_dim = 16;
  EXPECT_NO_THROW(Encoder{options});
  make_adaptive(options);
  EXPECT_THROW(Encoder{options}, core::ConfigError);
}

TEST(Volume, AcceptsAClassTokenWithEveryKindOfPosition) {
  for (const char* positions : {"learned", "sincos", "none"})
    for (const char* rope : {"none", "raster", "axial"}) {
      config::Model options = tiny("vit");
      make_3d(options);
      options.pos_embed.value = positions, options.rope.value = rope;
      const auto model = make_model(options, 0);
      const data::Batch batch = batch_for(options, 2);
      EXPECT_EQ(model->forward(batch, draws_of(batch)).output.sizes(), at::IntArrayRef({2, 5}))
          << positions << " " << rope;
    }
}

TEST(Model, NamesTheVariableThatAModelWithoutVariablesIsGiven) {
  data::Batch batch = batch_for(tiny("mae"), 1);
  batch.variables = {"wind"};
  EXPECT_THROW(make_model(tiny("mae"), 0)->forward(batch, draws_of(batch)), core::DataError);
}

// ---- adaptive leaves

struct AdaptiveForm {
  const char* kind;
  const char* pool;
};

class Adaptive : public testing::TestWithParam<AdaptiveForm> {
 protected:
  static config::Model options() {
    config::Model options = tiny(GetParam().kind);
    make_adaptive(options);
    options.pool.value = GetParam().pool;
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Forms, Adaptive,
                         testing::Values(AdaptiveForm{"vit", "token"}, AdaptiveForm{"vit", "avg"},
                                         AdaptiveForm{"vit", "attention"},
                                         AdaptiveForm{"mae", "token"}));

TEST_P(Adaptive, PaddingChangesNothing) {
  const auto model = make_model(options(), 0);
  randomise(*model);
  data::Batch batch = batch_for(options(), 3);
  const Output before = model->forward(batch, draws_of(batch));
  batch.leaf_tokens.select(0, 1).slice(1, 4).fill_(7.0);  // sample 1 has 4 real leaves of 6
  const Output after = model->forward(batch, draws_of(batch));
  const at::Tensor a = before.output, b = after.output;
  if (options().kind == "vit")
    EXPECT_EQ(worst(a, b), 0.0);
  else
    EXPECT_EQ(worst(a[1].slice(0, 0, 4), b[1].slice(0, 0, 4)), 0.0) << "real leaves of sample 1";
  EXPECT_EQ(worst(a[0], b[0]), 0.0);
  EXPECT_EQ(before.loss.item<float>(), after.loss.item<float>());
}

TEST_P(Adaptive, AContentOfRealLeavesDoesChangeTheResult) {
  const auto model = make_model(options(), 0);
  randomise(*model);
  data::Batch batch = batch_for(options(), 3);
  const double before = model->forward(batch, draws_of(batch)).loss.item<double>();
  batch.leaf_tokens.select(0, 1).slice(1, 0, 4).mul_(random({16, 1}).view({1, 1, 16}));
  EXPECT_NE(before, model->forward(batch, draws_of(batch)).loss.item<double>());
}

TEST(AdaptiveMae, HidesTheSameShareOfRealLeavesAndNoPadding) {
  config::Model options = tiny("mae");
  make_adaptive(options);
  options.adaptive.fixed_length = 12, options.mask_ratio = 0.5;
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 4);
  batch.leaf_boxes.select(0, 2).slice(0, 3).zero_();  // 3 real leaves
  batch.leaf_boxes.select(0, 3).slice(0, 1).zero_();  // 1
  const at::Tensor mask = model->forward(batch, draws_of(batch)).mask;
  EXPECT_TRUE(at::equal(mask.sum(1), at::tensor({6.f, 4.f, 2.f, 0.f})))
      << "12, 8, 3 and 1 real leaves keep 6, 4, 1 and 1";
  EXPECT_EQ((mask * real_leaves(batch.leaf_boxes).logical_not()).sum().item<float>(), 0.0f);
}

TEST(AdaptiveMae, WithoutPaddingMasksAsAnyOther) {
  config::Model options = tiny("mae");
  const data::Batch grid = batch_for(options, 1);
  const at::Tensor expected = make_model(options, 0)->forward(grid, draws_of(grid)).mask;
  make_adaptive(options);
  const data::Batch leaves = batch_for(options, 1);
  EXPECT_TRUE(at::equal(expected, make_model(options, 0)->forward(leaves, draws_of(leaves)).mask));
}

TEST(LeafPosition, DependsOnPlaceRelativeToTheImageOnly) {
  config::Model options = tiny("vit");
  const LeafPosition position(options, 16);
  const at::NoGradGuard no_grad;
  for (nn::NamedTensor& parameter : position.named_parameters())
    parameter.tensor.copy_(random(parameter.tensor.sizes(), 60));
  config::Model larger = options;
  larger.image_size = {16, 24};
  const LeafPosition same(larger, 16);
  for (size_t p = 0; p < 2; ++p)
    same.named_parameters()[p].tensor.copy_(position.named_parameters()[p].tensor);
  const at::Tensor boxes = at::tensor({2.0, 4.0, 4.0, 8.0, 0.0, 0.0, 0.0, 0.0}).view({1, 2, 4});
  EXPECT_LE(worst(position.forward(boxes.to(at::kFloat)), same.forward((boxes * 2).to(at::kFloat))),
            1e-6);
  EXPECT_EQ(position.forward(boxes.to(at::kFloat))[0][1].abs().max().item<float>(), 0.0f)
      << "padding";
}

TEST(Leaves, OfAnotherShapeAreRefusedWithBoth) {
  config::Model options = tiny("vit");
  make_adaptive(options);
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 2);
  batch.leaf_tokens = batch.leaf_tokens.slice(2, 0, 5);
  try {
    model->forward(batch, draws_of(batch));
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("2, 6, 16"), testing::HasSubstr("2, 2, 5, 16")));
  }
}

// ---- masked autoencoder

TEST(Mae, EmbedsVisiblePatchesOnly) {
  const config::Model options = tiny("mae");
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 1);
  batch.mask_noise = at::arange(6, at::kFloat).view({1, 6});  // the upper row is visible
  batch.image.slice(2, 4).fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(at::isfinite(model->forward(batch, draws_of(batch)).output).all().item<bool>());
}

TEST(Mae, MasksAnyShareFromOneToNinetyFivePercent) {
  for (const auto& [ratio, kept] :
       {std::pair{0.01, 126}, std::pair{0.75, 32}, std::pair{0.95, 6}}) {
    config::Model options = tiny("mae");
    options.image_size = {16, 32, 16}, options.embed_dim = 12, options.decoder_embed_dim = 12;
    options.mask_ratio = ratio;  // of 128 patches
    const auto model = make_model(options, 0);
    const data::Batch batch = batch_for(options, 2);
    const Output out = model->forward(batch, draws_of(batch));
    EXPECT_EQ(model->tokens_per_sample(), kept + 1) << ratio;
    EXPECT_TRUE(at::equal(out.mask.sum(1), at::zeros({2}) + (128 - kept))) << ratio;
    EXPECT_GT(out.loss.item<float>(), 0.0f);
  }
}

TEST(Mae, StartsItsMaskTokenAsTheReferenceCodeDoes) {
  config::Model options = tiny("mae");
  options.decoder_embed_dim = 512;
  for (const nn::NamedTensor& parameter : make_model(options, 0)->named_parameters())
    if (parameter.name == "mask_token") {
      EXPECT_NEAR(parameter.tensor.square().mean().sqrt().item<double>(), 0.02, 0.002)
          << "512 values: 3 % standard error";
    }
}

}  // namespace
}  // namespace vitrail::models
