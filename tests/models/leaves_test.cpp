// Leaves that a model makes of images, and positions of leaves.
#include "vitrail/models/leaves.h"

#include <cmath>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/encoder.h"
#include "vitrail/models/leaf_positions.h"
#include "vitrail/models/parts.h"

namespace vitrail::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Blots: edges in some places.
data::Batch blots(const config::Model& options, int64_t size) {
  data::Batch batch = images(options, size);
  std::vector<int64_t> coarse = batch.image.sizes().vec();
  for (size_t axis = 2; axis < coarse.size(); ++axis) coarse[axis] /= 8;
  at::Tensor image = random(coarse, 3).gt(0.2).to(at::kFloat);
  for (int64_t axis = 2; axis < image.dim(); ++axis) image = image.repeat_interleave(8, axis);
  batch.image = image + batch.image * 0.01;
  batch.pixel_range = at::zeros({size, options.in_channels, 2});
  batch.pixel_range.select(2, 1).fill_(1.0);
  return batch;
}

struct Form {
  const char* name;
  config::Model (*options)();
};

config::Model base(const char* kind) {
  config::Model options = std::string(kind) == "unetr" || std::string(kind) == "sap"
                              ? segmenter(kind, {32, 48}, 4)
                              : tiny(kind);
  options.image_size = {32, 48};
  options.pos_embed.value = "learned";
  return options;
}

config::Model adaptive(const char* kind) {
  config::Model options = base(kind);
  options.adaptive.fixed_length = 18, options.adaptive.min_leaf = 2;
  return options;
}

config::Model mixed(const char* kind) {
  config::Model options = base(kind);
  options.mixed_resolution.max_patch = 16, options.mixed_resolution.num_tokens = 18;
  options.pos_embed.value = "sincos";
  return options;
}

std::vector<Form> forms() {
  return {
      {"vit_adaptive", [] { return adaptive("vit"); }},
      {"mae_adaptive", [] { return adaptive("mae"); }},
      {"unetr_adaptive", [] { return adaptive("unetr"); }},
      {"unetr_adaptive_without_skips",
       [] {
         config::Model options = adaptive("unetr");
         options.skips = false;
         return options;
       }},
      {"sap_adaptive", [] { return adaptive("sap"); }},
      {"sap_adaptive_on_the_image",
       [] {
         config::Model options = adaptive("sap");
         options.adaptive.loss_space.value = "image";
         return options;
       }},
      {"vit_per_channel",
       [] {
         config::Model options = adaptive("vit");
         add_variables(options, 2);
         options.adaptive.trees.value = "per_channel";
         return options;
       }},
      {"mae_per_channel_on_the_image",
       [] {
         config::Model options = adaptive("mae");
         add_variables(options, 2);
         options.adaptive.trees.value = "per_channel", options.adaptive.loss_space.value = "image";
         return options;
       }},
      {"vit_mixed", [] { return mixed("vit"); }},
      {"mae_mixed", [] { return mixed("mae"); }},
      {"unetr_mixed", [] { return mixed("unetr"); }},
      {"sap_mixed", [] { return mixed("sap"); }},
  };
}

data::Batch batch_of(const config::Model& options) {
  data::Batch batch = blots(options, 3);
  if (options.kind == "vit") batch.label = at::arange(3, at::kLong);
  return batch;
}

