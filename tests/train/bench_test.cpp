#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/train/bench_optimizer.h"
#include "vitrail/train/bench_step.h"
#include "vitrail/train/bench_timer.h"
#include <nlohmann/json.hpp>

namespace vitrail::train {
namespace {

config::Recipe tiny_recipe(const config::Model& model) {
  config::Recipe recipe;
  recipe.model = model;
  recipe.run.device.value = "cpu";
  recipe.data.batch_size = 8;
  return recipe;
}

TEST(BenchOptimizer, ChecksItsAnswerAndReportsRates) {
  const OptimizerBench result = bench_optimizer(100'003, at::kCPU, /*bf16=*/true);
  EXPECT_LE(result.worst_ulp, 2);
  EXPECT_GT(result.ms, 0.0);
  EXPECT_GT(result.copy_ratio, 0.0);
  EXPECT_GT(result.aten_ratio, 0.0);
  EXPECT_EQ(result.moments_differ, 0);
  EXPECT_GT(result.fp8_moments_ms, 0.0);
  EXPECT_EQ(nlohmann::json::parse(to_json(result)).at("count"), 100'003);
}

TEST(BenchStep, GivesThePromisedKeys) {
  const StepBench result =
      bench_step({tiny_recipe(testing::tiny_vit()), {}}, *comm::self_communicator(), "tiny.yaml",
                 {.steps = 3, .warmup = 1, .ceiling = true, .ceiling_seconds = 0.05});
  const auto object = nlohmann::json::parse(to_json(result));
  for (const char* key :
       {"recipe", "preset", "device", "batch_size", "tokens", "precision", "engine", "ms",
        "images_per_second", "tokens_per_second", "model_tflops", "mfu", "peak_tflops",
        "peak_memory_gib", "kernel_ceiling_ms", "ceiling_ratio"})
    EXPECT_TRUE(object.contains(key)) << key;
  EXPECT_LE(object["ms"]["p10"], object["ms"]["median"]);
  EXPECT_LE(object["ms"]["median"], object["ms"]["p90"]);
  EXPECT_TRUE(object["mfu"].is_null());  // no peak is known for a CPU
  EXPECT_GT(object["kernel_ceiling_ms"], 0.0);
  EXPECT_NEAR(object["images_per_second"].get<double>(), 8e3 / object["ms"]["median"].get<double>(),
              1e-6);
}

TEST(BenchStep, MeasuresBothTrunksOfAMaskedAutoencoder) {
  config::Recipe recipe = tiny_recipe(testing::tiny_mae());
  recipe.train.precision.value = "bf16";
  recipe.train.recompute.value = "block";
  const StepBench result =
      bench_step({recipe, {}}, *comm::self_communicator(), "mae.yaml", {.steps = 2, .warmup = 1});
  EXPECT_EQ(result.precision, "bf16");
  EXPECT_FALSE(result.kernel_ceiling_ms.has_value());
}

TEST(PeakRate, IsKnownByTheNameOfTheGpu) {
  EXPECT_EQ(peak_bf16_tflops("NVIDIA H200"), 989.0);
  EXPECT_EQ(peak_bf16_tflops("NVIDIA H100 80GB HBM3"), 989.0);
  EXPECT_FALSE(peak_bf16_tflops("AMD EPYC").has_value());
}

TEST(Quantile, TakesTheNearestRank) {
  EXPECT_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(quantile({3, 1, 2}, 0.9), 3);
  EXPECT_EQ(quantile({3, 1, 2}, 0.1), 1);
  EXPECT_EQ(quantile({}, 0.5), 0);
}

}  // namespace
}  // namespace vitrail::train
