// Training in fp16: the loss scale over steps, ranks and checkpoints.

#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "tests/train/tiny_run.h"
#include "vitrail/core/error.h"
#include "vitrail/train/checkpoint.h"
#include "vitrail/train/loop.h"
#include "vitrail/train/step.h"

namespace vitrail::train {
namespace {

using testing::samples;

struct Trainer {
  config::Recipe recipe;
  comm::Mesh mesh;
  std::shared_ptr<models::Model> model;
  parallel::Engine engine;
  Optimizer optimizer;
  Step step;

  Trainer(comm::Communicator& group, const config::Train& train,
          const std::string& strategy = "ddp", const std::string& offload = "none")
      : recipe(recipe_of(train, strategy, offload)),
        mesh(group,
             {strategy == "ddp" ? group.size() : 1, strategy == "ddp" ? 1 : group.size(), 1, 1, 1}),
        model(models::make_model(recipe.model, 1)),
        engine(*model, recipe, mesh, at::kCPU, train.precision == "fp16" ? at::kHalf : at::kFloat),
        optimizer(engine, train.optimizer, train.ema_decay),
        step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train,
             7) {
    testing::use_one_thread();
  }

  static config::Recipe recipe_of(const config::Train& train, const std::string& strategy,
                                  const std::string& offload) {
    config::Recipe recipe;
    recipe.model = testing::tiny_vit();
    recipe.train = train;
    recipe.parallel.strategy.value = strategy;
    recipe.parallel.offload.value = offload;
    return recipe;
  }
  kernels::LossScaleState state() { return step.loss_scaler()->state(); }
};

config::Train fp16() {
  config::Train train;
  train.precision.value = "fp16";
  train.clip_grad_norm = 1.0;
  train.optimizer.lr = 2e-3;
  train.loss_scale.initial_power = 10;
  return train;
}

data::Batch batch_at(int64_t first, int64_t count, bool poison) {
  data::Batch batch = samples(first, count);
  if (poison) batch.image.data_ptr<float>()[7] = std::numeric_limits<float>::infinity();
  return batch;
}

std::vector<double> losses(comm::Communicator& group, const config::Train& train, int64_t steps,
                           const std::string& strategy = "ddp",
                           const std::string& offload = "none") {
  Trainer trainer(group, train, strategy, offload);
  const int64_t local = 24 / group.size();
  std::vector<double> found;
  for (int64_t s = 0; s < steps; ++s)
    found.push_back(trainer.step.run(samples(s % 4 * 24 + group.rank() * local, local)).loss());
  EXPECT_EQ(trainer.step.skipped(), 0);
  return found;
}

TEST(Fp16, TheLossFallsAsInFp32) {
  config::Train wide = fp16();
  wide.precision.value = "fp32";
  const std::vector<double> half = losses(*comm::self_communicator(), fp16(), 60);
  const std::vector<double> whole = losses(*comm::self_communicator(), wide, 60);
  double worst = 0;
  for (size_t s = 0; s < 10; ++s)
    worst = std::max(worst, std::abs(half[s] - whole[s]) / std::abs(whole[s]));
  std::printf(
      "loss %.3f -> %.3f (fp32 %.3f); worst difference over ten steps %.2g (allowed 5e-4)\n",
      half.front(), half.back(), whole.back(), worst);
  // fp16 rounds to 2^-11 = 5e-4, either way from sample to sample; the loss is a mean over 24.
  EXPECT_LE(worst, 5e-4);
  EXPECT_LT(half.back(), 0.7 * half.front());
}

TEST(Fp16, NormsAndUpdatesAreThoseOfTheLossItself) {
  const auto alone = comm::self_communicator();
  config::Train large = fp16(), small = fp16();
  large.loss_scale.initial_power = 14;
  small.loss_scale.initial_power = 6;
  Trainer a(*alone, large), b(*alone, small);
  EXPECT_EQ(a.engine.units().weights().scalar_type(), at::kHalf);
  const StepReport x = a.step.run(samples(0, 24)), y = b.step.run(samples(0, 24));
  EXPECT_EQ(x.loss_scale(), 16384.0);
  EXPECT_EQ(y.loss_scale(), 64.0);
  // Scales are powers of two: only gradients that fp16 cannot hold at the smaller scale differ.
  EXPECT_NEAR(x.grad_norm() / y.grad_norm(), 1.0, 1e-3);
}

TEST(Fp16, AnOverflowIsSkippedThenHalvesAndAWindowWithoutOneDoubles) {
  config::Train train = fp16();
  train.loss_scale.window = 3;
  const auto alone = comm::self_communicator();
  Trainer trainer(*alone, train);
  std::vector<double> scales;
  const bool poison[] = {false, true, true, false, false, false, false};
  for (size_t s = 0; s < std::size(poison); ++s) {
    const at::Tensor before = trainer.engine.units().master().clone();
    const StepReport report = trainer.step.run(batch_at(static_cast<int64_t>(s) * 8, 8, poison[s]));
    scales.push_back(report.loss_scale());
    EXPECT_EQ(report.applied(), !poison[s]) << s;
    EXPECT_EQ(trainer.engine.units().master().equal(before), poison[s]) << s;
  }
  // Patience of two; the third step after the last overflow (step 5) doubles.
  EXPECT_THAT(scales, ::testing::ElementsAre(1024, 1024, 1024, 512, 512, 512, 1024));
  EXPECT_EQ(trainer.step.skipped(), 2);
  EXPECT_EQ(trainer.step.update_count(), 5);
}

TEST(Fp16, AnOverflowAtTheMinimumEndsTheRunOnEveryRank) {
  config::Train train = fp16();
  train.loss_scale.initial_power = 1;
  train.loss_scale.hysteresis = 1;
  std::mutex mutex;
  int stopped = 0;
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    Trainer trainer(group, train);
    const bool here = group.rank() == 1;  // bad data on one rank alone
    EXPECT_FALSE(trainer.step.run(batch_at(group.rank() * 8, 8, here)).applied());
    try {
      trainer.step.run(batch_at(group.rank() * 8, 8, here));
      trainer.step.settle();
    } catch (const core::NonFiniteError& error) {
      const std::lock_guard lock(mutex);
      ++stopped;
      EXPECT_THAT(error.what(), ::testing::HasSubstr("step 1: the gradient overflows in fp16"));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("minimum 1"));
      EXPECT_EQ(error.exit_code(), core::ExitCode::non_finite);
    }
  });
  EXPECT_EQ(stopped, 2);
}

