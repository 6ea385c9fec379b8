// Mixed-resolution tokens of a batch on the GPU against the same on the CPU, and what they cost.

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "tests/models/mixed_resolution_cases.h"
#include "vitrail/models/leaf_positions.h"
#include "vitrail/models/weights.h"
#include "vitrail/parallel/device.h"

namespace vitrail::models {
namespace {

const at::Device kGpu(at::kCUDA, 0);

nn::Draws on_gpu(nn::Draws draws) {
  draws.sample_ids = draws.sample_ids.to(kGpu);
  return draws;
}

/// Images of 128 x 192 in patches of 16, 32 and 64 for the network, else of 32 x 48 in 4, 8 and 16.
config::Model options_for(const std::string& scorer, const std::string& weights) {
  config::Model options = mixed_options(scorer.c_str(), 24);
  if (scorer != "feature_based") return options;
  options.image_size = {128, 192};
  options.patch_size = 16, options.mixed_resolution.max_patch = 64;
  options.mixed_resolution.scorer_weights = weights;
  return options;
}

TEST(GpuMixedResolution, EqualsTheCpu) {
  const std::string weights = testing::TempDir() + "vitrail_gpu_shufflenet.safetensors";
  write_tensors(weights, random_shufflenet(), {});
  for (const std::string scorer : {"pixel_blur", "given", "random", "feature_based"}) {
    const config::Model options = options_for(scorer, weights);
    const MixedResolution mixed(options);
    const at::Tensor image = mixed_images(options, 5);
    const patching::LeafTensors cpu = mixed.leaves_of(image, {}, mixed_draws(5, true));
    const patching::LeafTensors gpu =
        mixed.leaves_of(image.to(kGpu), {}, on_gpu(mixed_draws(5, true)));
    const auto scores_cpu = mixed.scores(image, {}, mixed_draws(5, true));
    const auto scores_gpu = mixed.scores(image.to(kGpu), {}, on_gpu(mixed_draws(5, true)));
    double worst = 0.0;
    for (size_t level = 1; level < scores_cpu.size(); ++level) {
      const at::Tensor difference = scores_gpu[level].to(at::kCPU) - scores_cpu[level];
      worst = std::max(worst, (difference.norm() / scores_cpu[level].norm()).item<double>());
    }
    // Blurred pixels, sums and draws are the same numbers; the network's convolutions add in another order, and its
    // scores are small differences of what they give.
    const double allowed = scorer == "feature_based" ? 1e-3 : 0.0;
    std::printf("%s: scores differ by %.1e (allowed %.0e)\n", scorer.c_str(), worst, allowed);
    EXPECT_LE(worst, allowed) << scorer;
    if (scorer == "feature_based") continue;  // near ties may be divided otherwise
    EXPECT_TRUE(at::equal(gpu.boxes.to(at::kCPU), cpu.boxes)) << scorer;
    EXPECT_LE((gpu.tokens.to(at::kCPU) - cpu.tokens).abs().max().item<double>(), 1e-6) << scorer;
    const at::Tensor dense = random({5, 24, 7});
    EXPECT_TRUE(
        at::equal(reverse(dense.to(kGpu), gpu.boxes, options.image_size, {8, 12}).to(at::kCPU),
                  reverse(dense, cpu.boxes, options.image_size, {8, 12})));
    const at::Tensor waves = sincos_of_leaves(cpu.boxes, 4.0, 32);
    EXPECT_LE(
        (sincos_of_leaves(gpu.boxes, 4.0, 32).to(at::kCPU) - waves).abs().max().item<double>(),
        1e-5);
  }
}

TEST(GpuMixedResolution, BlurScoresHaveTheBitsOfTheCpu) {
  // Edges below and above a strip, with more and fewer pieces than threads, no power of two among them.
  struct Case {
    int64_t batch, height, width, patch, largest;
  };
  for (const Case& one : {Case{3, 24, 48, 3, 24},
                          {2, 128, 256, 16, 128},
                          {70, 48, 40, 1, 8},
                          {2, 34, 68, 17, 34},
                          {9, 256, 256, 16, 64}}) {
    config::Model options = mixed_options("pixel_blur");
    options.image_size = {one.height, one.width};
    options.patch_size = one.patch;
    options.mixed_resolution.max_patch = one.largest;
    const MixedResolution mixed(options);
    const at::Tensor image = mixed_images(options, one.batch);
    const auto cpu = mixed.scores(image, {}, mixed_draws(one.batch));
    for (int call = 0; call < 2; ++call) {
      const auto gpu = mixed.scores(image.to(kGpu), {}, on_gpu(mixed_draws(one.batch)));
      ASSERT_EQ(gpu.size(), cpu.size());
      for (size_t level = 0; level < cpu.size(); ++level)
        EXPECT_TRUE(at::equal(gpu[level].to(at::kCPU), cpu[level]))
            << "edge " << (one.patch << level) << " of " << one.height << " x " << one.width;
    }
  }
}

/// Milliseconds of one call, launches and kernels overlapped as in a step.
template <class Call>
double milliseconds(const Call& call) {
  for (int i = 0; i < 3; ++i) call();
  parallel::Event start(kGpu, true), end(kGpu, true);
  constexpr int kCalls = 20;
  start.record(parallel::current_stream(kGpu));
  for (int i = 0; i < kCalls; ++i) call();
  end.record(parallel::current_stream(kGpu));
  end.synchronize();
  return end.ms_since(start) / kCalls;
}

TEST(GpuMixedResolution, PrintsWhatItCosts) {
  const std::string weights = testing::TempDir() + "vitrail_gpu_shufflenet.safetensors";
  write_tensors(weights, random_shufflenet(), {});
  for (const char* scorer : {"pixel_blur", "given", "random", "feature_based"})
    for (const int64_t size : {16, 128}) {
      config::Model options = options_for("feature_based", weights);
      options.mixed_resolution.scorer.value = scorer;
      options.image_size = {256, 256};
      options.mixed_resolution.num_tokens = 64;
      const MixedResolution mixed(options);
      const at::Tensor image = random({size, 3, 256, 256}).to(kGpu);
      const nn::Draws draws = on_gpu(mixed_draws(size, true));
      patching::LeafTensors leaves;
      const double all = milliseconds([&] { leaves = mixed.leaves_of(image, {}, draws); });
      std::vector<at::Tensor> scores;
      const double scoring = milliseconds([&] { scores = mixed.scores(image, {}, draws); });
      const double dividing =
          milliseconds([&] { return patching::divide(scores, 16, 64, patching::Order::morton); });
      const double gathering = milliseconds([&] { return mixed.tokens(image, leaves.boxes); });
      std::printf(
          "%-13s %3ld images of 256 x 256, 64 tokens: %.3f ms (scores %.3f, divide %.3f, "
          "pixels %.3f)\n",
          scorer, size, all, scoring, dividing, gathering);
      EXPECT_EQ(leaves.boxes.size(1), 64);
    }
}

}  // namespace
}  // namespace vitrail::models
