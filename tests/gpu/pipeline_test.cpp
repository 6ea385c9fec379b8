// Pipeline stages as processes, one GPU each, through NCCL.

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/models/chain_cases.h"
#include "vitrail/comm/launch.h"
#include "vitrail/comm/mesh.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/optimizer.h"

namespace vitrail::parallel {
namespace {

constexpr int64_t kSamples = 8;

data::Batch batch_on(const config::Model& options, at::Device device) {
  data::Batch batch = models::chain_batch(options, kSamples);
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(device);
  return batch;
}

/// Losses of ten steps and of an evaluation after them.
std::vector<double> losses_on(comm::Communicator& host, const config::Recipe& recipe,
                              at::Device device, at::ScalarType dtype) {
  set_device(device);
  comm::Mesh mesh(host, {1, 1, host.size(), 1, 1});
  const auto model = models::make_model(recipe.model, 3);
  Engine engine(*model, recipe, mesh, device, dtype);
  train::Optimizer optimizer(engine, recipe.train.optimizer, recipe.train.ema_decay);
  const data::Batch batch = batch_on(recipe.model, device);
  std::vector<at::Tensor> losses;
  for (uint32_t step = 0; step < 10; ++step) {
    engine.units().zero_gradients();
    losses.push_back(
        engine.forward_backward(batch, recipe.train.micro_batches, [&](const data::Batch& samples) {
          return nn::Draws{3, step, samples.sample_ids, true};
        }));
    optimizer.step(1e-3, step + 1, optimizer.gradient_norm(1.0));
  }
  losses.push_back(engine.evaluate(batch, {3, 0, batch.sample_ids, false}).loss);
  std::vector<double> values;
  for (const at::Tensor& loss : losses) values.push_back(loss.item().toDouble());
  return values;
}

config::Recipe recipe_of(const config::Model& options, const char* schedule, int64_t ranks) {
  config::Recipe recipe;
  recipe.model = options;
  recipe.train.micro_batches = 4;
  recipe.parallel.pipeline = ranks;
  recipe.parallel.pipeline_schedule.value = schedule;
  if (recipe.parallel.pipeline_schedule == "interleaved") recipe.parallel.pipeline_parts = 2;
  return recipe;
}

/// Of all schedules in fp32, of one in bf16.
std::vector<const char*> schedules_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return {"gpipe", "1f1b", "interleaved"};
  return {"1f1b"};
}

TEST(GpuPipeline, StagesGiveTheLossesOfOne) {
  const comm::Launch launch = comm::detect_launch();
  ASSERT_EQ(launch.size, 2) << "run it as mpirun -n 2 test_gpu --gtest_filter=GpuPipeline.*";
  ASSERT_GE(gpu_count(), 2) << "this test needs two GPUs; it has the label gpu2";
  const auto world = comm::world_communicator(launch);
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(launch.local_rank));
  for (const models::ChainCase& tested : models::chain_cases())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const config::Recipe alone = recipe_of(tested.options, "1f1b", 1);
      const std::vector<double> expected =
          losses_on(*comm::self_communicator(), alone, device, dtype);
      for (const char* schedule : schedules_of(dtype)) {
        const std::vector<double> found =
            losses_on(*world, recipe_of(tested.options, schedule, 2), device, dtype);
        double worst = 0.0;
        for (size_t i = 0; i < expected.size(); ++i) {
          const double error = std::abs(found[i] - expected[i]) / std::abs(expected[i]);
          worst = std::isnan(error) ? INFINITY : std::max(worst, error);
        }
        // The same kernels on the same numbers; what differs is where gradients of taps and conditions meet, and in bf16
        // such a sum is rounded to 8 bits.
        const double allowed = dtype == at::kFloat ? 1e-5 : 2e-2;
        std::printf("%s, %s: losses differ by %.2g at most (allowed %.0e)\n", tested.name.c_str(),
                    schedule, worst, allowed);
        std::fflush(stdout);
        EXPECT_LE(worst, allowed) << tested.name << ", " << schedule;
      }
    }
}

}  // namespace
}  // namespace vitrail::parallel
