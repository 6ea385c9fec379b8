// Every way to divide weights, gradients and optimizer state over data ranks trains as one rank does.

#include <ATen/ops/clamp.h>
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "tests/models/detection_cases.h"
#include "tests/parallel/ranks.h"
#include "vitrail/parallel/gather.h"

namespace vitrail::testing {
namespace {

/// fp32 sums in another order, 1.2e-7 a rounding: worst seen 1e-7.
constexpr double kFirstStep = 1e-6;
/// Ten updates carry the difference on: Adam divides by the root of the second moment, which is near zero for some
/// elements. Worst seen 1.5e-7.
constexpr double kTenSteps = 1e-5;

config::Model with_draws(config::Model model) {
  model.drop_path_rate = 0.3;
  model.proj_drop_rate = 0.1;
  return model;
}

config::Model unetr() {
  config::Model model = tiny_vit();
  model.kind.value = "unetr";
  model.num_classes = 3;
  model.class_token = false;
  model.feature_size = 4;
  model.decoder.value = "conv";
  model.loss.value = "dice_ce";
  return model;
}

config::Model diffusion() {
  config::Model model = tiny_vit();
  model.kind.value = "diffusion";
  model.class_token = false;
  model.pos_embed.value = "sincos";
  model.decoder_embed_dim = 16;
  model.decoder_depth = 2;
  model.decoder_num_heads = 2;
  model.num_timesteps = 50;
  model.loss.value = "mse";
  return model;
}

/// Images whose every pixel has a class.
data::Batch labelled_pixels(int64_t first, int64_t count) {
  data::Batch batch = samples(first, count);
  batch.label = ((batch.image.select(1, 0) + 1.0) * 1.5).to(at::kLong).clamp(0, 2);
  return batch;
}

struct Layout {
  std::string name;
  int ranks;
  std::function<void(config::Parallel&)> apply;
};

void PrintTo(const Layout& layout, std::ostream* out) { *out << layout.name; }

config::Recipe laid_out(config::Recipe recipe, const Layout& layout) {
  layout.apply(recipe.parallel);
  return recipe;
}

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const int ranks : {2, 4})
    for (const char* word : {"ddp", "zero1", "zero2", "zero3"})
      all.push_back({fmt::format("{}_{}", word, ranks), ranks,
                     [word](config::Parallel& parallel) { parallel.strategy.value = word; }});
  const auto add = [&](const char* name, int ranks, const char* word, int64_t shard,
                       bool all_ranks) {
    all.push_back({name, ranks, [=](config::Parallel& parallel) {
                     parallel.strategy.value = word;
                     parallel.shard = shard;
                     if (all_ranks) parallel.shard_optimizer.value = "all";
                   }});
  };
  add("hybrid_2_of_4", 4, "hybrid", 2, false);
  add("hybrid_1_of_2", 2, "hybrid", 1, false);
  add("zero1_2_of_4", 4, "zero1", 2, false);
  add("zero2_2_of_4", 4, "zero2", 2, false);
  add("hybrid_2_of_4_optimizer_over_all", 4, "hybrid", 2, true);
  add("zero1_2_of_4_optimizer_over_all", 4, "zero1", 2, true);
  add("zero2_2_of_4_optimizer_over_all", 4, "zero2", 2, true);
  add("zero3_1_of_2_optimizer_over_all", 2, "zero3", 1, true);
  return all;
}

class Strategies : public ::testing::TestWithParam<Layout> {
 protected:
  /// Ten steps and an evaluation with average and weights, against one rank.
  void expect_equal(const config::Recipe& recipe, RanksOptions options = {}) {
    options.keep_weights = options.evaluate = true;
    const RanksResult one = run_ranks(1, alone(recipe), 10, options);
    const RanksResult many = run_ranks(GetParam().ranks, laid_out(recipe, GetParam()), 10, options);
    const std::string name = GetParam().name + " " + recipe.model.kind.value;
    EXPECT_LE(compare(name + ", first loss", {many.losses[0]}, {one.losses[0]}), kFirstStep);
    EXPECT_LE(compare(name + ", losses", many.losses, one.losses), kTenSteps);
    EXPECT_LE(compare(name + ", norms", many.norms, one.norms), 1e-5);  // worst seen 2e-7
    // A weight moves by 3e-3 a step whatever its gradient, so one with a gradient near zero may go elsewhere: worst seen 3e-4.
    EXPECT_LE(compare_weights(name, many.weights, one.weights), 2e-3);
  }
};

