#include "vitrail/train/evaluate.h"

#include <cmath>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/train/loop.h"

namespace vitrail::train {
namespace {

using models::ClassificationTally;
using models::metric;

at::Tensor labels(const std::vector<int64_t>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

TEST(Metrics, PaddingCountsNowhere) {
  const at::Tensor logits = at::randn({6, 7});
  ClassificationTally whole(7), padded(7);
  whole.add(logits.narrow(0, 0, 4), labels({0, 3, 6, 2}));
  padded.add(logits, labels({0, 3, 6, 2, -1, -1}));
  EXPECT_EQ(whole.sums(), padded.sums());
  EXPECT_EQ(padded.samples(), 4);
}

TEST(Metrics, LossIsCrossEntropyAndLargeLogitsDoNotOverflow) {
  const at::Tensor logits = at::randn({32, 11}).mul(40);
  std::vector<int64_t> truth;
  for (int64_t i = 0; i < 32; ++i) truth.push_back(i * 5 % 11);
  ClassificationTally tally(11);
  tally.add(logits, labels(truth));
  const double expected =
      at::cross_entropy_loss(logits.to(at::kDouble), labels(truth)).item<double>();
  EXPECT_NEAR(metric(tally.metrics(), "loss"), expected, 1e-12 * expected);  // both in fp64
  ClassificationTally huge(2);
  huge.add(at::full({1, 2}, 1e38), labels({1}));
  EXPECT_NEAR(metric(huge.metrics(), "loss"), std::log(2.0), 1e-12);
}

TEST(Metrics, TopFiveAndConfusionAreCounted) {
  at::Tensor logits = at::zeros({3, 8});
  for (int64_t c = 0; c < 8; ++c)
    logits.select(1, c).fill_(static_cast<double>(8 - c));  // class 0 is best
  ClassificationTally tally(8);
  tally.add(logits, labels({0, 4, 5}));
  EXPECT_DOUBLE_EQ(metric(tally.metrics(), "accuracy"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(metric(tally.metrics(), "top5_accuracy"), 2.0 / 3);
  EXPECT_EQ(tally.confusion()[5][0], 1);
  EXPECT_EQ(tally.confusion()[0][5], 0);
}

TEST(Metrics, AModelThatSaysNothingOrNanIsNeverRight) {
  ClassificationTally tally(4);
  tally.add(at::full({4, 4}, NAN), labels({0, 1, 2, 3}));
  EXPECT_EQ(metric(tally.metrics(), "accuracy"), 0.0);
  ClassificationTally equal(4);
  equal.add(at::zeros({4, 4}), labels({0, 1, 2, 3}));
  EXPECT_EQ(metric(equal.metrics(), "accuracy"),
            0.25);  // ties go to the first class, as for argmax
}

TEST(Metrics, ALabelBeyondTheHeadIsADataError) {
  ClassificationTally tally(4);
  EXPECT_THROW(tally.add(at::zeros({1, 4}), labels({4})), core::DataError);
}

/// Metrics of a model with fresh weights on `ranks` threads.
std::vector<SplitResult> evaluate_on(const config::Recipe& recipe, int ranks) {
  std::vector<SplitResult> result;
  comm::run_thread_group(ranks, [&](comm::Communicator& group) {
    const auto model = models::make_model(recipe.model, 3);
    Evaluator evaluator(recipe.eval.sources, recipe, group.rank(), group.size(), false);
    auto mine = evaluator.run(model->task(), forward_pass(*model), at::kCPU, group, true);
    const auto again = evaluator.run(model->task(), forward_pass(*model), at::kCPU, group, false);
    EXPECT_EQ(mine.at(0).metrics, again.at(0).metrics) << "a second evaluation must give the same";
    if (group.rank() == 0) result = std::move(mine);
  });
  return result;
}

TEST(Evaluate, UnevenRanksGiveWhatOneRankGives) {
  const Workplace place;
  for (const char* kind : {"vit", "mae"}) {
    const config::Recipe recipe =
        tiny_recipe(place, "x",
                    {std::string("model.kind=") + kind, "model.decoder_embed_dim=32",
                     "model.decoder_depth=1", "model.decoder_num_heads=2", "data.batch_size=12"})
            .recipe;
    const SplitResult one = evaluate_on(recipe, 1).at(0);
    EXPECT_EQ(one.samples, 41);  // no multiple of 12, nor of the ranks
    for (int ranks : {2, 3, 4, 6}) {
      const SplitResult many = evaluate_on(recipe, ranks).at(0);
      EXPECT_EQ(many.samples, one.samples);
      EXPECT_EQ(many.confusion, one.confusion);
      const double expected = metric(one.metrics, "loss"), loss = metric(many.metrics, "loss");
      fmt::print("{} on {} ranks: loss differs by {:.1e}\n", kind, ranks,
                 std::abs(loss - expected) / expected);
      EXPECT_NEAR(loss, expected, 1e-6 * expected);  // fp32 logits of other batch sizes
    }
  }
}

/// A small model of each task that is not classification, on 41 random images.
config::Recipe random_recipe(const std::string& model) {
  return config::parse_recipe(fmt::format(R"yaml(
run: {{seed: 3, device: cpu, threads: 1}}
model: {{image_size: [12, 12], patch_size: 4, in_channels: 1, embed_dim: 32, depth: 4, num_heads: 2,
        decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 2, feature_size: 4, {}}}
data: {{batch_size: 12, workers: 1, sources: [{{reader: random, root: "41"}}]}}
train: {{steps: 1}}
eval: {{sources: [{{reader: random, root: "41"}}]}}
)yaml",
                                          model),
                              "random.yaml", {})
      .recipe;
}

std::vector<std::string> names_of(const models::MetricList& metrics) {
  std::vector<std::string> names;
  for (const auto& [name, value] : metrics) names.push_back(name);
  return names;
}

TEST(Evaluate, EveryMetricOfEveryTaskIsThatOfOneRank) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {
      {"kind: unetr, num_classes: 3",
       {"dice", "mean_iou", "pixel_accuracy", "sample_dice", "loss"}},
      {"kind: sap, num_classes: 3", {"dice", "mean_iou", "pixel_accuracy", "sample_dice", "loss"}},
      {"kind: mae", {"rmse", "psnr", "r2", "ssim", "loss"}},
      {"kind: diffusion, num_classes: 3", {"rmse", "loss"}}};
  for (const auto& [model, names] : cases) {
    const config::Recipe recipe = random_recipe(model);
    const SplitResult one = evaluate_on(recipe, 1).at(0);
    EXPECT_EQ(one.samples, 41);
    for (const std::string& name : names)
      EXPECT_TRUE(std::isfinite(metric(one.metrics, name))) << model << ' ' << name;
    double worst = 0;
    for (const int ranks :
         {2, 3, 4, 12}) {  // 12: the last batch of 5 leaves ranks without a sample
      const SplitResult many = evaluate_on(recipe, ranks).at(0);
      EXPECT_EQ(many.samples, 41);
      EXPECT_EQ(many.confusion, one.confusion);
      ASSERT_EQ(names_of(many.metrics), names_of(one.metrics)) << model;
      for (size_t i = 0; i < one.metrics.size(); ++i) {
        const double expected = one.metrics[i].second;
        worst = std::max(worst, std::abs(many.metrics[i].second - expected) /
                                    std::max(1e-3, std::abs(expected)));
      }
    }
    fmt::print("{}: worst relative difference {:.1e} (allowed 1e-5)\n", model, worst);
    EXPECT_LE(worst, 1e-5) << model;  // fp32 outputs of other batch sizes
  }
}

TEST(Evaluate, ExamplesOfASegmentationHoldBothMasks) {
  const SplitResult result = evaluate_on(random_recipe("kind: sap, num_classes: 3"), 1).at(0);
  EXPECT_EQ(result.examples.size(), 8u);
  for (const Example& example : result.examples) {
    EXPECT_EQ(example.truth.sizes(), at::IntArrayRef({12, 12}));
    EXPECT_EQ(example.predicted_mask.sizes(), at::IntArrayRef({12, 12}));
  }
  EXPECT_TRUE(evaluate_on(random_recipe("kind: diffusion"), 1).at(0).examples.empty());
}

TEST(Evaluate, ABatchThatCannotBeDividedIsRefused) {
  const Workplace place;
  const config::Recipe recipe = tiny_recipe(place, "x").recipe;
  EXPECT_THROW(Evaluator(recipe.eval.sources, recipe, 0, 3, false), core::ConfigError);
}

TEST(Evaluate, ExamplesHoldTheImageAndBothVerdicts) {
  const Workplace place;
  const SplitResult result = evaluate_on(tiny_recipe(place, "x").recipe, 1).at(0);
  ASSERT_FALSE(result.examples.empty());
  for (const Example& example : result.examples) {
    EXPECT_EQ(example.image.sizes(), at::IntArrayRef({1, 8, 8}));
    EXPECT_EQ(example.output.numel(), 10);
    EXPECT_EQ(example.label, (162 + example.sample) % 10);  // held out from line 162 on
  }
}

TEST(Evaluate, AveragedWeightsAreUsedAndTakenBackBitForBit) {
  const Workplace place;
  const config::Recipe recipe = tiny_recipe(place, "x").recipe;
  const auto alone = comm::self_communicator();
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto model = models::make_model(recipe.model, 3);
    comm::Mesh mesh(*alone, {});
    parallel::Engine engine(*model, recipe, mesh, at::kCPU, dtype);
    parallel::UnitSet& units = engine.units();
    const at::Tensor before = units.weights().clone(), master = units.master().clone();
    const at::Tensor average = at::full(master.sizes(), 0.25, master.options());
    {
      const EmaScope scope(engine, average);
      EXPECT_TRUE(units.weights().eq(0.25).all().item<bool>());
    }
    EXPECT_TRUE(units.weights().equal(before));
    EXPECT_TRUE(units.master().equal(master));
    { const EmaScope nothing(engine, {}); }
    EXPECT_TRUE(units.weights().equal(before));
  }
}

TEST(Evaluate, SavedWeightsGiveTheMetricsOfTheRun) {
  const Workplace place;
  const auto recipe = tiny_recipe(place, "saved");
  TrainOptions options;
  options.print = false;
  const auto world = comm::self_communicator();
  const RunResult run = run_training(recipe, *world, options);
  for (const std::string& weights : {std::string(), run.folder, run.folder + "/weights.safetensors",
                                     run.folder + "/checkpoints/step-00000020"})
    EXPECT_EQ(evaluate_recipe(recipe, *world, {weights, "", {}}).at(0).metrics,
              run.evaluation.at(0).metrics)
        << weights;
  EXPECT_EQ(evaluate_recipe(recipe, *world, {"", "train", {}}).at(0).samples, 162);
  EXPECT_THROW(evaluate_recipe(recipe, *world, {"", "nowhere", {}}), core::ConfigError);
  EXPECT_THROW(evaluate_recipe(recipe, *world, {place.file("none.safetensors"), "", {}}),
               core::CheckpointError);
  const auto wider = tiny_recipe(place, "saved", {"model.embed_dim=64"});
  EXPECT_THROW(evaluate_recipe(wider, *world, {run.folder + "/weights.safetensors", "", {}}),
               core::CheckpointError);
}

}  // namespace
}  // namespace vitrail::train
