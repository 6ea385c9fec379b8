// Blocks that group before they attend are units like any others: every strategy trains them as one rank does.

#include <ATen/ops/clamp.h>
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "tests/parallel/ranks.h"

namespace vitrail::testing {
namespace {

config::Model rat(const char* attention) {
  config::Model model = tiny_vit();
  model.kind.value = "rat";
  model.patch_size = 1;
  model.num_classes = 2;
  model.class_token = false;
  model.pos_embed.value = "none";
  model.loss.value = "bce_dice";
  model.rat.scales = {1.0, 0.5};
  model.rat.kernel = 3;
  model.rat.proj_kernel = 3;
  model.rat.attention = {attention};
  model.rat.stride = std::vector<int64_t>(static_cast<size_t>(model.depth), 1);
  model.rat.stride[0] = 2;
  model.rat.workspace_mib = 1;
  return model;
}

/// Images whose every pixel has a class.
data::Batch labelled(int64_t first, int64_t count) {
  data::Batch batch = samples(first, count);
  batch.label = batch.image.sum(1).gt(0.0).to(at::kLong);
  return batch;
}

RanksOptions options() {
  RanksOptions options;
  options.samples = labelled;
  options.global_batch = 8;
  options.keep_weights = options.evaluate = true;
  return options;
}

TEST(RatTraining, EveryStrategyTrainsAsOneRank) {
  for (const char* attention : {"dense", "sparse"}) {
    config::Recipe recipe = tiny_recipe(rat(attention));
    recipe.train.micro_batches = 2;
    const RanksResult one = run_ranks(1, recipe, 6, options());
    for (const auto& [word, ranks] :
         {std::pair{"ddp", 2}, {"zero1", 2}, {"zero2", 4}, {"zero3", 4}}) {
      recipe.parallel.strategy.value = word;
      const RanksResult many = run_ranks(ranks, recipe, 6, options());
      const std::string name = fmt::format("{}, {} over {}", attention, word, ranks);
      // As of other models (strategies_test.cpp): sums in another order, carried on by Adam.
      EXPECT_LE(compare(name + ", first loss", {many.losses[0]}, {one.losses[0]}), 1e-6);
      EXPECT_LE(compare(name + ", losses", many.losses, one.losses), 1e-5);
      EXPECT_LE(compare_weights(name, many.weights, one.weights), 2e-3);
    }
    recipe.parallel.strategy.value = "none";
  }
}

TEST(RatTraining, RecomputedBlocksGiveTheSameBits) {
  config::Recipe recipe = tiny_recipe(rat("dense"));
  recipe.model.drop_path_rate = 0.3;
  const RanksResult kept = run_ranks(1, recipe, 4, options());
  recipe.train.recompute.value = "block";
  const RanksResult again = run_ranks(1, recipe, 4, options());
  EXPECT_EQ(kept.losses, again.losses);
  EXPECT_EQ(compare_weights("recomputed", again.weights, kept.weights), 0.0);
}

TEST(RatTraining, ModelsWithoutValuesStartLikeOthers) {
  config::Recipe recipe = tiny_recipe(rat("dense"));
  const auto one = run_ranks(1, recipe, 2, options());
  recipe.parallel.strategy.value = "zero3";
  RanksOptions deferred = options();
  deferred.deferred = true;
  EXPECT_LE(compare("deferred", run_ranks(2, recipe, 2, deferred).losses, one.losses), 1e-5);
}

}  // namespace
}  // namespace vitrail::testing