TEST_P(Strategies, TrainVitAsOneRank) {
  config::Recipe recipe = tiny_recipe(with_draws(tiny_vit()));
  recipe.train.micro_batches = 3;
  recipe.train.optimizer.layer_decay = 0.8;
  expect_equal(recipe);
}

TEST_P(Strategies, TrainMaeAsOneRank) {
  config::Recipe recipe = tiny_recipe(tiny_mae());
  recipe.train.recompute.value = "block";
  expect_equal(recipe);
}

TEST_P(Strategies, TrainUnetrAsOneRank) {
  RanksOptions options;
  options.global_batch = 8;
  options.samples = labelled_pixels;
  expect_equal(tiny_recipe(unetr()), options);
}

TEST_P(Strategies, TrainDetectionAsOneRank) {
  config::Model model = models::tiny_detection("grid", "focal");
  model.image_size = {8, 8}, model.patch_size = 4, model.in_channels = 3;
  model.detection.num_queries = 3;
  RanksOptions options;
  options.samples = [model](int64_t first, int64_t count) {
    data::Batch batch = samples(first, count);
    batch.label = at::Tensor();
    models::add_boxes(batch, model);
    return batch;
  };
  expect_equal(tiny_recipe(model), options);
}

TEST_P(Strategies, TrainDiffusionAsOneRank) {
  config::Recipe recipe = tiny_recipe(diffusion());
  recipe.train.micro_batches = 2;
  expect_equal(recipe);
}

/// bf16 keeps 8 bits: ranks of a strategy that adds other numbers first differ by that in gradients, and by a few times
/// less in losses. Worst seen 5e-4.
TEST_P(Strategies, TrainInBf16CloseToOneRank) {
  for (const char* precision : {"fp32", "bf16"}) {
    config::Recipe recipe = tiny_recipe(with_draws(tiny_vit()));
    recipe.train.precision.value = "bf16";
    recipe.train.micro_batches = 2;
    RanksOptions options;
    options.evaluate = true;
    const auto one = losses_of(1, alone(recipe), 6, options);
    recipe.parallel.reduce_precision.value = precision;
    const auto many = losses_of(GetParam().ranks, laid_out(recipe, GetParam()), 6, options);
    const std::string name = GetParam().name + " bf16, reduced in " + precision;
    EXPECT_LE(compare(name, many, one), 3e-3);
  }
}

