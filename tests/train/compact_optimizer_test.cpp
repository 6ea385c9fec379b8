// AdamW with moments of two bytes or one: beside fp32, over ranks, and through checkpoints.

#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "checkpoint_sample.h"
#include "tests/parallel/ranks.h"
#include "vitrail/train/step.h"

namespace vitrail::train {
namespace {

using testing::samples;

constexpr const char* kStates[] = {"bf16", "fp8"};

config::Recipe recipe_of(const char* state, const char* strategy = "none", int64_t replicate = 1,
                         int64_t shard = 1, int64_t tensor = 1) {
  config::Recipe recipe = testing::tiny_recipe(testing::tiny_vit());
  recipe.train.optimizer.state.value = state;
  recipe.train.ema_decay = 0.9;
  recipe.parallel.strategy.value = strategy;
  recipe.parallel.replicate = replicate;
  recipe.parallel.shard = shard;
  recipe.parallel.tensor = tensor;
  return recipe;
}

/// One rank's model, engine and optimizer.
struct Rank {
  config::Recipe recipe;
  comm::Mesh mesh;
  std::shared_ptr<models::Model> model;
  parallel::Engine engine;
  Optimizer optimizer;

  Rank(comm::Communicator& world, const config::Recipe& options, at::ScalarType dtype = at::kFloat)
      : recipe(options),
        mesh(world, testing::ranks::mesh_shape(options.parallel)),
        model(models::make_model(options.model, 1)),
        engine(*model, recipe, mesh, at::kCPU, dtype),
        optimizer(engine, options.train.optimizer, options.train.ema_decay) {
    testing::use_one_thread();
  }

