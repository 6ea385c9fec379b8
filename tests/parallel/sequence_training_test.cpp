// Training with divided tokens, alone and with other axes, against one rank.

#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "tests/models/tiny_models.h"
#include "tests/parallel/ranks.h"

namespace vitrail::parallel {
namespace {

using testing::RanksOptions;
using testing::tiny_recipe;

config::Recipe with_drops(config::Model model) {
  model.drop_path_rate = 0.3, model.attn_drop_rate = 0.1, model.proj_drop_rate = 0.1;
  config::Recipe recipe = tiny_recipe(model);
  recipe.train.micro_batches = 2;
  return recipe;
}

config::Recipe vit() {
  config::Model model = testing::tiny_vit();
  model.patch_size = 2, model.num_heads = 4, model.rope.value = "axial";
  return with_drops(model);
}

config::Recipe mae() {
  config::Model model = testing::tiny_mae();
  model.patch_size = 2, model.num_heads = 4, model.rope.value = "axial";
  return with_drops(model);
}

config::Recipe diffusion() {
  config::Model model = models::tiny("diffusion");
  model.image_size = {8, 8}, model.in_channels = 3, model.num_classes = 5;
  model.patch_size = 2, model.embed_dim = 32, model.num_heads = 4;
  model.decoder_embed_dim = 16, model.decoder_num_heads = 2;
  model.class_token = false, model.pos_embed.value = "sincos", model.loss.value = "mse";
  model.num_timesteps = 50, model.time_conditioning.value = "block";
  return with_drops(model);
}

config::Recipe unetr() {
  // Norms over planes of a few pixels would blow rounding up in ten steps.
  config::Model model = models::segmenter("unetr", {64, 64}, 16);
  model.skips = true;
  config::Recipe recipe = with_drops(model);
  // Norms behind convolutions leave some gradients nothing but rounding, which AdamW would blow up to full steps.
  recipe.train.optimizer.eps = 1e-3;
  return recipe;
}

data::Batch segmented(int64_t first, int64_t count) {
  constexpr int64_t kAll = 80;  // of ten steps: values depend on the number
  data::Batch batch = models::images(models::segmenter("unetr", {64, 64}, 16), kAll);
  for (at::Tensor* rows : batch.rows()) *rows = rows->narrow(0, first, count);
  return batch;
}

struct Mix {
  std::string name;
  config::Recipe (*recipe)();
  int64_t replicate, shard, sequence, tensor;
  std::optional<int64_t> ulysses;
  const char* strategy = "ddp";
  bool split_norms = false;
};

class Mixes : public ::testing::TestWithParam<Mix> {};

TEST_P(Mixes, TrainAsOneRankDoes) {
  const Mix& mix = GetParam();
  config::Recipe recipe = mix.recipe();
  RanksOptions options;
  options.global_batch = 8;
  if (recipe.model.kind == "unetr") options.samples = segmented;
  const std::vector<double> expected = testing::losses_of(1, testing::alone(recipe), 10, options);
  recipe.parallel.strategy.value = mix.strategy;
  recipe.parallel.replicate = mix.replicate, recipe.parallel.shard = mix.shard;
  recipe.parallel.sequence = mix.sequence, recipe.parallel.tensor = mix.tensor;
  recipe.parallel.ulysses = mix.ulysses, recipe.parallel.split_norms = mix.split_norms;
  const auto ranks = static_cast<int>(mix.replicate * mix.shard * mix.sequence * mix.tensor);
  const std::vector<double> losses = testing::losses_of(ranks, recipe, 10, options);
  // fp32: rounding of sums in another order, which training carries on.
  EXPECT_LE(testing::compare(mix.name + ", first step", losses, expected, 1), 1e-6);
  EXPECT_LE(testing::compare(mix.name + ", ten steps", losses, expected), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(
    Sequence, Mixes,
    ::testing::Values(
        Mix{"vit, ring of 2", vit, 1, 1, 2, 1, 1}, Mix{"vit, ring of 4", vit, 1, 1, 4, 1, 1},
        Mix{"vit, exchange of 2", vit, 1, 1, 2, 1, {}},
        Mix{"vit, exchange of 4", vit, 1, 1, 4, 1, {}},
        Mix{"vit, rings of 2 of exchanges of 2", vit, 1, 1, 4, 1, 2},
        Mix{"mae, ring of 4", mae, 1, 1, 4, 1, 1}, Mix{"mae, exchange of 4", mae, 1, 1, 4, 1, {}},
        Mix{"unetr, ring of 2", unetr, 1, 1, 2, 1, 1},
        Mix{"unetr, zero3 over 2 x sequence 2", unetr, 1, 2, 2, 1, {}, "zero3"},
        Mix{"diffusion, exchange of 4", diffusion, 1, 1, 4, 1, {}},
        Mix{"diffusion, ring of 2", diffusion, 1, 1, 2, 1, 1},
        Mix{"vit, replicate 2 x sequence 2", vit, 2, 1, 2, 1, {}},
        Mix{"vit, zero3 over 2 x sequence 2", vit, 1, 2, 2, 1, {}, "zero3"},
        Mix{"mae, zero2 over 2 x sequence 2", mae, 1, 2, 2, 1, 1, "zero2"},
        Mix{"vit, sequence 2 x tensor 2", vit, 1, 1, 2, 2, {}},
        Mix{"vit, sequence 2 x tensor 2, split norms", vit, 1, 1, 2, 2, {}, "ddp", true},
        Mix{"vit, tensor 2, split norms", vit, 1, 1, 1, 2, {}, "ddp", true},
        Mix{"diffusion, sequence 2 x tensor 2, split norms", diffusion, 1, 1, 2, 2, 1, "ddp", true},
        Mix{"vit, zero3 over 2 x sequence 2 x tensor 2", vit, 1, 2, 2, 2, 1, "zero3"}));

}  // namespace
}  // namespace vitrail::parallel