/// Gradients are fp32 from the first addition on, so ranks add the very numbers that one rank adds over micro-batches, in
/// the same order. Seen: every bit of weights and norms; losses, a mean of means, 1.7e-7.
TEST_P(Strategies, RanksAddInBf16WhatMicroBatchesOfOneRankAdd) {
  config::Recipe recipe = tiny_recipe(with_draws(tiny_vit()));
  recipe.train.precision.value = "bf16";
  config::Recipe one = alone(recipe);
  one.train.micro_batches = GetParam().ranks;
  RanksOptions options;
  options.evaluate = options.keep_weights = true;
  const RanksResult expected = run_ranks(1, one, 10, options);
  const RanksResult many = run_ranks(GetParam().ranks, laid_out(recipe, GetParam()), 10, options);
  const std::string name = GetParam().name + " bf16 against micro-batches";
  EXPECT_LE(compare(name + ", losses", many.losses, expected.losses), 1e-6);
  EXPECT_EQ(compare(name + ", norms", many.norms, expected.norms), 0.0);
  EXPECT_EQ(compare_weights(name, many.weights, expected.weights), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Strategies, ::testing::ValuesIn(layouts()),
                         [](const auto& test) { return test.param.name; });

TEST(Strategies, ModelsWithoutValuesStartLikeOthers) {
  for (const config::Model& model : {tiny_vit(), tiny_mae()}) {
    config::Recipe recipe = tiny_recipe(model);
    const auto one = losses_of(1, recipe, 2);
    recipe.parallel.strategy.value = "zero3";
    RanksOptions options;
    options.deferred = true;
    EXPECT_LE(compare("zero3, deferred", losses_of(2, recipe, 2, options), one), kFirstStep);
  }
}

TEST(Strategies, PrefetchChangesNoNumbers) {
  for (const char* precision : {"fp32", "bf16"}) {
    config::Recipe recipe = tiny_recipe(with_draws(tiny_vit()));
    recipe.train.micro_batches = 2;
    recipe.train.precision.value = precision;
    recipe.parallel.strategy.value = "zero3";
    const auto expected = losses_of(2, recipe, 3);
    for (const char* policy : {"none", "post", "pre"})
      for (const bool limit : {true, false})
        for (const int64_t depth : {0, 1, 2, 7})
          for (const int64_t persist : {int64_t{0}, int64_t{1} << 40}) {
            recipe.parallel.prefetch.value = policy;
            recipe.parallel.limit_all_gathers = limit;
            recipe.parallel.prefetch_depth = depth;
            recipe.parallel.persist_below = persist;
            EXPECT_EQ(losses_of(2, recipe, 3), expected)
                << precision << " " << policy << " " << limit << " " << depth << " " << persist;
          }
  }
}

/// Bytes of distinct memory behind what engine and optimizer hold between steps.
int64_t bytes_held(parallel::Engine& engine, train::Optimizer& optimizer) {
  parallel::UnitSet& units = engine.units();
  std::vector<at::Tensor> all{units.weights(),        units.whole_gradients(), units.master(),
                              units.gradient(),       units.decay_mask(),      engine.counted(),
                              units.staying_slices(), units.slice_gradient(0)};
  for (const auto& state : optimizer.states()) all.push_back(state.arena);
  std::map<const void*, size_t> storages;
  for (const at::Tensor& tensor : all)
    if (tensor.defined()) storages[tensor.storage().data()] = tensor.storage().nbytes();
  int64_t sum = 0;
  for (const auto& [data, bytes] : storages) sum += static_cast<int64_t>(bytes);
  return sum;
}

TEST(Strategies, Bf16KeepsSixteenBytesAParameterAndNothingTwice) {
  for (const auto& [word, ranks] : {std::pair{"none", 1}, {"ddp", 2}, {"zero1", 4}, {"zero3", 4}}) {
    config::Recipe recipe = tiny_recipe(tiny_vit());
    recipe.train.precision.value = "bf16";
    recipe.train.ema_decay = std::nullopt;
    recipe.parallel.strategy.value = word;
    RanksOptions options;
    options.at_end = [&, word = word](parallel::Engine& engine, train::Optimizer& optimizer) {
      parallel::UnitSet& units = engine.units();
      const int64_t kept = units.kept_count();
      int64_t largest = 0;
      for (const parallel::Unit& unit : units.units())
        if (unit.stack) largest = std::max(largest, unit.count);
      // Master, gradient and two moments of what is kept; bf16 weights and, where others keep a part, fp32 gradients of
      // what is whole; a byte of flags for 128.
      const int64_t whole_gradients = units.is_divided() ? 4 * units.whole_gradients().numel() : 0;
      const int64_t bytes = bytes_held(engine, optimizer);
      EXPECT_EQ(bytes, 16 * kept + kept / 128 + 2 * units.weights().numel() + whole_gradients);
      const bool in_slots = std::string_view(word) == "zero3";
      EXPECT_EQ(engine.buffers().weight_slots, in_slots ? 2 * 2 * largest : 0);
      EXPECT_EQ(engine.buffers().gradient_slots, in_slots ? 2 * 4 * largest : 0);
      if (engine.groups().mesh().world().rank() == 0)
        std::printf("%s over %d ranks: %.3f bytes a kept element\n", word,
                    engine.groups().mesh().world().size(),
                    static_cast<double>(bytes - 2 * units.weights().numel() - whole_gradients) /
                        static_cast<double>(kept));
    };
    run_ranks(ranks, recipe, 1, options);
  }
}

TEST(Strategies, NormIsTheSameBitsOnAllRanks) {
  for (const char* word : {"ddp", "zero1", "hybrid"}) {
    config::Recipe recipe = tiny_recipe(tiny_vit());
    recipe.parallel.strategy.value = word;
    recipe.parallel.shard = 2;
    std::mutex mutex;
    std::vector<float> norms;
    RanksOptions options;
    options.at_end = [&](parallel::Engine&, train::Optimizer& optimizer) {
      const float norm = optimizer.gradient_norm(1.0).norm.item().toFloat();
      const std::lock_guard lock(mutex);
      norms.push_back(norm);
    };
    run_ranks(4, recipe, 2, options);
    ASSERT_EQ(norms.size(), 4u);
    EXPECT_EQ(std::ranges::count(norms, norms[0]), 4) << word;
  }
}

/// Blocks with memory for their weights, now.
int64_t blocks_in_memory(parallel::UnitSet& units) {
  int64_t count = 0;
  for (size_t u = 0; u < units.units().size(); ++u)
    if (units.weights_in_slot(u)) count += units.moving_weights(u).has_memory();
  return count;
}

struct Watch : nn::StackObserver {
  explicit Watch(parallel::UnitSet& units_) : units(units_) {}
  void before_forward(int) override { most = std::max(most, blocks_in_memory(units)); }
  void before_backward(int) override { before_forward(0); }
  parallel::UnitSet& units;
  int64_t most = 0;
};

TEST(Zero3, HoldsNoMoreBlocksThanItsSlots) {
  for (const bool limit : {true, false})
    for (const int64_t depth : {0, 1, 2})
      comm::run_thread_group(2, [&](comm::Communicator& world) {
        use_one_thread();
        config::Recipe recipe = tiny_recipe(tiny_vit());
        recipe.parallel.strategy.value = "zero3";
        recipe.parallel.prefetch_depth = depth;
        recipe.parallel.limit_all_gathers = limit;
        comm::Mesh mesh(world, ranks::mesh_shape(recipe.parallel));
        const auto model = models::make_model(recipe.model, 0);
        parallel::Engine engine(*model, recipe, mesh, at::kCPU, at::kFloat);
        parallel::UnitSet& units = engine.units();
        EXPECT_EQ(blocks_in_memory(units), 0);
        Watch watch(units);
        model->stacks()[0]->add_observer(&watch);
        units.zero_gradients();
        engine.forward_backward(samples(0, 4), 1, [](const data::Batch& batch) {
          return nn::Draws{1, 0, batch.sample_ids, true};
        });
        model->stacks()[0]->remove_observer(&watch);
        // In use, on their way, and without a limit those that stay until they are needed again.
        const int64_t allowed = limit ? depth + 1 : 2 * depth + 2;
        EXPECT_LE(watch.most, std::min<int64_t>(4, allowed)) << limit << " " << depth;
        int64_t largest = 0;
        for (const parallel::Unit& unit : units.units())
          if (unit.stack) largest = std::max(largest, unit.count);
        const int64_t slots = limit ? std::min<int64_t>(4, depth + 1) : 4;
        EXPECT_EQ(engine.buffers().weight_slots, slots * largest * 4);
        EXPECT_EQ(engine.buffers().gradient_slots, 2 * largest * 4);
        // Each block twice, less those that are still there when backward begins; each end once.
        const int64_t blocks = 4, still = std::min(blocks, depth + 1);
        EXPECT_EQ(engine.counts().gathers, 2 * blocks - still + 2) << limit << " " << depth;
      });
}

/// Gathers and reductions of one step of `micro_batches`.
parallel::Engine::Counts counts_of(const char* word, int64_t micro_batches) {
  config::Recipe recipe = tiny_recipe(tiny_vit());
  recipe.parallel.strategy.value = word;
  recipe.parallel.bucket_mib = 0.0;
  recipe.train.micro_batches = micro_batches;
  parallel::Engine::Counts counts;
  RanksOptions options;
  options.at_end = [&](parallel::Engine& engine, train::Optimizer&) {
    if (engine.groups().mesh().world().rank() == 0) counts = engine.counts();
  };
  run_ranks(2, recipe, 1, options);
  return counts;
}

TEST(Strategies, MicroBatchesCommunicateNoMoreThanTheyMust) {
  const int64_t blocks = 4, ends = 2, units = blocks + ends;
  for (const int64_t micro_batches : {1, 3}) {
    EXPECT_EQ(counts_of("ddp", micro_batches).reductions, units);
    EXPECT_EQ(counts_of("ddp", micro_batches).gathers, 0);
    EXPECT_EQ(counts_of("zero1", micro_batches).reductions, units);
    EXPECT_EQ(counts_of("zero1", micro_batches).gathers, units);
    EXPECT_EQ(counts_of("zero2", micro_batches).reductions, micro_batches * blocks + ends);
    EXPECT_EQ(counts_of("zero2", micro_batches).gathers, units);
    EXPECT_EQ(counts_of("zero3", micro_batches).reductions, micro_batches * blocks + ends);
    // Two blocks (prefetch_depth + 1) are still there at each turn between forward and backward.
    EXPECT_EQ(counts_of("zero3", micro_batches).gathers,
              2 * micro_batches * blocks - 2 * (2 * micro_batches - 1) + ends);
  }
}

TEST(Strategies, OffloadChangesNoNumbersOnTheHost) {
  const std::string folder = ::testing::TempDir();
  const auto expect_same = [&](int ranks, const char* word, int64_t shard, const char* all,
                               const char* offload, const char* precision) {
    config::Recipe recipe = tiny_recipe(with_draws(tiny_vit()));
    recipe.parallel.strategy.value = word;
    recipe.parallel.shard = shard;
    recipe.parallel.shard_optimizer.value = all;
    recipe.train.precision.value = precision;
    recipe.train.micro_batches = 2;
    recipe.train.optimizer.layer_decay = 0.8;
    RanksOptions options;
    options.evaluate = true;
    const auto expected = losses_of(ranks, recipe, 3, options);
    recipe.parallel.offload.value = offload;
    recipe.parallel.offload_folder = folder;
    EXPECT_EQ(losses_of(ranks, recipe, 3, options), expected)
        << word << " " << all << " " << offload << " " << precision;
  };
  for (const char* precision : {"fp32", "bf16"}) {
    for (const char* offload : {"optimizer", "nvme"}) {
      expect_same(2, "ddp", 1, "group", offload, precision);
      expect_same(2, "zero1", 2, "group", offload, precision);
      expect_same(4, "zero3", 2, "all", offload, precision);
    }
    expect_same(2, "zero3", 2, "group", "parameters", precision);
    expect_same(4, "hybrid", 2, "all", "parameters", precision);
  }
}

TEST(Ddp, EveryRankHoldsTheSameBits) {
  std::vector<at::Tensor> masters(3);
  RanksOptions options;
  options.at_end = [&](parallel::Engine& engine, train::Optimizer&) {
    masters[static_cast<size_t>(engine.groups().mesh().world().rank())] =
        engine.units().master().clone();
  };
  run_ranks(3, tiny_recipe(tiny_mae()), 2, options);
  EXPECT_TRUE(masters[1].equal(masters[0]));
  EXPECT_TRUE(masters[2].equal(masters[0]));
}

TEST(Ddp, ABucketHoldsAtLeastItsSize) {
  for (const double mib : {0.0, 1000.0}) {
    config::Recipe recipe = tiny_recipe(tiny_vit());
    recipe.parallel.bucket_mib = mib;
    RanksOptions options;
    options.at_end = [&](parallel::Engine& engine, train::Optimizer&) {
      const auto units = static_cast<int64_t>(engine.units().units().size());
      EXPECT_EQ(engine.counts().reductions, mib == 0.0 ? units : 1);
      // All but the embedding are on their way while backward still runs.
      EXPECT_EQ(engine.early_starts(), mib == 0.0 ? units - 1 : 0);
    };
    run_ranks(2, recipe, 1, options);
  }
}

TEST(Zero1, GathersEveryUnitOnceAStep) {
  comm::run_thread_group(2, [&](comm::Communicator& world) {
    use_one_thread();
    config::Recipe recipe = tiny_recipe(tiny_vit());
    recipe.parallel.strategy.value = "zero1";
    comm::Mesh mesh(world, ranks::mesh_shape(recipe.parallel));
    const auto model = models::make_model(recipe.model, 0);
    parallel::Engine engine(*model, recipe, mesh, at::kCPU, at::kFloat);
    train::Optimizer optimizer(engine, recipe.train.optimizer, std::nullopt);
    const auto units = static_cast<int64_t>(engine.units().units().size());
    for (int step = 1; step <= 2; ++step) {
      engine.units().zero_gradients();
      engine.forward_backward(samples(0, 6), 3, [](const data::Batch& batch) {
        return nn::Draws{1, 0, batch.sample_ids, true};
      });
      optimizer.step(1e-3, step, optimizer.gradient_norm(0.0));
      EXPECT_EQ(engine.counts().gathers, units * step);
      // All but the embedding are on their way while backward still runs.
      EXPECT_EQ(engine.early_starts(), units - 1);
    }
  });
}

TEST(Engine, BroadcastGivesThoseThatHoldTheSameTheValuesOfTheFirst) {
  for (const char* word : {"ddp", "hybrid", "zero1"}) {
    std::vector<at::Tensor> masters(4);
    comm::run_thread_group(4, [&](comm::Communicator& world) {
      use_one_thread();
      config::Recipe recipe = tiny_recipe(tiny_vit());
      recipe.parallel.strategy.value = word;
      recipe.parallel.shard = 2;
      comm::Mesh mesh(world, ranks::mesh_shape(recipe.parallel));
      const auto model =
          models::make_model(recipe.model, static_cast<uint64_t>(100 + world.rank()));
      parallel::Engine engine(*model, recipe, mesh, at::kCPU, at::kBFloat16);
      engine.broadcast_weights();
      masters[static_cast<size_t>(world.rank())] = engine.units().master().clone();
    });
    const bool divided = std::string(word) != "ddp";
    EXPECT_TRUE(masters[2].equal(masters[0])) << word;
    EXPECT_TRUE(masters[3].equal(masters[1])) << word;
    EXPECT_EQ(masters[1].equal(masters[0]), !divided) << word;
  }
}

}  // namespace
}  // namespace vitrail::testing
