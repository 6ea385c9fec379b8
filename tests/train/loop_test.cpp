#include "vitrail/train/loop.h"

#include <csignal>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/models/metrics.h"
#include "vitrail/train/checkpoint_files.h"

namespace vitrail::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TrainOptions quiet(const std::string& resume = "auto") {
  TrainOptions options;
  options.print = false;
  options.resume = resume;
  return options;
}

RunResult train_alone(const config::ResolvedRecipe& recipe, const TrainOptions& options = quiet()) {
  return run_training(recipe, *comm::self_communicator(), options);
}

/// The result of rank 0.
RunResult train_together(const config::ResolvedRecipe& recipe, int ranks,
                         const TrainOptions& options = quiet()) {
  RunResult result;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    RunResult mine = run_training(recipe, world, options);
    if (world.rank() == 0) result = std::move(mine);
  });
  return result;
}

double worst_relative(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(a[i] - b[i]) / std::abs(a[i]));
  return worst;
}

TEST(Loop, TheLossFallsAndTheHeldOutAccuracyRises) {
  const Workplace place;
  const RunResult result = train_alone(tiny_recipe(place, "falls", {"train.steps=60"}));
  ASSERT_EQ(result.losses.size(), 60u);
  EXPECT_LT(result.losses.back(), 0.5 * result.losses.front());
  // Ten classes by chance: 0.1.
  EXPECT_GT(models::metric(result.evaluation.at(0).metrics, "accuracy"), 0.6);
  EXPECT_EQ(result.evaluation.at(0).samples, 41);
}

TEST(Loop, ARunFolderHoldsRecipeMetricsWeightsAndCheckpoint) {
  const Workplace place;
  const RunResult result = train_alone(tiny_recipe(
      place, "whole", {"train.ema_decay=0.9", "logging.html=true", "logging.tensorboard=true"}));
  for (const char* name :
       {"recipe.yaml", "metrics.jsonl", "log.txt", "history.jsonl", "weights.safetensors",
        "weights-ema.safetensors", "checkpoints/step-00000020/manifest.json", "report.html",
        "tensorboard", "report/data.json"})
    EXPECT_TRUE(fs::exists(fs::path(result.folder) / name)) << name;
  EXPECT_EQ(read_steps(result.folder).size(), 20u);
}

TEST(Loop, ResumingIsEqualBitForBit) {
  const Workplace place;
  const RunResult straight = train_alone(tiny_recipe(place, "straight", {"train.ema_decay=0.9"}));
  const RunResult first =
      train_alone(tiny_recipe(place, "halves", {"train.ema_decay=0.9", "train.steps=10"}));
  const RunResult second = train_alone(tiny_recipe(place, "halves", {"train.ema_decay=0.9"}));
  EXPECT_EQ(second.first_step, 10);
  std::vector<double> both = first.losses;
  both.insert(both.end(), second.losses.begin(), second.losses.end());
  EXPECT_EQ(both, straight.losses);
  for (const char* name : {"/weights.safetensors", "/weights-ema.safetensors"})
    EXPECT_EQ(read_bytes(straight.folder + name), read_bytes(second.folder + name)) << name;
  const auto steps = read_steps(second.folder);
  ASSERT_EQ(steps.size(), 20u);  // no step twice
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i]["step"], i + 1);
}

TEST(Loop, ResumingFromAnEarlierCheckpointGivesUpTheLaterSteps) {
  const Workplace place;
  const RunResult whole = train_alone(tiny_recipe(place, "back", {"checkpoint.every_steps=10"}));
  const RunResult again = train_alone(tiny_recipe(place, "back", {"checkpoint.every_steps=10"}),
                                      quiet(whole.folder + "/checkpoints/step-00000010"));
  EXPECT_EQ(again.first_step, 10);
  EXPECT_EQ(read_steps(again.folder).size(), 20u);
  EXPECT_EQ(std::vector<double>(whole.losses.begin() + 10, whole.losses.end()), again.losses);
}

