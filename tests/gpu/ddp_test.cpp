// Data-parallel training over two GPUs of one process, one thread a rank, through NCCL.

#include <cmath>
#include <cstdio>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/parallel/tiny.h"
#include "vitrail/comm/launch.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/step.h"

namespace vitrail::train {
namespace {

constexpr int64_t kGlobalBatch = 16;

struct Result {
  std::vector<double> losses;
  int64_t buckets = 0, early = 0;
};

Result train_on(comm::Communicator& group, at::Device device, at::ScalarType dtype) {
  config::Train train;
  train.clip_grad_norm = 1.0;
  train.micro_batches = 2;
  const auto model = models::make_model(testing::tiny_vit(), 1);
  parallel::UnitSet units(*model, device, dtype);
  parallel::broadcast_weights(units, group);
  parallel::GradientReducer reducer(*model, units, group, 0.02);
  Optimizer optimizer(units, train.optimizer, train.ema_decay);
  Step step(*model, units, reducer, optimizer, Schedule(train.schedule, train.optimizer.lr, 100),
            train, 7, device, group);
  Result result;
  const int64_t local = kGlobalBatch / group.size();
  for (int64_t s = 0; s < 10; ++s)
    result.losses.push_back(
        step.run(testing::samples(s * kGlobalBatch + group.rank() * local, local)).loss());
  result.buckets = reducer.bucket_count();
  result.early = reducer.early_starts();
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
      const auto group = comm::device_communicator(host, host.rank());
      const Result two = train_on(*group, device, dtype);
      const std::lock_guard lock(mutex);
      for (size_t s = 0; s < one.losses.size(); ++s)
        worst = std::max(worst, std::abs(two.losses[s] - one.losses[s]) / one.losses[s]);
      EXPECT_GE(two.early, two.buckets - 1);
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
