// Training goes on under any layout from what any other saved.

#include <algorithm>
#include <cmath>
#include <map>

#include "checkpoint_sample.h"
#include "tests/parallel/ranks.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_reshard.h"

namespace vitrail::train {

namespace {

constexpr int64_t kSavedAt = 3, kGlobalBatch = 24;

struct Course {
  const char* name;
  int ranks;
  config::Recipe recipe;
};

config::Recipe recipe_of(const char* strategy, int64_t replicate, int64_t shard, int64_t pipeline,
                         int64_t tensor) {
  config::Recipe recipe = vitrail::testing::tiny_recipe(vitrail::testing::tiny_vit());
  recipe.train.micro_batches = 2;
  recipe.parallel.strategy.value = strategy;
  recipe.parallel.replicate = replicate;
  recipe.parallel.shard = shard;
  recipe.parallel.pipeline = pipeline;
  recipe.parallel.tensor = tensor;
  return recipe;
}

std::vector<Course> courses() {
  return {{"ddp 2", 2, recipe_of("ddp", 2, 1, 1, 1)},
          {"zero1 4", 4, recipe_of("zero1", 1, 4, 1, 1)},
          {"zero3 4", 4, recipe_of("zero3", 1, 4, 1, 1)},
          {"hybrid 2 x 2", 4, recipe_of("hybrid", 2, 2, 1, 1)},
          {"tensor 2 x zero3 2", 4, recipe_of("zero3", 1, 2, 1, 2)},
          {"pipeline 2 x zero1 2", 4, recipe_of("zero1", 1, 2, 2, 1)}};
}

/// One rank's model, engine and optimizer.
class Trainer {
 public:
  Trainer(comm::Communicator& world, const config::Recipe& recipe)
      : recipe_(recipe),
        mesh_(world, vitrail::testing::ranks::mesh_shape(recipe.parallel)),
        model_(models::make_model(recipe.model, static_cast<uint64_t>(recipe.run.seed))),
        engine_(configured(), recipe_, mesh_, at::kCPU, at::kFloat),
        optimizer_(engine_, recipe_.train.optimizer, recipe_.train.ema_decay) {}

  std::vector<StatePiece> state() {
    return state_pieces(engine_.units(), optimizer_, parallel::place_of(mesh_));
  }
  /// Returns the bytes that were read.
  int64_t load(const std::string& path) {
    const CheckpointReader reader(path);
    reader.load(state(), mesh_.world());
    engine_.publish(engine_.units().master());
    return reader.bytes_read();
  }
  int64_t kept_bytes() {
    int64_t bytes = 0;
    for (const StatePiece& piece : state()) bytes += static_cast<int64_t>(piece.data.nbytes());
    return bytes;
  }
  /// Losses of steps [first, last).
  std::vector<double> train(int64_t first, int64_t last) {
    std::vector<double> losses;
    const int64_t local = kGlobalBatch / mesh_.data_size();
    for (int64_t step = first; step < last; ++step) {
      const auto draws_of = [&](const data::Batch& samples) {
        return nn::Draws{static_cast<uint64_t>(recipe_.run.seed), static_cast<uint32_t>(step),
                         samples.sample_ids, true};
      };
      engine_.units().zero_gradients();
      const data::Batch batch =
          vitrail::testing::samples(step * kGlobalBatch + mesh_.data_rank() * local, local);
      const at::Tensor loss =
          engine_.forward_backward(batch, recipe_.train.micro_batches, draws_of);
      const GradientNorm norm = optimizer_.gradient_norm(recipe_.train.clip_grad_norm);
      optimizer_.step(3e-3, step + 1, norm);
      losses.push_back(vitrail::testing::ranks::mean_over_data(mesh_, loss));
    }
    return losses;
  }
  parallel::Engine& engine() { return engine_; }
  Optimizer& optimizer() { return optimizer_; }
  comm::Mesh& mesh() { return mesh_; }

