// Batches for models that learn real values, options out of a recipe, and memory.

#include <cmath>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "test_data.h"
#include "vitrail/core/error.h"
#include "vitrail/data/loader.h"
#include "vitrail/data/memory_watch.h"

namespace vitrail::data {
namespace {

using test::message_of;
using test::random_source;
using testing::HasSubstr;

config::Model regressor(const std::string& kind, std::vector<int64_t> sides, int64_t values) {
  config::Model model = test::model_of(std::move(sides), 1, values);
  model.kind.value = kind;
  model.loss.value = "mse";
  return model;
}

LoaderOptions evaluation(int64_t batch, int64_t rank = 0, int64_t ranks = 1) {
  LoaderOptions options;
  options.global_batch = batch;
  options.data_rank = rank;
  options.data_ranks = ranks;
  options.training = false;
  return options;
}

TEST(ValuesLoader, GivesTheNumbersOfEverySampleAndNanForPadding) {
  const config::Model model = regressor("vit", {4, 4}, 3);
  const std::unique_ptr<Reader> reader = open_reader(random_source(5), model);
  for (int64_t rank = 0; rank < 2; ++rank) {
    Loader loader({random_source(5)}, model, evaluation(8, rank, 2));
    const Batch batch = loader.next();
    ASSERT_EQ(batch.label.sizes(), at::IntArrayRef({3, 3}));
    ASSERT_EQ(batch.label.scalar_type(), at::kFloat);
    for (int64_t p = 0; p < 3; ++p) {
      const int64_t id = batch.sample_ids[p].item<int64_t>();
      for (int64_t v = 0; v < 3; ++v) {
        const float found = batch.label[p][v].item<float>();
        if (id < 0) {
          EXPECT_TRUE(std::isnan(found));
        } else {
          EXPECT_EQ(found, reader->describe(id).values[static_cast<size_t>(v)]);
        }
      }
    }
    EXPECT_EQ(batch.sample_ids[2].item<int64_t>(), rank == 0 ? 2 : -1);
  }
}

TEST(ValuesLoader, GivesImagesOfValuesThatFollowTheirImage) {
  const config::Model model = regressor("unetr", {4, 6}, 2);
  config::Source source = random_source(4);
  Loader loader({source}, model, evaluation(4));
  const Batch batch = loader.next();
  ASSERT_EQ(batch.label.sizes(), at::IntArrayRef({4, 2, 4, 6}));
  const Pixels values = open_reader(source, model)->decode_values(3);
  for (int64_t v = 0; v < 2; ++v)
    for (int64_t y = 0; y < 4; ++y)
      for (int64_t x = 0; x < 6; ++x)
        EXPECT_EQ(batch.label[3][v][y][x].item<float>(),
                  values.floats[static_cast<size_t>((y * 6 + x) * 2 + v)]);
}

TEST(ValuesLoader, RefusesSourcesWithoutValues) {
  const test::TemporaryFolder folder;
  test::write_image(folder.path("0.png"), {4, 4}, 1);
  const config::Source source = test::source_of("images", folder.path());
  const auto error = [&](const std::string& kind) {
    return message_of<core::ConfigError>([&] {
      Loader({source}, regressor(kind, {4, 4}, 2), evaluation(1));
    });
  };
  EXPECT_THAT(error("vit"), HasSubstr("learns numbers but the source has none"));
  EXPECT_THAT(error("unetr"), HasSubstr("learns images of values but the source has none"));
}

TEST(LoaderOptions, AreThoseOfTheRecipe) {
  config::Recipe recipe;
  recipe.data.batch_size = 24;
  recipe.data.max_broken = 0.25;
  recipe.data.read_timeout_s = 7;
  recipe.data.read_retries = 3;
  recipe.data.cache_gib = 0.5;
  recipe.data.mixing.value = "rank";
  recipe.data.ranks_per_source = {1, 2};
  recipe.data.on_error.value = "skip";
  recipe.run.seed = 9;
  const LoaderOptions training = loader_options(recipe, 1, 3, true);
  EXPECT_EQ(training.global_batch, 24);
  EXPECT_EQ(training.max_broken, 0.25);
  EXPECT_EQ(training.read_timeout_s, 7);
  EXPECT_EQ(training.read_retries, 3);
  EXPECT_EQ(training.cache_bytes, int64_t{1} << 29);
  EXPECT_EQ(training.mixing, Mixing::rank);
  EXPECT_EQ(training.ranks_per_source, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(training.seed, 9u);
  EXPECT_TRUE(training.pin_memory && training.skip_errors && training.training);
  recipe.eval.batch_size = 6;
  const LoaderOptions held_out = evaluation_options(recipe, 1, 3, false);
  EXPECT_EQ(held_out.global_batch, 6);
  EXPECT_FALSE(held_out.training || held_out.drop_last || held_out.pin_memory);
  EXPECT_EQ(held_out.mixing, Mixing::sample);
  recipe.eval.batch_size = 5;
  EXPECT_THAT(message_of<core::ConfigError>([&] { evaluation_options(recipe, 0, 3, false); }),
              HasSubstr("eval.batch_size must be a multiple of the data ranks but got 5 and 3"));
}

TEST(HostMemory, IsThatOfThisMachine) {
  const HostMemory memory = host_memory();
  EXPECT_GT(memory.rss_bytes, 1 << 20);
  EXPECT_GT(memory.available_bytes, 0);
  EXPECT_GE(memory.limit_bytes, memory.available_bytes);
  EXPECT_LT(memory.limit_bytes, int64_t{1} << 50);
}

/// Files as a system has them.
class FakeSystem : public testing::Test {
 protected:
  void SetUp() override {
    write("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n");
    write("proc/self/statm", "900 2 1 1 0 1 0\n");
  }
  void write(const std::string& name, const std::string& text) {
    test::write_bytes(folder_.path(name), text);
  }
  HostMemory read() const { return host_memory(folder_.path("")); }
  test::TemporaryFolder folder_;
};

TEST_F(FakeSystem, WithoutGroupsTheMachineIsTheLimit) {
  const HostMemory memory = read();
  EXPECT_EQ(memory.limit_bytes, 1000 * 1024);
  EXPECT_EQ(memory.available_bytes, 600 * 1024);
  EXPECT_EQ(memory.rss_bytes, 2 * ::sysconf(_SC_PAGESIZE));
  EXPECT_FALSE(memory.is_scarce());
}

TEST_F(FakeSystem, AGroupAboveThisOneBinds) {
  write("proc/self/cgroup", "0::/job/step\n");
  write("sys/fs/cgroup/job/step/memory.max", "max\n");
  write("sys/fs/cgroup/job/step/memory.current", "100\n");
  write("sys/fs/cgroup/job/memory.max", "409600\n");
  write("sys/fs/cgroup/job/memory.current", "400000\n");
  write("sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 1000\n");
  const HostMemory memory = read();
  EXPECT_EQ(memory.limit_bytes, 409600);
  EXPECT_EQ(memory.available_bytes, 9600 + 1000);
  EXPECT_TRUE(memory.is_scarce());
}

TEST_F(FakeSystem, AGroupOfTheFirstVersionSeenFromInsideAContainerBinds) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "512000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "212000\n");
  const HostMemory memory = read();
  EXPECT_EQ(memory.limit_bytes, 512000);
  EXPECT_EQ(memory.available_bytes, 300000);
}

TEST_F(FakeSystem, AHugeNumberIsNoLimitAndNothingKnownIsNone) {
  write("proc/self/cgroup", "4:memory:/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
  EXPECT_EQ(read().limit_bytes, 1000 * 1024);
  write("proc/meminfo", "");
  EXPECT_FALSE(read().is_scarce());
}

}  // namespace
}  // namespace vitrail::data
