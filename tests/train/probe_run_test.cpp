#include "vitrail/train/probe_run.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/test_data.h"
#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/train/loop.h"

namespace vitrail::train {
namespace {

using data::test::message_of;
using models::metric;
using testing::HasSubstr;

config::ResolvedRecipe mae_recipe(const Workplace& place, const std::string& name,
                                  std::vector<std::string> overrides = {}) {
  overrides.insert(overrides.begin(),
                   {"model.kind=mae", "model.decoder_embed_dim=32", "model.decoder_depth=1",
                    "model.decoder_num_heads=2", "model.drop_path_rate=0"});
  return tiny_recipe(place, name, overrides);
}

std::string train(const config::ResolvedRecipe& recipe) {
  TrainOptions options;
  options.print = false;
  return run_training(recipe, *comm::self_communicator(), options).folder;
}

std::vector<SplitResult> probe(const config::ResolvedRecipe& recipe, const std::string& kind,
                               int ranks, const EvaluateOptions& options = {}) {
  std::vector<SplitResult> result;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    auto mine = probe_recipe(recipe, world, kind, options);
    if (world.rank() == ranks - 1) result = std::move(mine);
  });
  return result;
}

TEST(ProbeRun, BothKindsTellTheClassesAndEveryLayoutSaysTheSame) {
  const Workplace place;
  for (const auto& [name, steps] : {std::pair{"fresh", 1}, {"taught", 60}}) {
    const auto recipe = mae_recipe(place, name, {fmt::format("train.steps={}", steps)});
    train(recipe);
    for (const char* kind : {"knn", "linear"}) {
      const SplitResult one = probe(recipe, kind, 1).at(0);
      EXPECT_EQ(one.split, "digits");
      EXPECT_EQ(one.samples, 41);
      const double accuracy = metric(one.metrics, "accuracy");
      fmt::print("{} {}: accuracy {:.3f}, top 5 {:.3f}\n", name, kind, accuracy,
                 metric(one.metrics, "top5_accuracy"));
      // The classes are easy; chance is 0.1.
      EXPECT_GE(accuracy, 0.5);
      EXPECT_GE(metric(one.metrics, "top5_accuracy"), accuracy);
      for (const int ranks : {2, 4}) {
        const SplitResult many = probe(recipe, kind, ranks).at(0);
        EXPECT_EQ(many.samples, 41);
        ASSERT_EQ(many.metrics.size(), one.metrics.size());
        for (size_t i = 0; i < one.metrics.size(); ++i) {
          EXPECT_EQ(many.metrics[i].first, one.metrics[i].first);
          // Features of other batch sizes differ in their last bits; a count can move by one sample in none of the
          // cases seen.
          EXPECT_NEAR(many.metrics[i].second, one.metrics[i].second,
                      1e-4 * std::abs(one.metrics[i].second))
              << name << ' ' << kind << " on " << ranks << " ranks: " << one.metrics[i].first;
        }
      }
    }
  }
}

TEST(ProbeRun, EveryRankTakesItsShareHoweverTrainingDividedTheModel) {
  const Workplace place;
  const SplitResult one = probe(mae_recipe(place, "whole"), "knn", 1,
                                {.weights = train(mae_recipe(place, "whole", {"train.steps=3"}))})
                              .at(0);
  const auto divided =
      mae_recipe(place, "whole", {"train.steps=3", "parallel.strategy=none", "parallel.tensor=2"});
  EXPECT_EQ(probe(divided, "knn", 2).at(0).metrics, one.metrics);
}

TEST(ProbeRun, ARankWithoutSamplesTakesPart) {
  const Workplace place;
  const auto recipe = mae_recipe(
      place, "few", {"train.steps=1", "eval.sources[0].split=[0.98, 1]", "eval.batch_size=16"});
  train(recipe);
  const SplitResult one = probe(recipe, "knn", 1).at(0), eight = probe(recipe, "knn", 8).at(0);
  EXPECT_EQ(one.samples, 4);
  EXPECT_EQ(eight.samples, 4);
  EXPECT_EQ(one.metrics, eight.metrics);
}

TEST(ProbeRun, AClassifierIsProbedBelowItsHeadWhateverThePool) {
  const Workplace place;
  for (const char* pool : {"token", "avg", "attention", "none"}) {
    auto recipe = tiny_recipe(place, pool, {"train.steps=1"});
    recipe.recipe.model.pool.value = pool;
    const auto model = models::make_model(recipe.recipe.model, 0);
    data::Loader loader(recipe.recipe.eval.sources, recipe.recipe.model,
                        evaluation_loader(recipe.recipe, 0, 1, false));
    const data::Batch batch = loader.next();
    const at::Tensor features = model->features(batch, {0, 0, batch.sample_ids, false});
    EXPECT_EQ(features.sizes(), at::IntArrayRef({16, 32})) << pool;
    if (recipe.recipe.model.pool == "none") continue;  // such a head cannot learn classes
    train(recipe);
    EXPECT_GE(metric(probe(recipe, "linear", 1).at(0).metrics, "accuracy"), 0.5) << pool;
  }
}

TEST(ProbeRun, ASplitIsChosenByName) {
  const Workplace place;
  const auto recipe = mae_recipe(place, "split", {"train.steps=1"});
  train(recipe);
  EvaluateOptions options;
  options.split = "train";
  EXPECT_EQ(probe(recipe, "knn", 1, options).at(0).samples, 162);
  options.split = "nowhere";
  EXPECT_THAT(message_of<core::ConfigError>([&] { probe(recipe, "knn", 1, options); }),
              HasSubstr("nowhere"));
}

TEST(ProbeRun, WhatCannotBeProbedIsNamed) {
  const Workplace place;
  const auto self = comm::self_communicator();
  const auto message = [&](const config::ResolvedRecipe& recipe, const std::string& kind) {
    return message_of<core::ConfigError>([&] { probe_recipe(recipe, *self, kind, {}); });
  };
  const auto mae = mae_recipe(place, "named", {"train.steps=1"});
  train(mae);
  EXPECT_THAT(message(mae, "svm"), HasSubstr("svm"));
  EXPECT_THAT(message(mae_recipe(place, "named", {"eval.sources=[]"}), "knn"),
              HasSubstr("eval.sources"));
  const auto noise = tiny_recipe(place, "noise", {"model.kind=diffusion", "model.decoder=linear"});
  EXPECT_THAT(message(noise, "knn"), HasSubstr("diffusion"));

  data::test::write_image(place.file("plain/a.png"), {8, 8}, 1);
  data::test::write_image(place.file("plain/b.png"), {8, 8}, 1, 1);
  config::ResolvedRecipe unlabelled = mae;
  for (auto* sources : {&unlabelled.recipe.data.sources, &unlabelled.recipe.eval.sources}) {
    sources->front().reader.value = "images";
    sources->front().root = place.file("plain");
    sources->front().split.clear();
  }
  EXPECT_THAT(message(unlabelled, "linear"), HasSubstr("at least two classes"));
}

}  // namespace
}  // namespace vitrail::train
