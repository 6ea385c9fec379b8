// Whole steps on the GPU against the CPU.

#include "vitrail/train/step.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/core/error.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_optimizer.h"

namespace vitrail::train {
namespace {

using testing::samples;

struct Trainer {
  std::unique_ptr<comm::Communicator> alone = comm::self_communicator();
  config::Recipe recipe;
  comm::Mesh mesh;
  std::shared_ptr<models::Model> model;
  parallel::Engine engine;
  Optimizer optimizer;
  Step step;

  Trainer(const config::Model& options, const config::Train& train, at::Device device,
          at::ScalarType dtype)
      : recipe(recipe_of(options, train)),
        mesh(*alone, {}),
        model(models::make_model(options, 1)),
        engine(*model, recipe, mesh, device, dtype),
        optimizer(engine, train.optimizer, train.ema_decay),
        step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train,
             7) {}

  static config::Recipe recipe_of(const config::Model& model, const config::Train& train) {
    config::Recipe recipe;
    recipe.model = model;
    recipe.train = train;
    return recipe;
  }
};

config::Train training() {
  config::Train train;
  train.clip_grad_norm = 1.0;
  train.ema_decay = 0.99;
  return train;
}

std::vector<double> losses(const config::Model& options, at::Device device, at::ScalarType dtype,
                           int64_t micro = 1) {
  config::Train train = training();
  train.micro_batches = micro;
  Trainer trainer(options, train, device, dtype);
  std::vector<double> found;
  for (int64_t s = 0; s < 10; ++s) found.push_back(trainer.step.run(samples(s * 8, 8)).loss());
  trainer.step.settle();
  return found;
}

double worst(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return most;
}

const at::Device kGpu(at::kCUDA, 0);

TEST(GpuStep, Fp32LossesAreThoseOfTheCpu) {
  for (const config::Model& options : {testing::tiny_vit(), testing::tiny_mae()}) {
    const std::vector<double> cpu = losses(options, at::kCPU, at::kFloat);
    const std::vector<double> gpu = losses(options, kGpu, at::kFloat);
    const double first = std::abs(gpu[0] - cpu[0]) / cpu[0], all = worst(gpu, cpu);
    // Order of additions in fp32; grows over ten updates.
    std::printf("relative difference: first %.2g (allowed 1e-5), ten steps %.2g (allowed 1e-3)\n",
                first, all);
    EXPECT_LE(first, 1e-5);
    EXPECT_LE(all, 1e-3);
  }
}

TEST(GpuStep, Bf16LossesAreCloseAndMicroBatchesAgree) {
  const std::vector<double> fp32 = losses(testing::tiny_vit(), kGpu, at::kFloat);
  for (const int64_t micro : {1, 2}) {
    const double difference = worst(losses(testing::tiny_vit(), kGpu, at::kBFloat16, micro), fp32);
    // bf16 keeps 8 bits (4e-3 a rounding) through five layers and ten updates.
    std::printf("%d micro-batches: relative difference %.2g (allowed 5e-2)\n",
                static_cast<int>(micro), difference);
    EXPECT_LE(difference, 5e-2);
  }
}

/// Nothing is drawn in forward.
config::Model without_drops(config::Model options) {
  options.drop_path_rate = options.attn_drop_rate = options.proj_drop_rate = 0.0;
  options.pos_drop_rate = options.patch_drop_rate = options.drop_rate = 0.0;
  return options;
}

/// Losses of twelve steps, the eighth of which has fewer samples.
std::vector<double> losses_of_two_sizes(const config::Model& options, const char* cuda_graph,
                                        at::ScalarType dtype) {
  config::Train train = training();
  train.cuda_graph.value = cuda_graph;
  Trainer trainer(options, train, kGpu, dtype);
  std::vector<double> found;
  for (int64_t s = 0; s < 12; ++s)
    found.push_back(trainer.step.run(samples(s * 8, s == 7 ? 4 : 8)).loss());
  trainer.step.settle();
  return found;
}

TEST(GpuStep, ARecordedPassTrainsAsAPlainOne) {
  for (const config::Model& options :
       {without_drops(testing::tiny_vit()), without_drops(testing::tiny_mae())}) {
    ASSERT_TRUE(models::make_model(options, 1)->repeats()) << "nothing would be recorded";
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const double difference = worst(losses_of_two_sizes(options, "auto", dtype),
                                      losses_of_two_sizes(options, "off", dtype));
      // The same kernels; attention's backward may add in another order, which twelve updates carry on.
      const double allowed = dtype == at::kFloat ? 1e-5 : 1e-2;
      std::printf("%s %s: relative difference %.2g (allowed %.0e)\n", options.kind.value.c_str(),
                  toString(dtype), difference, allowed);
      EXPECT_LE(difference, allowed);
    }
  }
  config::Model drops = without_drops(testing::tiny_vit());
  drops.drop_path_rate = 0.1;
  EXPECT_FALSE(models::make_model(drops, 1)->repeats());
}

TEST(GpuStep, StopsAtTheLatestOneStepAfterANonFiniteOne) {
  Trainer trainer(testing::tiny_vit(), training(), kGpu, at::kFloat);
  trainer.step.run(samples(0, 8));
  data::Batch bad = samples(8, 8);
  bad.image.data_ptr<float>()[7] = std::numeric_limits<float>::infinity();
  const at::Tensor before = trainer.engine.units().master().clone();
  trainer.step.run(bad);
  EXPECT_TRUE(trainer.engine.units().master().equal(before));
  EXPECT_THROW(trainer.step.run(samples(16, 8)), core::NonFiniteError);
}

TEST(GpuDevice, CountsMemoryAndTime) {
  parallel::reset_peak_memory(kGpu);
  const int64_t before = parallel::peak_memory_bytes(kGpu);
  const at::Tensor block = at::empty({64 << 20}, at::TensorOptions().device(kGpu).dtype(at::kByte));
  EXPECT_GE(parallel::peak_memory_bytes(kGpu), before + (64 << 20));
  EXPECT_GT(parallel::total_memory_bytes(kGpu), int64_t{1} << 30);
  parallel::Event start(kGpu, true), stop(kGpu, true);
  start.record(parallel::current_stream(kGpu));
  stop.record(parallel::current_stream(kGpu));
  EXPECT_GE(stop.ms_since(start), 0.0);
}

TEST(GpuAdamw, RunsNearTheSpeedOfACopy) {
  const OptimizerBench result = bench_optimizer(100'000'000, kGpu, true);
  std::printf("%s\n", describe(result).c_str());
  EXPECT_LE(result.worst_ulp, 2);
  EXPECT_EQ(result.moments_differ, 0);
  EXPECT_GT(result.copy_ratio,
            0.7);  // measured on the bench's own copy; far below means a lost vector access
}

}  // namespace
}  // namespace vitrail::train