TEST(Loop, StartingAnewKeepsTheOldNumbersAside) {
  const Workplace place;
  const RunResult first = train_alone(tiny_recipe(place, "anew", {"train.steps=6"}));
  const RunResult second =
      train_alone(tiny_recipe(place, "anew", {"train.steps=4"}), quiet("never"));
  EXPECT_EQ(second.first_step, 0);
  EXPECT_EQ(read_steps(second.folder).size(), 4u);
  EXPECT_TRUE(fs::exists(first.folder + "/metrics-superseded-1.jsonl"));
}

TEST(Loop, ASecondRunOfTheSameNameIsRefusedBeforeItTouchesTheFirst) {
  const Workplace place;
  const std::string folder = train_alone(tiny_recipe(place, "same", {"train.steps=2"})).folder;
  const auto contents = [&] {
    std::map<std::string, std::string> bytes;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) bytes[entry.path()] = read_bytes(entry.path());
    return bytes;
  };
  const FolderLock first(folder + "/checkpoints", 0);  // as a run holds it
  const auto before = contents();
  try {
    train_alone(tiny_recipe(place, "same", {"train.steps=4"}), quiet("never"));
    ADD_FAILURE() << "must throw";
  } catch (const core::CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("another process saves checkpoints here"));
  }
  EXPECT_EQ(contents(), before);
}

TEST(Loop, AFinishedRunIsEvaluatedAgainWithoutAStep) {
  const Workplace place;
  const RunResult first = train_alone(tiny_recipe(place, "done"));
  const RunResult again = train_alone(tiny_recipe(place, "done"));
  EXPECT_TRUE(again.losses.empty());
  EXPECT_EQ(first.evaluation.at(0).metrics, again.evaluation.at(0).metrics);
}

TEST(Loop, LossesDoNotDependOnTheNumberOfRanks) {
  const Workplace place;
  const RunResult one = train_alone(tiny_recipe(place, "one"));
  for (int ranks : {2, 4}) {
    const RunResult many = train_together(tiny_recipe(place, fmt::format("ranks{}", ranks)), ranks);
    const double first = worst_relative({one.losses[0]}, {many.losses[0]});
    const double worst = worst_relative(one.losses, many.losses);
    fmt::print("{} ranks against one: first step {:.2e}, worst of 20 {:.2e}\n", ranks, first,
               worst);
    // fp32 sums in another order; the bounds are those promised for N ranks against one.
    EXPECT_LE(first, 1e-6);
    EXPECT_LE(worst, 1e-5);
    // Counts are exact whatever the ranks; 41 held-out samples do not divide evenly.
    EXPECT_EQ(many.evaluation.at(0).samples, 41);
    EXPECT_EQ(models::metric(one.evaluation.at(0).metrics, "accuracy"),
              models::metric(many.evaluation.at(0).metrics, "accuracy"));
  }
}

TEST(Loop, MicroBatchesGiveTheSameLosses) {
  const Workplace place;
  const RunResult whole = train_alone(tiny_recipe(place, "whole"));
  const RunResult pieces = train_alone(tiny_recipe(place, "pieces", {"train.micro_batches=4"}));
  const double worst = worst_relative(whole.losses, pieces.losses);
  fmt::print("four micro-batches against one: worst of 20 {:.2e}\n", worst);
  EXPECT_LE(worst, 1e-5);  // fp32 sums in another order, 20 steps
}

TEST(Loop, ResumingOnAnotherNumberOfRanksGoesOnWithTheSameCourse) {
  const Workplace place;
  const RunResult straight = train_alone(tiny_recipe(place, "straight"));
  train_alone(tiny_recipe(place, "grows", {"train.steps=10"}));
  const RunResult second = train_together(tiny_recipe(place, "grows"), 4);
  EXPECT_EQ(second.first_step, 10);
  const std::vector<double> tail(straight.losses.begin() + 10, straight.losses.end());
  const double worst = worst_relative(tail, second.losses);
  fmt::print("1 then 4 ranks against 1: worst {:.2e}\n", worst);
  EXPECT_LE(worst, 1e-5);  // fp32 sums in another order
}

