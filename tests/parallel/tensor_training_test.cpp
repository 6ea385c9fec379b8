// Training through the engine: tensor ranks, alone and mixed with sharding, against one rank.

#include <gtest/gtest.h>

#include "tests/parallel/ranks.h"

namespace vitrail::testing {
namespace {

/// fp32 sums in another order; ten steps let differences grow, and Adam turns rounding of tiny gradients into whole steps.
constexpr double kFirst = 1e-6, kTen = 1e-5;

config::Recipe everything_drops() {
  config::Model model = tiny_vit();
  model.num_heads = 4, model.qk_norm = true, model.layer_scale = 0.5;
  model.proj_drop_rate = 0.1, model.attn_drop_rate = 0.1;
  config::Recipe recipe = tiny_recipe(model);
  recipe.train.micro_batches = 2;
  return recipe;
}

void expect_alike(const std::string& name, int ranks, const config::Recipe& recipe,
                  const RanksOptions& options = {}) {
  const std::vector<double> expected = losses_of(1, alone(recipe), 10, options);
  const std::vector<double> found = losses_of(ranks, recipe, 10, options);
  EXPECT_LE(compare(name + ", first step", found, expected, 1), kFirst);
  EXPECT_LE(compare(name + ", ten steps", found, expected), kTen);
}

TEST(TensorTraining, EqualsOneRank) {
  for (const int tensor : {2, 4})
    for (const bool split_norms : {false, true}) {
      config::Recipe recipe = everything_drops();
      recipe.parallel.tensor = tensor, recipe.parallel.split_norms = split_norms;
      recipe.parallel.tensor_chunks = split_norms ? 3 : 1;
      expect_alike(fmt::format("tensor {}{}", tensor, split_norms ? ", split norms" : ""), tensor,
                   recipe);
    }
}

TEST(TensorTraining, WithShardingIsHybridStop) {
  for (const char* strategy : {"ddp", "zero1", "zero2", "zero3"})
    for (const bool split_norms : {false, true}) {
      config::Recipe recipe = everything_drops();
      recipe.parallel.strategy.value = strategy;
      recipe.parallel.tensor = 2, recipe.parallel.split_norms = split_norms;
      if (recipe.parallel.strategy == "ddp")
        recipe.parallel.replicate = 2;
      else
        recipe.parallel.replicate = 1, recipe.parallel.shard = 2;
      expect_alike(fmt::format("{} 2 x tensor 2{}", strategy, split_norms ? ", split norms" : ""),
                   4, recipe);
    }
}

TEST(TensorTraining, ComposesWithSequenceAndPipeline) {
  for (const bool split_norms : {false, true}) {
    config::Recipe recipe = everything_drops();
    recipe.parallel.tensor = 2, recipe.parallel.split_norms = split_norms;
    recipe.parallel.pipeline = 2;
    const std::string how = split_norms ? ", split norms" : "";
    expect_alike("pipeline 2 x tensor 2" + how, 4, recipe);
    recipe.parallel.pipeline = 1, recipe.parallel.sequence = 2;
    expect_alike("sequence 2 x tensor 2" + how, 4, recipe);
    recipe.parallel.strategy.value = "zero3";
    recipe.parallel.replicate = 1, recipe.parallel.shard = 2;
    expect_alike("zero3 2 x sequence 2 x tensor 2" + how, 8, recipe);
  }
}

TEST(TensorTraining, WithSplitChannelsEqualsOneRank) {
  config::Recipe recipe = everything_drops();
  recipe.model.in_channels = 3;  // what the samples have
  recipe.model.variables = {"a", "b", "c"};
  recipe.model.aggregation.groups = 3, recipe.model.num_heads = 3, recipe.model.embed_dim = 48;
  recipe.parallel.tensor = 3, recipe.parallel.split_channels = true;
  expect_alike("split channels over 3 ranks", 3, recipe);
  recipe.parallel.strategy.value = "zero3";
  recipe.parallel.replicate = 1, recipe.parallel.shard = 2;
  expect_alike("split channels over 3 ranks x zero3", 6, recipe);
}

}  // namespace
}  // namespace vitrail::testing
