// Augmentation of a batch on the GPU against the same on the CPU.

#include <cstdio>

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "tests/data/augment_samples.h"
#include "vitrail/data/augment_batch.h"
#include "vitrail/parallel/device.h"

namespace vitrail::data {
namespace {

using test::Augmented;
using test::model_of;
using test::segmenter;
using test::with_steps;

const at::Device kGpu(at::kCUDA, 0);

Batch on_gpu(const Batch& staged, const std::vector<int64_t>& sides) {
  Batch batch = staged;
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(kGpu);
  return augmented(batch, sides);
}

double largest_difference(const at::Tensor& gpu, const at::Tensor& cpu) {
  return gpu.to(at::kCPU).sub(cpu).abs().max().item<double>();
}

/// All steps but gamma and noise use + - * / and index arithmetic alone.
const std::vector<std::string> kExact[] = {{"intensity:0:0", "flips", "rot90", "shift:3", "crop:2"},
                                           {"affine:40:0.2:0.7:1.3:10"},
                                           {"color_jitter:0.4:0.4:0.4:0.2"},
                                           {"flip", "randaugment:3:12", "erasing:0.5", "cutmix:1"},
                                           {"trivialaugment", "mixup:0.5", "cutmix:1"},
                                           {"autoaugment:imagenet"},
                                           {"autoaugment:cifar10", "gray:0.3", "solarize:0.3"},
                                           {"gray:0.5", "resized_crop", "blur:2:0.5"}};

TEST(GpuAugment, EqualsTheCpuBitForBit) {
  for (const auto& steps : kExact) {
    const config::Model model = model_of({32, 32}, 3, 10);
    const Augmented cpu(with_steps(steps), model, 257);
    const Batch gpu = on_gpu(cpu.staged, model.image_size);
    EXPECT_TRUE(at::equal(gpu.image.to(at::kCPU), cpu.batch.image))
        << steps[0] << ": " << largest_difference(gpu.image, cpu.batch.image);
    if (cpu.batch.label_other.defined()) {
      EXPECT_TRUE(at::equal(gpu.label_other.to(at::kCPU), cpu.batch.label_other));
      EXPECT_TRUE(at::equal(gpu.label_share.to(at::kCPU), cpu.batch.label_share));
    }
  }
}

TEST(GpuAugment, VolumesAndMasksEqualTheCpuBitForBit) {
  for (const std::vector<std::string>& steps :
       {std::vector<std::string>{"gray:0", "flips", "rot90_3d"},
        {"affine:30:0.1:0.8:1.2:10", "intensity:0.1:0.1"},
        {"blur:1.5", "resized_crop:0.3:1", "cutmix:1"}}) {
    const config::Model model = segmenter({12, 12, 12}, 3, 5);
    const Augmented cpu(with_steps(steps), model, 9);
    const Batch gpu = on_gpu(cpu.staged, model.image_size);
    EXPECT_TRUE(at::equal(gpu.image.to(at::kCPU), cpu.batch.image)) << steps[0];
    EXPECT_TRUE(at::equal(gpu.label.to(at::kCPU), cpu.batch.label)) << steps[0];
  }
}

// log, cos and pow of the two libraries differ by a few ulp: 1e-5 of values up to 10.
TEST(GpuAugment, NoiseAndGammaAgreeWithTheCpu) {
  const config::Model model = model_of({32, 32}, 3, 10);
  const Augmented cpu(with_steps({"gamma:0.5:2", "noise:0.1", "erasing:1:noise"}), model, 64);
  const double worst =
      largest_difference(on_gpu(cpu.staged, model.image_size).image, cpu.batch.image);
  std::printf("worst difference %.1e (allowed 1e-5)\n", worst);
  EXPECT_LE(worst, 1e-5);
}

TEST(GpuAugment, TimeOfAugmentedCifarBatches) {
  const config::Model model = model_of({32, 32}, 3, 10);
  const Augmented cpu(with_steps({"flip", "randaugment:2:9", "mixup:0.8", "cutmix:1"}), model,
                      1024);
  Batch batch = cpu.staged;
  for (at::Tensor* tensor : batch.rows()) *tensor = tensor->to(kGpu);
  for (int i = 0; i < 3; ++i) augmented(batch, model.image_size);
  parallel::Event start(kGpu, true), end(kGpu, true);
  constexpr int kTimes = 50;
  start.record(parallel::current_stream(kGpu));
  for (int i = 0; i < kTimes; ++i) augmented(batch, model.image_size);
  end.record(parallel::current_stream(kGpu));
  end.synchronize();
  std::printf("1024 images of 32 x 32, randaugment:2:9, mixup, cutmix: %.3f ms\n",
              end.ms_since(start) / kTimes);
}

}  // namespace
}  // namespace vitrail::data
