// Training with the loss between heads on several ranks against one.

#include <gtest/gtest.h>

#include "tests/parallel/ranks.h"

namespace vitrail::parallel {
namespace {

config::Recipe recipe_of(const char* engine, const char* recompute) {
  config::Model model = testing::tiny_vit();
  model.patch_size = 2, model.num_heads = 4, model.drop_path_rate = 0.2;
  config::Recipe recipe = testing::tiny_recipe(model);
  recipe.train.decatt.weight = 2.0, recipe.train.decatt.blocks = {0, 3};
  recipe.train.engine.value = engine, recipe.train.recompute.value = recompute;
  recipe.train.micro_batches = 2;
  return recipe;
}

struct Case {
  const char* name;
  int64_t replicate, shard, sequence;
  const char* strategy;
  const char* engine = "autograd";
  const char* recompute = "none";
};

class Ranks : public ::testing::TestWithParam<Case> {};

TEST_P(Ranks, TrainWithTheLossBetweenHeadsAsOneRank) {
  const Case& c = GetParam();
  config::Recipe recipe = recipe_of(c.engine, c.recompute);
  testing::RanksOptions options;
  options.global_batch = 8, options.keep_weights = true;
  const testing::RanksResult one = testing::run_ranks(1, testing::alone(recipe), 10, options);
  config::Recipe without = testing::alone(recipe);
  without.train.decatt.weight = 0.0;
  EXPECT_GT(one.losses[0], testing::losses_of(1, without, 1, options)[0] + 1e-3);
  recipe.parallel.strategy.value = c.strategy;
  recipe.parallel.replicate = c.replicate, recipe.parallel.shard = c.shard;
  recipe.parallel.sequence = c.sequence;
  const auto ranks = static_cast<int>(c.replicate * c.shard * c.sequence);
  const testing::RanksResult many = testing::run_ranks(ranks, recipe, 10, options);
  // fp32: rounding of sums in another order, which training carries on.
  EXPECT_LE(testing::compare(std::string(c.name) + ", first step", many.losses, one.losses, 1),
            1e-6);
  EXPECT_LE(testing::compare(std::string(c.name) + ", ten steps", many.losses, one.losses), 1e-5);
  EXPECT_LE(testing::compare(std::string(c.name) + ", norms", many.norms, one.norms), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    Decatt, Ranks,
    ::testing::Values(Case{"ddp over 2", 2, 1, 1, "ddp"}, Case{"zero3 over 2", 1, 2, 1, "zero3"},
                      Case{"ddp over 2, fused", 2, 1, 1, "ddp", "fused"},
                      Case{"zero2 over 2, recomputed", 1, 2, 1, "zero2", "fused", "block"},
                      Case{"sequence 2", 1, 1, 2, "ddp"},
                      Case{"sequence 4, fused", 1, 1, 4, "ddp", "fused"},
                      Case{"zero3 over 2 x sequence 2, recomputed", 1, 2, 2, "zero3", "autograd",
                           "block"}));

}  // namespace
}  // namespace vitrail::parallel