TEST(Fp16, ManyRanksGiveTheLossesOfOneRankInEveryStrategy) {
  const std::vector<double> one = losses(*comm::self_communicator(), fp16(), 10);
  for (const auto& [strategy, offload] : {std::pair{"ddp", "none"},
                                          {"zero1", "none"},
                                          {"zero2", "none"},
                                          {"zero3", "none"},
                                          {"zero2", "optimizer"},
                                          {"zero3", "parameters"}}) {
    std::mutex mutex;
    double worst = 0;
    comm::run_thread_group(2, [&](comm::Communicator& group) {
      const std::vector<double> many = losses(group, fp16(), 10, strategy, offload);
      const std::lock_guard lock(mutex);
      for (size_t s = 0; s < one.size(); ++s)
        worst = std::max(worst, std::abs(many[s] - one[s]) / std::abs(one[s]));
    });
    std::printf("%s, offload %s: worst relative difference %.2g (allowed 5e-4)\n", strategy,
                offload, worst);
    // Sums over samples in fp16 products end elsewhere: roundings of 5e-4, either way.
    EXPECT_LE(worst, 5e-4);
  }
}

TEST(Fp16, RanksAgreeOnTheScaleWhenOneOfThemOverflows) {
  std::mutex mutex;
  std::vector<kernels::LossScaleState> states;
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    Trainer trainer(group, fp16(), "zero2");
    for (int64_t s = 0; s < 6; ++s)
      trainer.step.run(
          batch_at(s * 16 + group.rank() * 8, 8, s >= 2 && s <= 4 && group.rank() == s % 2));
    const std::lock_guard lock(mutex);
    states.push_back(trainer.state());
  });
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0], states[1]);
  EXPECT_EQ(states[0].last_overflow, 4);
  EXPECT_EQ(states[0].scale, 256.0);  // the first is let pass, two halve
}

TEST(Fp16, APipelineScalesTheLossOfItsLastStage) {
  config::Train train = fp16();
  train.micro_batches = 2;
  const std::vector<double> one = losses(*comm::self_communicator(), train, 6);
  std::mutex mutex;
  double worst = 0;
  comm::run_thread_group(2, [&](comm::Communicator& group) {
    testing::use_one_thread();
    config::Recipe recipe = Trainer::recipe_of(train, "ddp", "none");
    recipe.parallel.pipeline = 2;
    comm::Mesh mesh(group, {1, 1, 2, 1, 1});
    const auto model = models::make_model(recipe.model, 1);
    parallel::Engine engine(*model, recipe, mesh, at::kCPU, at::kHalf);
    Optimizer optimizer(engine, train.optimizer, {});
    Step step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train,
              7);
    for (size_t s = 0; s < one.size(); ++s) {
      const double loss = step.run(samples(static_cast<int64_t>(s) % 4 * 24, 24)).loss();
      const std::lock_guard lock(mutex);
      worst = std::max(worst, std::abs(loss - one[s]) / std::abs(one[s]));
    }
    EXPECT_EQ(step.skipped(), 0);
  });
  std::printf("pipeline of 2: worst relative difference %.2g (allowed 5e-4)\n", worst);
  EXPECT_LE(worst, 5e-4);  // as above
}

TEST(Fp16, ARunResumesItsLossScale) {
  const Workplace place;
  const std::vector<std::string> options{"train.precision=fp16",
                                         "train.loss_scale={window: 4, initial_power: 10}"};
  const auto run = [&](const std::string& name, std::vector<std::string> more,
                       const std::string& resume) {
    more.insert(more.end(), options.begin(), options.end());
    TrainOptions training;
    training.print = false;
    training.resume = resume;
    return run_training(tiny_recipe(place, name, more), *comm::self_communicator(), training);
  };
  const RunResult whole = run("whole", {"train.steps=20"}, "never");
  run("parts", {"train.steps=20", "checkpoint.every_steps=10"}, "never");
  const std::string checkpoint = place.file("runs/parts/checkpoints/step-00000010");
  const auto state = CheckpointReader(checkpoint).info().loss_scale;
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->iteration, 10);
  EXPECT_EQ(state->scale, 4096.0);  // doubled after steps 3 and 7
  const RunResult resumed = run("parts", {"train.steps=20"}, checkpoint);
  EXPECT_EQ(resumed.first_step, 10);
  const auto expected = read_steps(whole.folder), found = read_steps(resumed.folder);
  ASSERT_EQ(expected.size(), 20u);
  for (size_t s = 10; s < 20; ++s) {
    const auto& line = found[found.size() - 20 + s];
    EXPECT_EQ(line["loss"], expected[s]["loss"]) << s;
    EXPECT_EQ(line["loss_scale"], expected[s]["loss_scale"]) << s;
  }
  EXPECT_EQ(expected[19]["loss_scale"], 16384.0);
}

}  // namespace
}  // namespace vitrail::train
