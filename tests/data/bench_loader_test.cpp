#include "vitrail/data/bench_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include <nlohmann/json.hpp>

namespace vitrail::data {
namespace {

using ::testing::HasSubstr;

config::Recipe recipe_of(const config::Source& source, int64_t batch) {
  config::Recipe recipe;
  recipe.model = test::model_of({8, 8}, 3, 2);
  recipe.data.batch_size = batch;
  recipe.data.workers = 1;
  recipe.data.sources = {source};
  return recipe;
}

LoaderBench bench(const config::Recipe& recipe, LoaderBenchOptions options) {
  return bench_loader(recipe, "test", loader_options(recipe, 0, 1, false), options);
}

TEST(BenchLoader, CountsImagesAndBytesOfEachRun) {
  const config::Recipe recipe = recipe_of(test::random_source(40), 10);
  const LoaderBench result = bench(recipe, {.runs = 2, .batches = 3, .warmup = 1, .stages = 0});
  ASSERT_EQ(result.runs.size(), 2u);
  for (const LoaderRun& run : result.runs) {
    EXPECT_EQ(run.images, 30);
    // Per image 3 * 8 * 8 floats, a label and a sample id.
    EXPECT_EQ(run.bytes_delivered, 30 * (3 * 8 * 8 * 4 + 8 + 8));
    EXPECT_GT(run.seconds, 0);
    EXPECT_LE(run.wait_share(), 1.0);
  }
  EXPECT_EQ(result.samples, 40);
  EXPECT_EQ(result.workers, 1);
  EXPECT_FALSE(result.stages);
}

TEST(BenchLoader, ReadsTheFilesOfTheBatchesAndTimesTheirStages) {
  const test::TemporaryFolder folder;
  for (int i = 0; i < 12; ++i)
    test::write_image(folder.path(fmt::format("{}/{}.jpg", i % 2 ? "a" : "b", i)), {40, 50}, 3,
                      static_cast<uint64_t>(i));
  const auto least = static_cast<int64_t>(std::filesystem::file_size(folder.path("b/0.jpg"))) / 2;
  const config::Recipe recipe = recipe_of(test::folder_source(folder.path()), 4);
  const LoaderBench result = bench(recipe, {.runs = 1, .batches = 6, .warmup = 0, .stages = 10});
  // The workers have read ahead by at most prefetch batches, before and after.
  EXPECT_GE(result.runs[0].bytes_read, least * 4 * (6 - recipe.data.prefetch));
  ASSERT_TRUE(result.stages);
  EXPECT_GE(result.stages->samples, 10);
  EXPECT_GT(result.stages->read_us, 0);
  EXPECT_GT(result.stages->decode_us, 0);
  EXPECT_GT(result.stages->transform_us, 0);
}

TEST(BenchLoader, GivesEveryBatchToTheCaller) {
  const config::Recipe recipe = recipe_of(test::random_source(40), 10);
  int64_t images = 0, settled = 0;
  LoaderBenchOptions options{.runs = 2, .batches = 3, .warmup = 2, .stages = 0};
  options.deliver = [&](const Batch& batch) { images += batch.size(); };
  options.settle = [&] { ++settled; };
  bench(recipe, options);
  EXPECT_EQ(images, 10 * (1 + 2 + 2 * 3));  // the first, the warm-up, the runs
  EXPECT_EQ(settled, 3);
}

TEST(BenchLoader, TheMedianIsTheMiddleRun) {
  LoaderBench result;
  for (const int64_t images : {300, 100, 200}) {
    LoaderRun run;
    run.images = images;
    run.seconds = 1;
    result.runs.push_back(run);
  }
  EXPECT_EQ(result.median().images, 200);
}

TEST(BenchLoader, JsonHoldsRatesRunsAndStages) {
  const config::Recipe recipe = recipe_of(test::random_source(40), 10);
  const LoaderBench result = bench(recipe, {.runs = 1, .batches = 2, .warmup = 0, .stages = 4});
  const auto json = nlohmann::json::parse(to_json(result));
  for (const char* key : {"recipe", "machine", "cores", "workers", "batch_size", "samples",
                          "images_per_second", "gb_read_per_second", "gb_delivered_per_second",
                          "wait_share", "cpu_us_per_image", "runs", "stages"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["runs"].size(), 1u);
  EXPECT_GT(json["images_per_second"], 0);
  EXPECT_THAT(describe(result), HasSubstr("images/s"));
}

TEST(BenchLoader, RefusesRunsOfNothing) {
  const config::Recipe recipe = recipe_of(test::random_source(40), 10);
  EXPECT_THROW(bench(recipe, {.runs = 0}), core::ConfigError);
  EXPECT_THROW(bench(recipe, {.batches = 0, .seconds = 0}), core::ConfigError);
}

}  // namespace
}  // namespace vitrail::data