TEST(Loop, AMaskedAutoencoderTrainsAndLeavesPictures) {
  const Workplace place;
  const RunResult result =
      train_alone(tiny_recipe(place, "mae",
                              {"model.kind=mae", "model.decoder_embed_dim=32",
                               "model.decoder_depth=1", "model.decoder_num_heads=2",
                               "model.norm_pix_loss=true", "train.steps=40", "logging.html=true"}));
  EXPECT_LT(result.losses.back(), result.losses.front());
  EXPECT_EQ(result.evaluation.at(0).samples, 41);
  EXPECT_TRUE(fs::exists(result.folder + "/report/picture-0-00-3.png"));
}

TEST(Loop, ADryRunWritesNothing) {
  const Workplace place;
  TrainOptions options = quiet();
  options.dry_run = true;
  const RunResult result = train_alone(tiny_recipe(place, "dry"), options);
  EXPECT_FALSE(fs::exists(result.folder));
}

TEST(Loop, AStopSignalSavesAndThrowsPreempted) {
  const Workplace place;
  const RunResult straight = train_alone(tiny_recipe(place, "calm", {"train.steps=200"}));
  // The signal comes once the first step is logged, long before the last of so many.
  const auto recipe =
      tiny_recipe(place, "stopped", {"train.steps=200", "data.sources[0].name=digits"});
  std::thread sender([&] {
    const std::string metrics = place.file("runs/stopped/metrics.jsonl");
    for (int i = 0; i < 20000 && !(fs::exists(metrics) && fs::file_size(metrics) > 0); ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    ::kill(::getpid(), SIGUSR1);
  });
  bool stopped = false;
  std::signal(SIGUSR1, SIG_IGN);  // should the run be over before the signal
  try {
    train_alone(recipe);
  } catch (const core::Preempted& error) {
    stopped = true;
    EXPECT_THAT(error.what(), HasSubstr("SIGUSR1"));
  }
  sender.join();
  std::signal(SIGUSR1, SIG_DFL);
  ASSERT_TRUE(stopped) << "200 steps were over before the signal of the first came";
  train_alone(recipe);
  const auto steps = read_steps(place.file("runs/stopped"));
  ASSERT_EQ(steps.size(), 200u);
  for (size_t i = 0; i < steps.size(); ++i)
    EXPECT_EQ(steps[i]["loss"].get<double>(), straight.losses[i]);
}

TEST(Loop, ALayoutThatDoesNotFitIsRefusedWithItsNumbersBeforeAnythingIsWritten) {
  const Workplace place;
  const auto message = [&](const std::vector<std::string>& overrides, int ranks) -> std::string {
    try {
      train_together(tiny_recipe(place, "bad", overrides), ranks);
    } catch (const core::ConfigError& error) {
      return error.what();
    } catch (const core::CommError&) {
      return "another rank's abort";
    }
    return "no error";
  };
  EXPECT_THAT(message({"parallel.strategy=none"}, 2), HasSubstr("strategy"));
  EXPECT_THAT(message({"data.batch_size=18"}, 4), testing::AllOf(HasSubstr("18"), HasSubstr("4")));
  EXPECT_THAT(message({"train.micro_batches=16"}, 2), HasSubstr("16 / 2 = 8 and 16"));
  EXPECT_FALSE(fs::exists(place.file("runs/bad")));
}

/// Four steps on random pictures, with a page.
config::ResolvedRecipe pictured(const Workplace& place, const std::string& model) {
  return config::parse_recipe(fmt::format(R"yaml(
run: {{name: pictured, output: {0}, seed: 3, device: cpu, threads: 1}}
model: {{image_size: [8, 8], patch_size: 4, in_channels: 1, embed_dim: 32, depth: 4, num_heads: 2, mlp_ratio: 2,
        decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 2, feature_size: 4, {1}}}
data: {{batch_size: 8, workers: 1, sources: [{{reader: random, root: "32"}}]}}
train: {{steps: 4, ema_decay: 0.9}}
checkpoint: {{async: false}}
eval: {{sources: [{{reader: random, root: "9"}}]}}
logging: {{every_steps: 1, tensorboard: false}}
)yaml",
                                          place.file("runs"), model),
                              "pictured.yaml", {});
}

