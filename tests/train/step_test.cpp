#include "vitrail/train/step.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"

namespace vitrail::train {
namespace {

using testing::samples;

constexpr int64_t kGlobalBatch = 24;

/// All that a run needs, on the CPU.
struct Trainer {
  config::Recipe recipe;
  comm::Mesh mesh;
  std::shared_ptr<models::Model> model;
  parallel::Engine engine;
  Optimizer optimizer;
  Step step;

  Trainer(comm::Communicator& group, const config::Model& options, const config::Train& train,
          at::ScalarType dtype = at::kFloat)
      : recipe(recipe_of(options, train)),
        mesh(group, {}),
        model(models::make_model(options, 1)),
        engine(*model, recipe, mesh, at::kCPU, dtype),
        optimizer(engine, train.optimizer, train.ema_decay),
        step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train,
             7) {
    testing::use_one_thread();
  }

  static config::Recipe recipe_of(const config::Model& model, const config::Train& train) {
    config::Recipe recipe;
    recipe.model = model;
    recipe.train = train;
    recipe.parallel.bucket_mib = 0.02;
    return recipe;
  }
};

config::Train training() {
  config::Train train;
  train.clip_grad_norm = 1.0;
  train.schedule.warmup_steps = 2;
  train.schedule.warmup_start_lr = 1e-4;
  return train;
}

/// Losses of `steps` steps; rank r of R takes its contiguous share of every global batch.
std::vector<double> losses(comm::Communicator& group, const config::Model& options,
                           const config::Train& train, int64_t steps,
                           at::ScalarType dtype = at::kFloat) {
  Trainer trainer(group, options, train, dtype);
  const int64_t local = kGlobalBatch / group.size();
  std::vector<double> found;
  for (int64_t s = 0; s < steps; ++s) {
    const StepReport report =
        trainer.step.run(samples(s % 4 * kGlobalBatch + group.rank() * local, local));
    found.push_back(report.loss());
    EXPECT_EQ(report.step, s);
    EXPECT_EQ(report.samples, kGlobalBatch);
    EXPECT_GT(report.grad_norm(), 0.0);
    EXPECT_TRUE(report.applied());
  }
  return found;
}

double relative(double value, double expected) {
  return std::abs(value - expected) / std::abs(expected);
}

TEST(Step, ManyRanksGiveTheLossesOfOneRank) {
  for (const config::Model& options : {testing::tiny_vit(), testing::tiny_mae()}) {
    const std::vector<double> one = losses(*comm::self_communicator(), options, training(), 20);
    double first = 0, all = 0;
    for (const int ranks : {2, 3, 4}) {
      std::mutex mutex;
      comm::run_thread_group(ranks, [&](comm::Communicator& group) {
        const std::vector<double> many = losses(group, options, training(), 20);
        const std::lock_guard lock(mutex);
        first = std::max(first, relative(many[0], one[0]));
        for (size_t s = 0; s < one.size(); ++s) all = std::max(all, relative(many[s], one[s]));
      });
    }
    // Order of additions in fp32 (eps 6e-8); rounding grows with the steps.
    std::printf(
        "worst relative difference: first step %.2g (allowed 1e-6), 20 steps %.2g (allowed 1e-5)\n",
        first, all);
    EXPECT_LE(first, 1e-6);
    EXPECT_LE(all, 1e-5);
  }
}

TEST(Step, MicroBatchesGiveTheLossesOfTheWholeBatch) {
  const std::vector<double> whole =
      losses(*comm::self_communicator(), testing::tiny_vit(), training(), 10);
  for (const int64_t pieces : {2, 4}) {
    config::Train train = training();
    train.micro_batches = pieces;
    const std::vector<double> parts =
        losses(*comm::self_communicator(), testing::tiny_vit(), train, 10);
    double worst = 0;
    for (size_t s = 0; s < whole.size(); ++s) worst = std::max(worst, relative(parts[s], whole[s]));
    std::printf("%d pieces: worst relative difference %.2g (allowed 1e-5)\n",
                static_cast<int>(pieces), worst);
    EXPECT_LE(worst, 1e-5);  // order of additions, as above
  }
}

TEST(Step, TheLossFalls) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    config::Train train = training();
    train.optimizer.lr = 5e-3;
    const std::vector<double> found =
        losses(*comm::self_communicator(), testing::tiny_vit(), train, 60, dtype);
    std::printf("loss %.3f -> %.3f\n", found.front(), found.back());
    EXPECT_LT(found.back(), 0.7 * found.front());
  }
}

TEST(Step, MicroBatchesMustDivideTheBatch) {
  config::Train train = training();
  train.micro_batches = 5;
  const auto alone = comm::self_communicator();
  Trainer trainer(*alone, testing::tiny_vit(), train);
  EXPECT_THAT([&] { trainer.step.run(samples(0, 24)); },
              ::testing::ThrowsMessage<core::ConfigError>(
                  ::testing::HasSubstr("micro_batches must divide")));
}

data::Batch poisoned(int64_t first, int64_t count, bool poison) {
  data::Batch batch = samples(first, count);
  if (poison) batch.image.data_ptr<float>()[7] = std::numeric_limits<float>::infinity();
  return batch;
}

TEST(Step, ANonFiniteStepStopsEveryRankAndNamesItself) {
  std::mutex mutex;
  int stopped = 0;
  comm::run_thread_group(3, [&](comm::Communicator& group) {
    Trainer trainer(group, testing::tiny_vit(), training());
    trainer.step.run(samples(group.rank() * 8, 8));
    try {
      trainer.step.run(
          poisoned(group.rank() * 8, 8, group.rank() == 1));  // bad data on one rank alone
      trainer.step.settle();
    } catch (const core::NonFiniteError& error) {
      const std::lock_guard lock(mutex);
      ++stopped;
      EXPECT_THAT(error.what(), ::testing::HasSubstr("step 1"));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("the loss must be finite"));
    }
  });
  EXPECT_EQ(stopped, 3);
}

