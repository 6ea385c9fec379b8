// Data-parallel training over two GPUs of one process, one thread a rank, through NCCL.

#include <cmath>
#include <cstdio>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/step.h"

namespace vitrail::train {
namespace {

constexpr int64_t kGlobalBatch = 16;

struct Result {
  std::vector<double> losses;
  int64_t early = 0;
};

Result train_on(comm::Communicator& host, at::Device device, at::ScalarType dtype) {
  config::Recipe recipe;
  recipe.model = testing::tiny_vit();
  recipe.parallel.bucket_mib = 0.02;
  config::Train& train = recipe.train;
  train.clip_grad_norm = 1.0;
  train.micro_batches = 2;
  comm::Mesh mesh(host, {});
  const auto model = models::make_model(recipe.model, 1);
  parallel::Engine engine(*model, recipe, mesh, device, dtype);
  engine.broadcast_weights();
  Optimizer optimizer(engine, train.optimizer, train.ema_decay);
  Step step(*model, engine, optimizer, Schedule(train.schedule, train.optimizer.lr, 100), train, 7);
  Result result;
  const int64_t local = kGlobalBatch / host.size();
  for (int64_t s = 0; s < 10; ++s)
    result.losses.push_back(
        step.run(testing::samples(s * kGlobalBatch + host.rank() * local, local)).loss());
  result.early = engine.early_starts();
  return result;
}

TEST(GpuDdp, TwoGpusGiveTheLossesOfOne) {
  ASSERT_GE(parallel::gpu_count(), 2) << "this test needs two GPUs; it has the label gpu2";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Result one = train_on(*comm::self_communicator(), at::Device(at::kCUDA, 0), dtype);
    std::mutex mutex;
    double worst = 0;
    comm::run_thread_group(2, [&](comm::Communicator& host) {
      const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(host.rank()));
      parallel::set_device(device);
      const Result two = train_on(host, device, dtype);
      const std::lock_guard lock(mutex);
      for (size_t s = 0; s < one.losses.size(); ++s)
        worst = std::max(worst, std::abs(two.losses[s] - one.losses[s]) / one.losses[s]);
      EXPECT_GE(two.early, 3);  // of more units, all but the last can begin before backward ends
    });
    // fp32: order of additions. bf16: gradients of half the batch are rounded to 8 bits before they
    // are added.
    const double allowed = dtype == at::kFloat ? 1e-5 : 2e-2;
    std::printf("worst relative difference over ten steps %.2g (allowed %.0e)\n", worst, allowed);
    EXPECT_LE(worst, allowed);
  }
}

}  // namespace
}  // namespace vitrail::train