TEST(Loop, EveryKindOfModelTrainsAndShowsItsPictures) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"kind: unetr, num_classes: 3", {"predicted classes", "where they differ", "Confusion"}},
      {"kind: sap, num_classes: 3", {"predicted classes", "where they differ"}},
      {"kind: mae", {"visible + predicted"}},
      {"kind: diffusion, num_classes: 3, num_timesteps: 10",
       {"Samples drawn from noise", "class 2"}},
      {"kind: diffusion, num_timesteps: 10", {"Samples drawn from noise"}}};
  for (const auto& [model, parts] : cases)
    for (const int ranks : {1, 2}) {
      const Workplace place;
      const RunResult result = train_together(pictured(place, model), ranks);
      EXPECT_EQ(result.steps, 4);
      const std::string page = read_bytes(result.report);
      for (const char* part : parts) EXPECT_THAT(page, HasSubstr(part)) << model << ranks;
    }
}

TEST(Loop, DrawnSamplesLeaveTheWeightsAsTheyWere) {
  const Workplace with, without;
  const char* model = "kind: diffusion, num_timesteps: 10";
  auto silent = pictured(without, model);
  silent.recipe.logging.html = false;
  const std::string drawn = train_alone(pictured(with, model)).folder,
                    plain = train_alone(silent).folder;
  for (const char* name : {"/weights.safetensors", "/weights-ema.safetensors"})
    EXPECT_EQ(read_bytes(drawn + name), read_bytes(plain + name)) << name;
  EXPECT_TRUE(fs::exists(drawn + "/report/picture-0-00-0.png"));
  EXPECT_FALSE(fs::exists(plain + "/report/picture-0-00-0.png"));
}

TEST(Loop, ADiffusionModelInStagesIsScoredAsAWholeOne) {
  const Workplace place;
  const std::vector<std::string> model{"model.kind=diffusion",   "model.decoder=linear",
                                       "model.num_timesteps=10", "model.drop_path_rate=0",
                                       "parallel.strategy=none", "train.steps=3",
                                       "train.micro_batches=2"};
  std::vector<std::string> in_stages = model;
  in_stages.push_back("parallel.pipeline=2");
  const auto one = train_alone(tiny_recipe(place, "one", model)).evaluation.at(0).metrics;
  const auto two = train_together(tiny_recipe(place, "two", in_stages), 2).evaluation.at(0).metrics;
  ASSERT_EQ(one.size(), two.size());
  EXPECT_GT(one.size(), 1u) << "the noise itself must have been there to be compared with";
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].first, two[i].first);
    // Three steps apart by rounding: gradients of micro-batches add up alike, so that nothing was seen to differ.
    EXPECT_NEAR(one[i].second, two[i].second, 1e-5 * std::abs(one[i].second)) << one[i].first;
  }
}

TEST(Loop, OffloadOfParametersThatHasNoEffectIsSaid) {
  const Workplace place;
  const std::vector<std::string> layout{"parallel.strategy=zero3", "parallel.offload=parameters",
                                        "parallel.persist_below=0", "train.steps=2"};
  const auto log_of = [](const RunResult& result) {
    return read_bytes(result.folder + "/log.txt");
  };
  EXPECT_THAT(log_of(train_alone(tiny_recipe(place, "alone", layout))),
              HasSubstr("weights stay on the device"));
  EXPECT_THAT(log_of(train_together(tiny_recipe(place, "both", layout), 2)),
              testing::Not(HasSubstr("weights stay on the device")));
}

TEST(Loop, AnOutputThatCannotBeWrittenIsNamed) {
  const Workplace place;
  std::ofstream(place.file("file")) << "x";
  try {
    train_alone(tiny_recipe(place, "blocked", {"run.output=" + place.file("file/runs")}));
    FAIL() << "must throw";
  } catch (const core::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(place.file("file")));
  }
}

}  // namespace
}  // namespace vitrail::train
