// Training on thread ranks with recompute and offload against the same layout without: the same operations on the same
// numbers, so equal means every bit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/temp_folder.h"
#include "tests/parallel/ranks.h"

namespace vitrail::parallel {
namespace {

using testing::RanksOptions;
using testing::RanksResult;
using testing::run_ranks;

constexpr int64_t kSteps = 3;

config::Model with_draws(config::Model model) {
  model.proj_drop_rate = 0.2;
  model.drop_path_rate = 0.3;
  return model;
}

struct Place {
  const char* name;
  int ranks;
  const char* strategy;
  int64_t shard = 1, tensor = 1, sequence = 1;
};

config::Recipe recipe_at(const Place& place, const char* precision = "fp32") {
  config::Recipe recipe = testing::tiny_recipe(with_draws(testing::tiny_vit()));
  recipe.train.precision.value = precision;
  recipe.train.micro_batches = 2;
  recipe.parallel.strategy.value = place.strategy;
  recipe.parallel.shard = place.shard;
  recipe.parallel.tensor = place.tensor;
  recipe.parallel.sequence = place.sequence;
  return recipe;
}

RanksResult trained(const Place& place, const config::Recipe& recipe) {
  RanksOptions options;
  options.evaluate = true;
  options.keep_weights = true;
  return run_ranks(place.ranks, recipe, kSteps, options);
}

void expect_equal(const RanksResult& plain, const RanksResult& mine) {
  EXPECT_EQ(mine.losses, plain.losses);
  EXPECT_EQ(mine.norms, plain.norms);
  ASSERT_EQ(mine.weights.size(), plain.weights.size());
  for (const auto& [name, values] : plain.weights)
    EXPECT_TRUE(values.equal(mine.weights.at(name))) << name;
}

TEST(OffloadTraining, TheOptimizerOnTheHostTrainsAsTheOneOnTheDevice) {
  const testing::TempFolder folder;
  for (const Place& place :
       {Place{"one rank", 1, "none"}, Place{"ddp", 2, "ddp"}, Place{"zero1", 2, "zero1", 2},
        Place{"zero2", 2, "zero2", 2}, Place{"zero3", 2, "zero3", 2},
        Place{"hybrid", 4, "hybrid", 2}, Place{"zero3 and tensor", 4, "zero3", 2, 2}})
    for (const char* precision : {"fp32", "bf16"}) {
      config::Recipe recipe = recipe_at(place, precision);
      const RanksResult plain = trained(place, recipe);
      for (const char* offload : {"optimizer", "nvme", "parameters"}) {
        const bool divides =
            std::string(place.strategy) == "zero3" || std::string(place.strategy) == "hybrid";
        if (std::string(offload) == "parameters" && !divides) continue;
        SCOPED_TRACE(::testing::Message() << place.name << ", " << precision << ", " << offload);
        recipe.parallel.offload.value = offload;
        recipe.parallel.offload_folder = folder.path();
        expect_equal(plain, trained(place, recipe));
        EXPECT_EQ(folder.entries(), 0);
      }
    }
}

TEST(OffloadTraining, RecomputedBlocksTrainAlikeInEveryLayout) {
  for (const Place& place : {Place{"one rank", 1, "none"}, Place{"zero3", 2, "zero3", 2},
                             Place{"tensor", 2, "ddp", 1, 2}, Place{"sequence", 2, "ddp", 1, 1, 2}})
    for (const bool ring : {false, true}) {
      if (ring && place.sequence == 1) continue;
      config::Recipe recipe = recipe_at(place);
      if (place.sequence > 1) recipe.parallel.ulysses = ring ? 1 : 2;
      const RanksResult plain = trained(place, recipe);
      for (const char* kind : {"block", "every_k", "selective"}) {
        SCOPED_TRACE(::testing::Message() << place.name << ", ring " << ring << ", " << kind);
        recipe.train.recompute.value = kind;
        expect_equal(plain, trained(place, recipe));
      }
    }
}

}  // namespace
}  // namespace vitrail::parallel