TEST(Step, ANonFiniteStepIsSkippedAndCountedOnRequest) {
  config::Train train = training();
  train.on_non_finite.value = "skip";
  const auto alone = comm::self_communicator();
  Trainer trainer(*alone, testing::tiny_vit(), train);
  trainer.step.run(samples(0, 8));
  const at::Tensor before = trainer.engine.units().master().clone();
  const StepReport bad = trainer.step.run(poisoned(8, 8, true));
  EXPECT_FALSE(bad.applied());
  EXPECT_TRUE(trainer.engine.units().master().equal(before));
  EXPECT_EQ(trainer.step.skipped(), 1);
  EXPECT_EQ(trainer.step.step(), 2);
  EXPECT_EQ(trainer.step.update_count(), 1);
  const StepReport good = trainer.step.run(samples(16, 8));
  EXPECT_TRUE(good.applied());
  EXPECT_TRUE(std::isfinite(good.loss()));
  EXPECT_FALSE(trainer.engine.units().master().equal(before));
}

/// The same steps by numbers of the host: draws by Draws::step, rate and count given to the update.
std::vector<double> losses_by_hand(Trainer& trainer, const std::vector<data::Batch>& batches,
                                   const std::vector<int64_t>& steps, const config::Train& train) {
  const Schedule schedule(train.schedule, train.optimizer.lr, 100);
  std::vector<double> found;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto draws_of = [&](const data::Batch& part) {
      return nn::Draws{7, static_cast<uint32_t>(steps[i]), part.sample_ids, true, {}};
    };
    trainer.engine.units().zero_gradients();
    const data::Batch batch = trainer.model->prepared(batches[i], draws_of(batches[i]));
    const at::Tensor loss = trainer.engine.forward_backward(batch, train.micro_batches, draws_of);
    trainer.optimizer.step(schedule.at(steps[i]), static_cast<int64_t>(i) + 1,
                           trainer.optimizer.gradient_norm(train.clip_grad_norm));
    found.push_back(loss.item().toDouble());
  }
  return found;
}

config::Model tiny_diffusion() {
  config::Model model = testing::tiny_mae();
  model.kind.value = "diffusion";
  model.time_drop_rate = 0.2;
  return model;
}

/// Rate, step of draws and count of updates lie in memory: the same bits as numbers of the host, with an update left out.
TEST(Step, NumbersInMemoryGiveTheBitsOfNumbersOfTheHost) {
  config::Model dropping = testing::tiny_vit();
  dropping.proj_drop_rate = dropping.pos_drop_rate = dropping.drop_rate = 0.2;
  dropping.patch_drop_rate = 0.5;
  for (const config::Model& options : {dropping, testing::tiny_mae(), tiny_diffusion()})
    for (const char* kind : {"adamw", "sgd"}) {
      config::Train train = training();
      train.on_non_finite.value = "skip";
      train.micro_batches = 2;
      train.optimizer.kind.value = kind;
      train.optimizer.layer_decay = 0.7;
      const auto alone = comm::self_communicator();
      Trainer stepping(*alone, options, train), by_hand(*alone, options, train);
      EXPECT_TRUE(stepping.model->repeats()) << "could not be recorded on a GPU";
      std::vector<double> found;
      std::vector<data::Batch> good;
      for (int64_t s = 0; s < 6; ++s) {
        const data::Batch batch = poisoned(s * 8, 8, s == 2);
        const double loss = stepping.step.run(batch).loss();
        if (s != 2) found.push_back(loss), good.push_back(batch);
      }
      EXPECT_EQ(stepping.step.skipped(), 1);
      EXPECT_EQ(losses_by_hand(by_hand, good, {0, 1, 3, 4, 5}, train), found)
          << options.kind.value << " " << kind;
      EXPECT_TRUE(stepping.engine.units().master().equal(by_hand.engine.units().master()));
    }
}

TEST(Step, NumbersOfStepsAreCopiedIntoTheSameMemoryAgain) {
  const auto alone = comm::self_communicator();
  Trainer trainer(*alone, testing::tiny_vit(), training());
  const StepReport kept = trainer.step.run(samples(0, 8));
  const double loss = kept.loss();
  const StepNumbers* second = trainer.step.run(samples(8, 8)).numbers.get();
  EXPECT_NE(kept.numbers.get(), second);
  EXPECT_EQ(trainer.step.run(samples(16, 8)).numbers.get(), second);
  EXPECT_EQ(kept.loss(), loss) << "what a report holds is not written over";
}

TEST(Step, GoesOnFromAStepAsIfItHadNeverStopped) {
  const auto alone = comm::self_communicator();
  Trainer whole(*alone, testing::tiny_vit(), training()),
      first(*alone, testing::tiny_vit(), training()),
      second(*alone, testing::tiny_vit(), training());
  std::vector<double> expected, found;
  for (int64_t s = 0; s < 6; ++s) expected.push_back(whole.step.run(samples(s * 8, 8)).loss());
  for (int64_t s = 0; s < 3; ++s) found.push_back(first.step.run(samples(s * 8, 8)).loss());
  second.engine.units().master().copy_(first.engine.units().master());
  for (size_t i = 0; i < 2; ++i)
    second.optimizer.states()[i].arena.copy_(first.optimizer.states()[i].arena);
  second.step.set_step(3);
  for (int64_t s = 3; s < 6; ++s) found.push_back(second.step.run(samples(s * 8, 8)).loss());
  EXPECT_EQ(found, expected);  // bit for bit
}

}  // namespace
}  // namespace vitrail::train
