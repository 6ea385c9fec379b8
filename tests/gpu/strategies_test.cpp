// Every way to divide weights, gradients and optimizer state over GPUs of one process, one thread a rank, through NCCL.

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "tests/parallel/ranks.h"

namespace vitrail::testing {
namespace {

config::Recipe recipe_of(const char* precision) {
  config::Model model = tiny_vit();
  model.embed_dim = 64;
  model.depth = 6;
  config::Recipe recipe = tiny_recipe(model);
  recipe.train.precision.value = precision;
  recipe.train.micro_batches = 2;
  recipe.train.optimizer.layer_decay = 0.8;
  return recipe;
}

RanksOptions on_gpus() {
  RanksOptions options;
  options.on_gpus = true;
  options.evaluate = true;
  return options;
}

/// fp32: sums in another order. bf16: 8 bits, gradients rounded before they are added.
double allowed(const char* precision) { return std::string(precision) == "fp32" ? 1e-5 : 2e-2; }

void expect_as_one_gpu(int ranks, const std::string& name,
                       const std::function<void(config::Parallel&)>& apply) {
  for (const char* precision : {"fp32", "bf16"}) {
    config::Recipe recipe = recipe_of(precision);
    const auto one = losses_of(1, alone(recipe), 10, on_gpus());
    apply(recipe.parallel);
    const auto many = losses_of(ranks, recipe, 10, on_gpus());
    EXPECT_LE(compare(name + " " + precision, many, one), allowed(precision));
  }
}

TEST(GpuStrategies, TrainAsOneGpu) {
  const int gpus = parallel::gpu_count() >= 4 ? 4 : parallel::gpu_count();
  if (gpus < 2) GTEST_SKIP() << "needs two GPUs";
  for (const char* word : {"ddp", "zero1", "zero2", "zero3"})
    for (const int64_t persist : {int64_t{0}, int64_t{1} << 20})
      expect_as_one_gpu(gpus, fmt::format("{}, persist_below {}", word, persist),
                        [&](config::Parallel& parallel) {
                          parallel.strategy.value = word;
                          parallel.persist_below = persist;
                        });
  if (gpus < 4) return;
  for (const char* all : {"group", "all"})
    for (const char* word : {"zero1", "zero2", "hybrid"})
      expect_as_one_gpu(gpus, std::string(word) + " of 2 x 2, optimizer over " + all,
                        [&](config::Parallel& parallel) {
                          parallel.strategy.value = word;
                          parallel.shard = 2;
                          parallel.shard_optimizer.value = all;
                        });
}

TEST(GpuStrategies, ReduceInBf16) {
  if (parallel::gpu_count() < 2) GTEST_SKIP() << "needs two GPUs";
  for (const char* word : {"ddp", "zero1", "zero3"}) {
    config::Recipe recipe = recipe_of("bf16");
    const auto one = losses_of(1, alone(recipe), 10, on_gpus());
    recipe.parallel.strategy.value = word;
    recipe.parallel.reduce_precision.value = "bf16";
    EXPECT_LE(
        compare(fmt::format("{} reduced in bf16", word), losses_of(2, recipe, 10, on_gpus()), one),
        allowed("bf16"));
  }
}

TEST(GpuStrategies, PrefetchChangesNoNumbers) {
  if (parallel::gpu_count() < 2) GTEST_SKIP() << "needs two GPUs";
  config::Recipe recipe = recipe_of("fp32");
  recipe.parallel.strategy.value = "zero3";
  const auto expected = losses_of(2, recipe, 5, on_gpus());
  for (const char* policy : {"none", "post", "pre"})
    for (const bool limit : {true, false})
      for (const int64_t depth : {0, 1, 3}) {
        recipe.parallel.prefetch.value = policy;
        recipe.parallel.limit_all_gathers = limit;
        recipe.parallel.prefetch_depth = depth;
        // Attention's backward adds in no fixed order.
        EXPECT_LE(compare(fmt::format("{} limit {} depth {}", policy, limit, depth),
                          losses_of(2, recipe, 5, on_gpus()), expected),
                  1e-5);
      }
}

TEST(GpuStrategies, OffloadTrainsAsWithout) {
  const std::string folder = ::testing::TempDir();
  const int most = std::min(2, parallel::gpu_count());
  for (int ranks = 1; ranks <= most; ++ranks)
    for (const char* word : {"ddp", "zero1", "zero3"})
      for (const char* offload : {"optimizer", "nvme", "parameters"}) {
        if (std::string(offload) == "parameters" && std::string(word) != "zero3") continue;
        expect_as_one_gpu(ranks, fmt::format("{} on {}, offload {}", word, ranks, offload),
                          [&](config::Parallel& parallel) {
                            parallel.strategy.value = word;
                            parallel.offload.value = offload;
                            parallel.offload_folder = folder;
                          });
      }
}

}  // namespace
}  // namespace vitrail::testing