class EveryLeafForm : public testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Models, EveryLeafForm, testing::ValuesIn(forms()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_P(EveryLeafForm, MakesTheLeavesThatABatchLacks) {
  const config::Model options = GetParam().options();
  const auto model = make_model(options, 0);
  randomise(*model);
  const data::Batch batch = batch_of(options);
  for (const bool training : {false, true}) {
    const data::Batch given = LeafMaker(options).with_leaves(batch, draws_of(batch, training));
    ASSERT_TRUE(given.leaf_tokens.defined() && given.leaf_boxes.defined());
    EXPECT_EQ(given.leaf_boxes.size(1), options.num_leaves());
    EXPECT_FALSE(given.leaf_tokens.requires_grad());
    const Output made = model->forward(batch, draws_of(batch, training)),
                 from = model->forward(given, draws_of(batch, training));
    EXPECT_TRUE(at::equal(made.output, from.output));
    EXPECT_TRUE(at::equal(made.loss, from.loss));
    EXPECT_TRUE(std::isfinite(made.loss.item<double>()));
  }
  EXPECT_TRUE(at::equal(
      model->features(batch, draws_of(batch)),
      model->features(LeafMaker(options).with_leaves(batch, draws_of(batch)), draws_of(batch))));
}

TEST_P(EveryLeafForm, CountsTokensAndWork) {
  const config::Model options = GetParam().options();
  const auto model = make_model(options, 0);
  const int64_t prefix = options.class_token ? 1 : 0, L = options.num_leaves();
  const int64_t tokens = options.kind == "mae" ? L / 2 + prefix : L + prefix;
  EXPECT_EQ(model->tokens_per_sample(), tokens);
  EXPECT_GE(model->train_flops_per_sample(),
            trunk_flops(*model->stacks()[0], tokens, options.embed_dim));
}

TEST(LeafMaker, KeepsTheLeavesOfABatch) {
  const config::Model options = adaptive("vit");
  data::Batch batch = batch_of(options);
  batch.leaf_tokens = random({3, 2, 18, 16}), batch.leaf_boxes = random({3, 18, 4});
  const data::Batch same = LeafMaker(options).with_leaves(batch, draws_of(batch));
  EXPECT_TRUE(same.leaf_tokens.is_same(batch.leaf_tokens));
  EXPECT_TRUE(same.leaf_boxes.is_same(batch.leaf_boxes));
  const config::Model dense = base("vit");
  const data::Batch images = batch_of(dense);
  EXPECT_FALSE(LeafMaker(dense).with_leaves(images, draws_of(images)).leaf_tokens.defined());
}

TEST(LeafMaker, PutsPaddingBehindTheRealLeavesOfATree) {
  for (const char* order : {"morton", "raster"}) {
    config::Model options = adaptive("vit");
    options.adaptive.order.value = order, options.adaptive.value_floor = 1;
    data::Batch batch = blots(options, 3);
    // A picture with edges in one corner, and one without any: neither fills a tree.
    batch.image[1].slice(1, 16).zero_(), batch.image[1].slice(2, 16).zero_();
    batch.image[2].zero_();
    const data::Batch made = LeafMaker(options).with_leaves(batch, draws_of(batch));
    const at::Tensor mask_BT = key_mask(options, made);
    ASSERT_TRUE(key_mask_is_prefix(options));
    const at::Tensor real_B = mask_BT.sum(1);
    EXPECT_LT(real_B[2].item<int64_t>(), mask_BT.size(1)) << "no padding to look at";
    for (int64_t b = 0; b < 3; ++b)
      EXPECT_TRUE(mask_BT[b].slice(0, 0, real_B[b].item<int64_t>()).all().item<bool>()) << order;
  }
}

TEST(LeafMaker, DrawsThresholdsByEpochAndSampleInTrainingOnly) {
  config::Model options = adaptive("vit");
  options.adaptive.min_leaf = 1, options.adaptive.fixed_length = 40;
  data::Batch batch = blots(options, 4);
  batch.image = batch.image * 0.35 + random(batch.image.sizes(), 31) * 0.2;  // weak edges
  const LeafMaker maker(options);
  const auto boxes = [&](int64_t epoch, bool training) {
    batch.epoch = epoch;
    return maker.with_leaves(batch, draws_of(batch, training)).leaf_boxes;
  };
  EXPECT_TRUE(at::equal(boxes(0, false), boxes(1, false)));
  EXPECT_TRUE(at::equal(boxes(2, true), boxes(2, true)));
  EXPECT_FALSE(at::equal(boxes(0, true), boxes(1, true)));
  // A sample's tree is its own, wherever it stands in a batch.
  const at::Tensor all = boxes(3, true);
  data::Batch last = batch;
  for (at::Tensor* row : last.rows()) *row = row->slice(0, 3);
  EXPECT_TRUE(at::equal(maker.with_leaves(last, draws_of(last, true)).leaf_boxes[0], all[3]));
}

TEST(LeafMaker, SaysWhatABatchMustHold) {
  const config::Model options = adaptive("vit");
  data::Batch batch = batch_of(options);
  const auto message = [&] {
    try {
      LeafMaker(options).with_leaves(batch, draws_of(batch));
    } catch (const core::Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  batch.image = batch.image.slice(2, 0, 16).contiguous();
  EXPECT_THAT(message(), AllOf(HasSubstr("2, 32, 48"), HasSubstr("3, 2, 16, 48")));
  batch.image = at::Tensor();
  EXPECT_THAT(message(), HasSubstr("images, or leaf_tokens and leaf_boxes"));
}

TEST(LeafMaker, UnetrWithSkipsAsksForTheImageBesideTheLeaves) {
  const config::Model options = adaptive("unetr");
  data::Batch batch = LeafMaker(options).with_leaves(batch_of(options), {3, 1, at::arange(3)});
  batch.image = at::Tensor();
  try {
    make_model(options, 0)->forward(batch, draws_of(batch));
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("give 'image' beside the leaves"));
  }
}

TEST(LeafPositions, AreRefusedForWidthsThatTheAxesCannotShare) {
  config::Model options = adaptive("vit");
  options.adaptive.position_embedding = false, options.pos_embed.value = "sincos";
  EXPECT_NO_THROW(make_model_shapes(options));
  options.embed_dim = 18;
  EXPECT_THROW(make_model_shapes(options), core::ConfigError);
}

/// The embeddings of a model with positions less those of the same model without.
at::Tensor added_positions(config::Model options, const data::Batch& batch) {
  const auto embed = [&] {
    const auto model = make_model(options, 0);
    randomise(*model);
    return model->forward(batch, draws_of(batch), {"embed"}).taps.at("embed");
  };
  const at::Tensor with = embed();
  options.pos_embed.value = "none";
  return with - embed();
}

TEST(LeafPositions, AreThoseOfTheCentresInPatches) {
  for (config::Model options : {adaptive("vit"), adaptive("mae"), mixed("vit"), mixed("mae")}) {
    options.adaptive.position_embedding = false, options.pos_embed.value = "sincos";
    options.class_token = options.kind == "vit";
    data::Batch batch = LeafMaker(options).with_leaves(batch_of(options), {3, 1, at::arange(3)});
    batch.mask_noise = at::arange(18, at::kFloat).expand({3, 18}).contiguous();
    const at::Tensor expected = sincos_of_leaves(batch.leaf_boxes, 4.0, options.embed_dim);
    at::Tensor added = added_positions(options, batch);
    if (options.class_token) {
      EXPECT_EQ(added.select(1, 0).abs().max().item<float>(), 0.0f) << "the class token";
      added = added.slice(1, 1);
    }
    // Masked autoencoders keep the first half here; differences of sums of order 1.
    EXPECT_LE(worst(added, expected.slice(1, 0, added.size(1))), 1e-5) << options.kind.value;
  }
}

TEST(LeafPositions, OfLeavesWithoutATableStartAtRandom) {
  for (const char* kind : {"vit", "mae"})
    for (const bool is_mixed : {false, true}) {
      config::Model options = is_mixed ? mixed(kind) : adaptive(kind);
      options.pos_embed.value = "learned", options.adaptive.position_embedding = false;
      for (const nn::NamedTensor& parameter : make_model(options, 0)->named_parameters())
        if (parameter.name.ends_with("pos_embed")) {
          // normal(0.02): 19 * 8 draws and more are off by 6 % in the mean.
          EXPECT_NEAR(parameter.tensor.std().item<double>(), 0.02, 0.005) << parameter.name;
        }
    }
}

}  // namespace
}  // namespace vitrail::models