  /// Gradients that are a function of parameter, element and step, whoever keeps them.
  void make_gradients(uint32_t step) {
    engine.units().gradient().zero_();
    for (const parallel::KeptRun& run : engine.units().layout().kept_runs()) {
      float* out = engine.units().gradient().data_ptr<float>() + run.kept_offset;
      const auto parameter = static_cast<uint64_t>(std::hash<std::string>()(run.slot->name) >> 17);
      for (int64_t i = 0; i < run.count; ++i)
        out[i] = 0.01f * core::normal({.seed = 5, .step = step}, parameter,
                                      static_cast<uint32_t>(run.start + i));
    }
  }
  void update(int64_t first, int64_t last) {
    for (int64_t step = first; step < last; ++step) {
      make_gradients(static_cast<uint32_t>(step));
      optimizer.step(3e-3, step + 1, optimizer.gradient_norm(0.0));
    }
  }
  /// Master weights and optimizer state, whole.
  void collect(std::map<std::string, at::Tensor>& wholes, std::mutex& mutex) {
    std::vector<Optimizer::State> all = optimizer.states();
    all.push_back({"master", engine.units().master()});
    const std::lock_guard lock(mutex);
    for (const Optimizer::State& state : all)
      for (const parallel::KeptRun& run : engine.units().layout().kept_runs()) {
        at::Tensor& whole = wholes[state.name + "/" + run.slot->name];
        if (!whole.defined()) whole = at::zeros({run.slot->count}, at::kFloat);
        whole.narrow(0, run.start, run.count)
            .copy_(state.arena.narrow(0, run.kept_offset, run.count));
      }
  }
};

std::map<std::string, at::Tensor> after_updates(int ranks, const config::Recipe& recipe,
                                                int64_t updates) {
  std::map<std::string, at::Tensor> wholes;
  std::mutex mutex;
  comm::run_thread_group(ranks, [&](comm::Communicator& world) {
    const at::NoGradGuard no_grad;
    Rank rank(world, recipe);
    rank.update(0, updates);
    rank.collect(wholes, mutex);
  });
  return wholes;
}

void expect_equal(const std::map<std::string, at::Tensor>& a,
                  const std::map<std::string, at::Tensor>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (const auto& [name, values] : a) ASSERT_TRUE(values.equal(b.at(name))) << what << " " << name;
}

TEST(CompactOptimizer, RanksThatDivideTheStateRoundAsOneRank) {
  for (const char* state : kStates) {
    const auto one = after_updates(1, recipe_of(state), 5);
    EXPECT_GT(testing::largest(one.at("exp_avg_sq/blocks.0.attn.qkv.weight")), 0.0);
    expect_equal(after_updates(2, recipe_of(state, "ddp", 2), 5), one, "ddp");
    expect_equal(after_updates(2, recipe_of(state, "zero1", 1, 2), 5), one, "zero1");
    expect_equal(after_updates(4, recipe_of(state, "zero3", 1, 4), 5), one, "zero3");
    expect_equal(after_updates(4, recipe_of(state, "hybrid", 2, 2), 5), one, "hybrid");
  }
}

/// Parameters that every tensor rank holds stay the same on all of them.
TEST(CompactOptimizer, TensorRanksRoundWhatTheyAllHoldAlike) {
  for (const char* state : kStates) {
    std::vector<std::map<std::string, at::Tensor>> of_rank(2);
    std::mutex mutex;
    comm::run_thread_group(2, [&](comm::Communicator& world) {
      const at::NoGradGuard no_grad;
      Rank rank(world, recipe_of(state, "none", 1, 1, 2));
      rank.update(0, 4);
      rank.collect(of_rank[static_cast<size_t>(world.rank())], mutex);
    });
    for (const char* name : {"master/blocks.0.norm1.weight", "exp_avg/blocks.0.norm1.weight",
                             "exp_avg_sq/pos_embed", "master/head.weight"})
      EXPECT_TRUE(of_rank[0].at(name).equal(of_rank[1].at(name))) << name;
  }
}

/// A step loop without clipping.
std::vector<double> losses(const config::Recipe& recipe, int64_t steps) {
  const auto alone = comm::self_communicator();
  Rank rank(*alone, recipe);
  Step step(*rank.model, rank.engine, rank.optimizer,
            Schedule(recipe.train.schedule, recipe.train.optimizer.lr, steps), recipe.train, 7);
  std::vector<double> found;
  for (int64_t s = 0; s < steps; ++s) found.push_back(step.run(samples(s % 8 * 24, 24)).loss());
  return found;
}

TEST(CompactOptimizer, LossesFollowThoseOfFp32) {
  config::Recipe recipe = recipe_of("fp32");
  recipe.model.drop_path_rate = 0.0;
  recipe.train.optimizer.lr = 3e-3;
  const std::vector<double> whole = losses(recipe, 80);
  ASSERT_LT(whole.back(), 0.8 * whole.front()) << "nothing is learnt";
  for (const char* state : kStates) {
    recipe.train.optimizer.state.value = state;
    const std::vector<double> compact = losses(recipe, 80);
    double most = 0, mean = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      const double difference = std::abs(compact[i] - whole[i]) / whole[i];
      most = std::max(most, difference), mean += difference / static_cast<double>(whole.size());
    }
    // A moment in bf16 has 8 bits, in fp8 4 (of its block's largest value): an update errs by about 0.2 and 3 %, each element
    // on its own. In the first steps, where the loss still leaps, a single one may be apart by more: seen 0.026 of both.
    const double allowed = std::string(state) == "bf16" ? 0.005 : 0.02;
    std::printf(
        "%s: loss %.4f, fp32 %.4f; apart on average %.2g (allowed %.2g), at most %.2g (allowed "
        "0.1)\n",
        state, compact.back(), whole.back(), mean, allowed, most);
    EXPECT_LE(mean, allowed);
    EXPECT_LE(most, 0.1);
    EXPECT_GT(most, 0.0) << "the state is fp32 after all";
  }
}

TEST(CompactOptimizer, GoesOnFromItsStateAsIfItHadNeverStopped) {
  const auto alone = comm::self_communicator();
  const at::NoGradGuard no_grad;
  for (const char* state : kStates) {
    Rank whole(*alone, recipe_of(state)), first(*alone, recipe_of(state)),
        second(*alone, recipe_of(state));
    whole.update(0, 6);
    first.update(0, 3);
    second.engine.units().master().copy_(first.engine.units().master());
    const auto saved = first.optimizer.states(), to = second.optimizer.states();
    ASSERT_EQ(saved.size(), 3u);  // two moments and the average
    for (size_t i = 0; i < saved.size(); ++i) to[i].arena.copy_(saved[i].arena);
    second.optimizer.restored();
    second.update(3, 6);
    std::mutex mutex;
    std::map<std::string, at::Tensor> expected, found;
    whole.collect(expected, mutex);
    second.collect(found, mutex);
    expect_equal(found, expected, state);
  }
}

TEST(CompactOptimizer, ACheckpointOfOneLayoutGoesOnUnderAnother) {
  const TemporaryFolder folder;
  for (const char* state : kStates) {
    const auto expected = after_updates(1, recipe_of(state), 6);
    const std::string where = folder / state;
    comm::run_thread_group(2, [&](comm::Communicator& world) {
      const at::NoGradGuard no_grad;
      Rank rank(world, recipe_of(state, "ddp", 2));
      rank.update(0, 3);
      CheckpointWriter writer(world, {.folder = where, .async = true});
      writer.save(state_pieces(rank.engine.units(), rank.optimizer, parallel::place_of(rank.mesh)),
                  sample_info(3));
      rank.update(3, 4);  // what is saved is that of three updates
      writer.finish();
    });
    std::map<std::string, at::Tensor> found;
    std::mutex mutex;
    comm::run_thread_group(4, [&](comm::Communicator& world) {
      const at::NoGradGuard no_grad;
      Rank rank(world, recipe_of(state, "zero3", 1, 4));
      CheckpointReader(where + "/step-00000003")
          .load(state_pieces(rank.engine.units(), rank.optimizer, parallel::place_of(rank.mesh)),
                world);
      rank.optimizer.restored();
      rank.update(3, 6);
      rank.collect(found, mutex);
    });
    expect_equal(found, expected, state);
  }
}

TEST(CompactOptimizer, LayerDecayChangesRatesAndNothingElse) {
  const auto alone = comm::self_communicator();
  const at::NoGradGuard no_grad;
  for (const char* state : kStates) {
    config::Recipe by_layer = recipe_of(state);
    by_layer.train.optimizer.layer_decay = 0.5;
    Rank plain(*alone, recipe_of(state)), decayed(*alone, by_layer);
    plain.update(0, 2), decayed.update(0, 2);
    const auto a = plain.optimizer.states(), b = decayed.optimizer.states();
    EXPECT_TRUE(a[0].arena.equal(b[0].arena));
    EXPECT_TRUE(a[1].arena.equal(b[1].arena));
    EXPECT_FALSE(plain.engine.units().master().equal(decayed.engine.units().master()));
  }
}

TEST(CompactOptimizer, ANonFiniteGradientChangesNothing) {
  const auto alone = comm::self_communicator();
  const at::NoGradGuard no_grad;
  Rank rank(*alone, recipe_of("fp8"), at::kBFloat16);
  rank.update(0, 2);
  const at::Tensor master = rank.engine.units().master().clone(),
                   weights = rank.engine.units().weights().clone();
  const auto before = rank.optimizer.states();
  rank.engine.units().gradient().data_ptr<float>()[5] = INFINITY;
  rank.optimizer.step(3e-3, 3, rank.optimizer.gradient_norm(1.0));
  EXPECT_TRUE(rank.engine.units().master().equal(master));
  EXPECT_TRUE(rank.engine.units().weights().equal(weights));
  const auto after = rank.optimizer.states();
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(after[i].arena.equal(before[i].arena)) << before[i].name;
}

TEST(CompactOptimizer, RefusesWhatHasNoSuchState) {
  const auto alone = comm::self_communicator();
  config::Recipe descent = recipe_of("bf16"), away = recipe_of("fp8");
  descent.train.optimizer.kind.value = "sgd";
  away.parallel.offload.value = "optimizer";
  for (const config::Recipe& recipe : {descent, away})
    EXPECT_THAT([&] { Rank(*alone, recipe); },
                ::testing::ThrowsMessage<core::ConfigError>(
                    ::testing::HasSubstr("needs train.optimizer.kind=adamw and "
                                         "parallel.offload=none")));
}

}  // namespace
}  // namespace vitrail::train