 private:
  models::Model& configured() {
    models::configure(*model_, recipe_.train);
    return *model_;
  }
  config::Recipe recipe_;
  comm::Mesh mesh_;
  std::shared_ptr<models::Model> model_;
  parallel::Engine engine_;
  Optimizer optimizer_;
};

/// Trains `kSavedAt` steps, saves into `folder`, trains 10 more; the losses of those.
std::vector<double> save_and_go_on(const Course& course, const std::string& folder) {
  std::vector<double> losses;
  comm::run_thread_group(course.ranks, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Trainer trainer(world, course.recipe);
    trainer.train(0, kSavedAt);
    CheckpointWriter writer(world, {.folder = folder, .async = true});
    CheckpointInfo info = sample_info(kSavedAt);
    info.recipe = config::to_yaml(course.recipe);
    writer.save(trainer.state(), info);
    const auto after = trainer.train(kSavedAt, kSavedAt + 10);
    writer.finish();
    if (world.rank() == 0) losses = after;
  });
  return losses;
}

std::vector<double> load_and_go_on(const Course& course, const std::string& path) {
  std::vector<double> losses;
  comm::run_thread_group(course.ranks, [&](comm::Communicator& world) {
    vitrail::testing::use_one_thread();
    Trainer trainer(world, course.recipe);
    trainer.load(path);
    const auto after = trainer.train(kSavedAt, kSavedAt + 10);
    if (world.rank() == 0) losses = after;
  });
  return losses;
}

TEST(CheckpointEngine, EachOfSixLayoutsGoesOnFromEachOther) {
  const TemporaryFolder folder;
  double worst_next = 0, worst_ten = 0;
  for (const Course& from : courses()) {
    const std::string where = folder / from.name;
    const std::vector<double> expected = save_and_go_on(from, where);
    for (const Course& to : courses()) {
      const std::vector<double> got = load_and_go_on(to, where + "/step-00000003");
      ASSERT_EQ(got.size(), expected.size());
      double ten = 0;
      for (size_t i = 0; i < got.size(); ++i)
        ten = std::max(ten, std::abs(got[i] - expected[i]) / std::abs(expected[i]));
      const double next = std::abs(got[0] - expected[0]) / std::abs(expected[0]);
      // The weights are the same bits; sums over ranks round in another order (fp32, 1.2e-7 each).
      EXPECT_LE(next, 1e-6) << from.name << " to " << to.name;
      EXPECT_LE(ten, 1e-5) << from.name << " to " << to.name;
      if (std::string(from.name) == to.name) {
        EXPECT_EQ(ten, 0.0) << "resuming changes nothing";
      }
      worst_next = std::max(worst_next, next), worst_ten = std::max(worst_ten, ten);
    }
  }
  std::printf("36 pairs: next loss within %.2g, ten within %.2g\n", worst_next, worst_ten);
}

TEST(CheckpointEngine, TheCheckpointIsTheSameWhateverLayoutLoadedAndSavedItAgain) {
  const TemporaryFolder folder;
  save_and_go_on(courses()[0], folder / "first");
  const CheckpointReader first(folder / "first/step-00000003");
  for (const Course& course : courses()) {
    const std::string where = folder / course.name;
    comm::run_thread_group(course.ranks, [&](comm::Communicator& world) {
      vitrail::testing::use_one_thread();
      Trainer trainer(world, course.recipe);
      trainer.load(first.path());
      CheckpointWriter writer(world, {.folder = where, .async = false});
      writer.save(trainer.state(), sample_info(kSavedAt));
    });
    const CheckpointReader again(where + "/step-00000003");
    EXPECT_EQ(again.names(), first.names());
    for (const std::string& name : first.names())
      EXPECT_TRUE(bits_equal(first.read(name), again.read(name))) << course.name << " " << name;
  }
}

/// What `vitrail checkpoint reshard` writes for a layout is cut as that layout's ranks keep it.
TEST(CheckpointEngine, ReshardedForALayoutEachRankReadsWhatItKeepsAndNothingElse) {
  const TemporaryFolder folder;
  save_and_go_on(courses()[0], folder / "first");
  const CheckpointReader first(folder / "first/step-00000003");
  for (const Course& course : courses()) {
    const Resharded done =
        reshard_checkpoint(first, folder / course.name, plan_of(first, course.recipe, 0));
    EXPECT_EQ(done.files, course.ranks);
    EXPECT_EQ(why_invalid(done.path, true), "");
    const CheckpointReader again(done.path);
    EXPECT_EQ(again.names(), first.names());
    for (const std::string& name : first.names())
      EXPECT_TRUE(bits_equal(first.read(name), again.read(name))) << course.name << " " << name;
    comm::run_thread_group(course.ranks, [&](comm::Communicator& world) {
      vitrail::testing::use_one_thread();
      Trainer trainer(world, course.recipe);
      EXPECT_EQ(trainer.load(done.path), trainer.kept_bytes()) << course.name;
    });
  }
}

TEST(CheckpointEngine, ReshardingNeedsANumberOfRanksForAnAxisLeftOpen) {
  const TemporaryFolder folder;
  save_and_go_on(courses()[0], folder / "first");
  const CheckpointReader first(folder / "first/step-00000003");
  config::Recipe recipe = recipe_of("zero3", -1, 2, 1, 2);
  EXPECT_EQ(plan_of(first, recipe, 0).ranks, 4) << "one replica";
  EXPECT_EQ(plan_of(first, recipe, 8).ranks, 8);
  EXPECT_THROW(plan_of(first, recipe, 6), core::ConfigError);
  recipe.parallel.shard.reset();
  EXPECT_EQ(plan_of(first, recipe, 6).ranks, 6);
  EXPECT_THROW(plan_of(first, recipe, 0), core::ConfigError);
}

TEST(CheckpointEngine, CollectGivesTheWeightsThatTheCheckpointHolds) {
  const TemporaryFolder folder;
  for (const Course& course : courses()) {
    const std::string where = folder / course.name;
    std::map<std::string, at::Tensor> weights, averages;
    comm::run_thread_group(course.ranks, [&](comm::Communicator& world) {
      vitrail::testing::use_one_thread();
      Trainer trainer(world, course.recipe);
      trainer.train(0, 2);
      CheckpointWriter writer(world, {.folder = where, .async = false});
      writer.save(trainer.state(), sample_info(2));
      const parallel::Layout& layout = trainer.engine().units().layout();
      parallel::collect(
          layout, trainer.engine().units().master(), trainer.mesh(),
          {{}, [&](const std::string& name, const at::Tensor& whole) { weights[name] = whole; }});
      parallel::collect(
          layout, trainer.optimizer().ema(), trainer.mesh(),
          {{}, [&](const std::string& name, const at::Tensor& whole) { averages[name] = whole; }});
    });
    for (const auto& [average, found] : {std::pair{false, &weights}, std::pair{true, &averages}}) {
      const auto expected = read_parameters(where, average);
      EXPECT_EQ(found->size(), expected.size()) << course.name;
      for (const auto& [name, tensor] : expected)
        EXPECT_TRUE(bits_equal(found->at(name), tensor)) << course.name << " " << name;
    }
  }
}

}  // namespace

}  // namespace vitrail::train
