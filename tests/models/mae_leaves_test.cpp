// The masked autoencoder over leaves: losses on leaves and on the image, trees per channel.
#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tiny_models.h"
#include "vitrail/core/error.h"
#include "vitrail/models/losses_leaves.h"
#include "vitrail/models/mae.h"
#include "vitrail/models/metrics_reconstruction.h"
#include "vitrail/patching/batch.h"

namespace vitrail::models {
namespace {

using testing::HasSubstr;

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

config::Model adaptive(const char* space = "leaf", bool by_area = false) {
  config::Model options = tiny("mae");
  make_adaptive(options);
  options.adaptive.fixed_length = 9;
  options.adaptive.loss_space.value = space, options.adaptive.area_weight = by_area;
  return options;
}

config::Model per_channel(int64_t variables) {
  config::Model options = tiny("mae");
  make_adaptive(options);
  add_variables(options, variables);
  options.adaptive.trees.value = "per_channel";
  options.adaptive.token_norm = true;
  return options;
}

at::Tensor parameter_of(const Model& model, const std::string& name) {
  for (const nn::NamedTensor& parameter : model.named_parameters())
    if (parameter.name == name) return parameter.tensor;
  return {};
}

int64_t at_(const at::Tensor& box, int64_t i) { return static_cast<int64_t>(box[i].item<float>()); }

TEST(MaeLeaves, TheLossByAreaIsThePlainLoop) {
  for (const char* loss : {"masked_mse", "mse"})
    for (const bool by_area : {false, true}) {
      config::Model options = adaptive("leaf", by_area);
      options.loss.value = loss;
      const auto model = make_model(options, 0);
      randomise(*model);
      const data::Batch batch = batch_for(options, 3);
      const Output out = model->forward(batch, draws_of(batch));
      double sum = 0, total = 0;
      for (int64_t b = 0; b < 3; ++b)
        for (int64_t leaf = 0; leaf < 9; ++leaf) {
          const at::Tensor box = batch.leaf_boxes[b][leaf];
          const auto area =
              static_cast<double>((at_(box, 2) - at_(box, 0)) * (at_(box, 3) - at_(box, 1)));
          if (area == 0) continue;
          if (options.loss == "masked_mse" && out.mask[b][leaf].item<float>() == 0) continue;
          const at::Tensor truth = batch.leaf_tokens[b].select(1, leaf).transpose(0, 1).flatten();
          const double error = (out.output[b][leaf] - truth).square().mean().item<double>();
          sum += error * (by_area ? area : 1), total += by_area ? area : 1;
        }
      std::printf("%s: %.7f, plain loop %.7f\n", loss, out.loss.item<double>(), sum / total);
      EXPECT_NEAR(out.loss.item<double>(), sum / total, 1e-6 * sum / total + 1e-6)
          << "fp32 means of some hundred squares of order 1";
    }
}

/// Leaves as large as patches are pasted as they are; of others the pasted prediction is read.
TEST(MaeLeaves, TheLossOnTheImageIsThePlainLoopOverHiddenPixels) {
  for (const char* loss : {"masked_mse", "mse"})
    for (const int64_t leaves : {6, 9}) {
      config::Model options = adaptive("image");
      options.adaptive.fixed_length = leaves, options.loss.value = loss;
      const auto model = make_model(options, 0);
      randomise(*model);
      const data::Batch batch = batch_for(options, 3);
      const Output out = model->forward(batch, draws_of(batch));
      const at::Tensor tokens = out.output.unflatten(2, {16, 2}).permute({0, 3, 1, 2}).contiguous();
      const at::Tensor pasted =
          patching::paste(tokens, batch.leaf_boxes, {8, 12}, patching::Resample::area);
      double sum = 0, total = 0;
      for (int64_t b = 0; b < 3; ++b)
        for (int64_t leaf = 0; leaf < leaves; ++leaf) {
          const at::Tensor box = batch.leaf_boxes[b][leaf];
          if (options.loss == "masked_mse" && out.mask[b][leaf].item<float>() == 0) continue;
          const bool is_patch = at_(box, 2) - at_(box, 0) == 4 && at_(box, 3) - at_(box, 1) == 4;
          for (int64_t c = 0; c < 2; ++c)
            for (int64_t y = at_(box, 0); y < at_(box, 2); ++y)
              for (int64_t x = at_(box, 1); x < at_(box, 3); ++x) {
                const int64_t place = (y - at_(box, 0)) * 4 + x - at_(box, 1);
                const at::Tensor guess =
                    is_patch ? out.output[b][leaf][place * 2 + c] : pasted[b][c][y][x];
                sum += std::pow((guess - batch.image[b][c][y][x]).item<double>(), 2), total += 1;
              }
        }
      std::printf("%s, %ld leaves: %.7f, plain loop %.7f\n", loss, static_cast<long>(leaves),
                  out.loss.item<double>(), sum / total);
      EXPECT_NEAR(out.loss.item<double>(), sum / total, 2e-6 * sum / total) << "fp32 sums";
    }
}

TEST(MaeLeaves, VisibleLeavesAreNoPartOfTheLossOnTheImage) {
  const config::Model options = adaptive("image");
  const auto model = make_model(options, 0);
  data::Batch batch = batch_for(options, 3);
  const Output before = model->forward(batch, draws_of(batch));
  batch.image = batch.image.clone();
  const auto fill = [&](float mask) {
    for (int64_t b = 0; b < 3; ++b)
      for (int64_t leaf = 0; leaf < 9; ++leaf) {
        const at::Tensor box = batch.leaf_boxes[b][leaf];
        if (before.mask[b][leaf].item<float>() != mask) continue;
        batch.image[b]
            .slice(1, at_(box, 0), at_(box, 2))
            .slice(2, at_(box, 1), at_(box, 3))
            .fill_(std::numeric_limits<float>::quiet_NaN());
      }
  };
  fill(0.0f);
  const Output after = model->forward(batch, draws_of(batch));
  EXPECT_EQ(before.loss.item<double>(), after.loss.item<double>());
  after.loss.backward();
  for (const nn::NamedTensor& parameter : model->named_parameters())
    EXPECT_TRUE(at::isfinite(parameter.tensor.grad()).all().item<bool>()) << parameter.name;
  fill(1.0f);
  EXPECT_TRUE(std::isnan(model->forward(batch, draws_of(batch)).loss.item<double>()));
}

TEST(MaeLeaves, TheLossOnTheImageNeedsTheImage) {
  const config::Model options = adaptive("image");
  data::Batch batch = batch_for(options, 2);
  batch.image = at::Tensor();
  try {
    make_model(options, 0)->forward(batch, draws_of(batch));
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("give 'image' beside the leaves"));
  }
  config::Model bad = options;
  bad.norm_pix_loss = true;
  EXPECT_THROW(make_model_shapes(bad), core::ConfigError);
}

TEST(MaeLeaves, TheTallyHasTheLossOfTraining) {
  for (const auto& [space, by_area] :
       {std::pair{"leaf", false}, std::pair{"leaf", true}, std::pair{"image", false}})
    for (const bool apart : {false, true}) {
      config::Model options = apart ? per_channel(2) : adaptive();
      options.adaptive.loss_space.value = space, options.adaptive.area_weight = by_area;
      const auto model = make_model(options, 0);
      const data::Batch batch = batch_for(options, 1);
      const Output out = model->forward(batch, draws_of(batch));
      ReconstructionTally tally(options, {});
      tally.add(batch, out);
      double loss = 0;
      for (const auto& [name, value] : tally.metrics())
        if (name == "loss") loss = value;
      EXPECT_NEAR(loss, out.loss.item<double>(), 1e-6 * loss) << space << by_area << apart;
    }
}

// ---- one tree per channel

TEST(MaeTreesPerChannel, EmbedsEveryLeafByItsVariable) {
  config::Model options = per_channel(3);
  options.class_token = false;
  const auto model = make_model(options, 0);
  randomise(*model);
  data::Batch batch = batch_for(options, 2);
  batch.mask_noise = at::arange(18, at::kFloat).flip(0).expand({2, 18}).contiguous();
  batch.leaf_boxes = tiling({8, 12}, 6).repeat({3, 1}).expand({2, 18, 4}).contiguous();
  const Output out = model->forward(batch, draws_of(batch), {"embed"});
  const at::Tensor embedded = out.taps.at("embed");
  ASSERT_EQ(embedded.sizes(), at::IntArrayRef({2, 9, 16})) << "half of 3 trees of 6 leaves";
  const at::Tensor position = [&] {
    const at::Tensor weight = parameter_of(*model, "leaf_position.proj.weight");
    LeafPosition layer(options, 16);
    const at::NoGradGuard no_grad;
    for (nn::NamedTensor& parameter : layer.named_parameters())
      parameter.tensor.copy_(parameter_of(*model, "leaf_position." + parameter.name));
    return layer.forward(batch.leaf_boxes);
  }();
  for (const int64_t kept : {0, 5, 8}) {
    const int64_t leaf = 17 - kept, v = leaf / 6;  // ascending noise: the last leaf first
    const auto own = [&](const char* name) {
      return parameter_of(*model, "token_embeds." + std::to_string(v) + "." + name);
    };
    const at::Tensor x = at::layer_norm(batch.leaf_tokens.select(1, 0).select(1, leaf), {16},
                                        own("norm1.weight"), own("norm1.bias"));
    const at::Tensor y = at::layer_norm(x.matmul(own("proj.weight").t()) + own("proj.bias"), {16},
                                        own("norm2.weight"), own("norm2.bias"));
    const at::Tensor expected =
        y + parameter_of(*model, "var_embed")[0][v] + position.select(1, leaf);
    EXPECT_LE(worst(embedded.select(1, kept), expected), 1e-5) << "leaf " << leaf;
  }
}

TEST(MaeTreesPerChannel, TheOrderOfVariablesIsNoInformation) {
  for (const bool shared : {false, true})
    for (const bool table : {false, true}) {
      config::Model options = per_channel(3);
      options.shared_tokenizer = shared, options.adaptive.position_embedding = !table;
      const auto model = make_model(options, 0);
      randomise(*model);
      data::Batch batch = batch_for(options, 3);
      batch.mask_noise = random({3, 18}, 9);
      const Output straight = model->forward(batch, draws_of(batch));
      const at::Tensor order =
          at::cat({at::arange(12, 18, at::kLong), at::arange(0, 12, at::kLong)});
      data::Batch turned = batch;
      turned.variables = {"v2", "v0", "v1"};
      turned.leaf_tokens = batch.leaf_tokens.index_select(2, order);
      turned.leaf_boxes = batch.leaf_boxes.index_select(1, order);
      turned.mask_noise = batch.mask_noise.index_select(1, order);
      const Output out = model->forward(turned, draws_of(turned));
      const at::Tensor real =
          real_leaves(turned.leaf_boxes).unsqueeze(-1);  // padding's values mean nothing
      EXPECT_LE(worst(out.output * real, straight.output.index_select(1, order) * real), 2e-5)
          << "sums over tokens in another order";
      EXPECT_NEAR(out.loss.item<double>(), straight.loss.item<double>(), 1e-5);
      turned.variables = {"v2", "v1", "v0"};
      EXPECT_GT(worst(model->forward(turned, draws_of(turned)).output, out.output), 1e-3)
          << "but which variable is which is";
    }
}

TEST(MaeTreesPerChannel, TakesSomeOfTheVariables) {
  for (const bool table : {false, true}) {
    config::Model options = per_channel(3);
    options.adaptive.position_embedding = !table;
    const auto model = make_model(options, 0);
    randomise(*model);
    data::Batch batch = batch_for(options, 2);
    batch.variables = {"v2"};
    batch.leaf_tokens = batch.leaf_tokens.slice(2, 12),
    batch.leaf_boxes = batch.leaf_boxes.slice(1, 12);
    const Output out = model->forward(batch, draws_of(batch));
    EXPECT_EQ(out.output.sizes(), at::IntArrayRef({2, 6, 16}));
    EXPECT_EQ(out.mask.sum().item<float>(), 3 + 2) << "half of 6 and of 4 leaves";
    // The same leaves among others that are padding: nothing attends to these.
    data::Batch all = batch_for(options, 2);
    all.leaf_boxes.slice(1, 0, 12).zero_();
    all.mask_noise = at::cat({at::zeros({2, 12}), random({2, 6}, 9)}, 1);
    batch.mask_noise = random({2, 6}, 9);
    const Output among = model->forward(all, draws_of(all)),
                 alone = model->forward(batch, draws_of(batch));
    EXPECT_TRUE(at::equal(among.mask.slice(1, 12), alone.mask));
    EXPECT_LE(worst(among.output.slice(1, 12)[0], alone.output[0]), 2e-5);
  }
}

TEST(MaeTreesPerChannel, CountsLeavesOfAllTrees) {
  const config::Model options = per_channel(3);
  const auto model = make_model(options, 0);
  EXPECT_EQ(model->tokens_per_sample(), 1 + 9);
  EXPECT_EQ(parameter_of(*model, "decoder_pred.weight").size(0), 3 * 16);
  EXPECT_EQ(parameter_of(*model, "decoder_var_embed").sizes(), at::IntArrayRef({1, 3, 8}));
  EXPECT_FALSE(parameter_of(*model, "var_query").defined()) << "nothing is aggregated";
  config::Model bad = options;
  bad.variables.clear();
  EXPECT_THROW(make_model_shapes(bad), core::ConfigError);
}

}  // namespace
}  // namespace vitrail::models
