// Leaves of batches on the GPU against the same on the CPU.

#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/patching/resample_batch.h"
#include "vitrail/parallel/device.h"
#include "vitrail/patching/batch.h"

namespace vitrail::patching {
namespace {

using test::batch_case;
using test::BatchCase;
using test::kMethods;

const at::Device kGpu(at::kCUDA, 0);

/// Sides, smallest leaf and patch: leaves that grow, shrink and stay, cut at the end, larger than the kernels' tables.
const std::tuple<std::vector<int64_t>, int64_t, int64_t> kCases[] = {
    {{21, 40}, 2, 4},    {{64, 64}, 16, 16},   {{700, 333}, 3, 8},  {{600, 600}, 600, 4},
    {{9, 16, 12}, 2, 4}, {{40, 33, 50}, 3, 8}, {{32, 32, 32}, 8, 8}};

at::Tensor gradient(const at::Tensor& of, const at::Tensor& by, const at::Tensor& weight) {
  return torch::autograd::grad({of}, {by}, {weight})[0];
}

double difference(const at::Tensor& gpu, const at::Tensor& cpu) {
  return (gpu.to(at::kCPU) - cpu).norm().item<double>() / cpu.norm().item<double>();
}

TEST(GpuResample, EqualsTheCpuWithItsGradients) {
  double worst = 0;
  for (const auto& [sides, least, patch] : kCases)
    for (const Resample method : kMethods) {
      const BatchCase made = batch_case(sides, 3, least, patch);
      const at::Tensor boxes = made.boxes.to(kGpu);
      const at::Tensor image = made.image.clone().set_requires_grad(true),
                       gpu_image = made.image.to(kGpu).set_requires_grad(true),
                       tokens = made.tokens.clone().set_requires_grad(true),
                       gpu_tokens = made.tokens.to(kGpu).set_requires_grad(true);
      const at::Tensor to = serialise(image, made.boxes, patch, method),
                       gpu_to = serialise(gpu_image, boxes, patch, method),
                       back = paste(tokens, made.boxes, sides, method),
                       gpu_back = paste(gpu_tokens, boxes, sides, method);
      const double found[] = {
          difference(gpu_to, to), difference(gpu_back, back),
          difference(gradient(gpu_to, gpu_image, gpu_tokens), gradient(to, image, tokens)),
          difference(gradient(gpu_back, gpu_tokens, gpu_image), gradient(back, tokens, image))};
      for (const double value : found) {
        EXPECT_LE(value, 1e-6) << sides[0] << ", leaf " << least << ", patch " << patch
                               << ", method " << static_cast<int>(method);
        worst = std::max(worst, value);
      }
    }
  std::printf("worst relative difference %.1e (allowed 1e-6)\n", worst);  // floats round at 6e-8
}

TEST(GpuResample, LabelsEqualTheCpus) {
  for (const auto& [sides, least, patch] : kCases) {
    const BatchCase made = batch_case(sides, 3, least, patch);
    const at::Tensor boxes = made.boxes.to(kGpu), labels = made.labels.to(kGpu);
    for (const LabelRule rule : {LabelRule::majority, LabelRule::nearest})
      EXPECT_TRUE(at::equal(serialise_labels(labels, boxes, patch, rule).to(at::kCPU),
                            serialise_labels(made.labels, made.boxes, patch, rule)))
          << sides[0] << ", leaf " << least;
    EXPECT_LE(difference(serialise_shares(labels, 3, boxes, patch),
                         serialise_shares(made.labels, 3, made.boxes, patch)),
              1e-6);
  }
}

TEST(GpuResample, GivesTheSameBitsAtEveryCall) {
  const BatchCase made = batch_case({700, 333}, 3, 3, 8);
  const at::Tensor image = made.image.to(kGpu), boxes = made.boxes.to(kGpu);
  const at::Tensor first = serialise(image, boxes, 8, Resample::cubic);
  for (int i = 0; i < 5; ++i)
    EXPECT_TRUE(at::equal(first, serialise(image, boxes, 8, Resample::cubic)));
}

TEST(GpuResample, ConstantLeavesComeBackExactly) {
  const BatchCase made = batch_case({40, 33, 50}, 2, 3, 8);
  for (const Resample method : kMethods) {
    const at::Tensor image = at::zeros(made.image.sizes(), kGpu).add(0.1f);
    const at::Tensor boxes = made.boxes.to(kGpu);
    EXPECT_TRUE(
        at::equal(paste(serialise(image, boxes, 8, method), boxes, made.sides, method), image));
  }
}

TEST(GpuResample, BoxesThatAreNoneShowInTheTokens) {
  const BatchCase made = batch_case({21, 40}, 1, 21, 4);
  for (const float bad : {-1.0f, 0.5f, 1e30f, std::numeric_limits<float>::quiet_NaN(), 41.0f}) {
    at::Tensor boxes = made.boxes.to(kGpu);
    boxes.select(1, 0).select(1, 3).fill_(bad);
    const at::Tensor tokens = serialise(made.image.to(kGpu), boxes, 4, Resample::area);
    EXPECT_TRUE(tokens.select(2, 0).isnan().all().item<bool>()) << bad;
    EXPECT_FALSE(tokens.slice(2, 1).isnan().any().item<bool>()) << bad;
    const at::Tensor labels = serialise_labels(made.labels.to(kGpu), boxes, 4, LabelRule::majority);
    EXPECT_TRUE((labels.select(1, 0) == -1).all().item<bool>());
    paste(made.tokens.to(kGpu), boxes, made.sides, Resample::area);
  }
  parallel::synchronize(kGpu);
}

void print_times(const std::vector<int64_t>& sides, int64_t batch, int64_t least, int64_t patch) {
  const BatchCase one = batch_case(sides, 1, least, patch);
  const auto many = [&](const at::Tensor& tensor) {
    std::vector<at::Tensor> rows(static_cast<size_t>(batch), tensor.select(0, 0));
    return at::stack(rows).to(kGpu);
  };
  const at::Tensor image = many(one.image).set_requires_grad(true), boxes = many(one.boxes),
                   tokens = many(one.tokens).set_requires_grad(true), labels = many(one.labels);
  const auto time = [&](const char* name, auto&& run) {
    run();
    parallel::Event start(kGpu, true), end(kGpu, true);
    constexpr int kTimes = 10;
    start.record(parallel::current_stream(kGpu));
    for (int i = 0; i < kTimes; ++i) run();
    end.record(parallel::current_stream(kGpu));
    end.synchronize();
    std::printf("  %-18s %.3f ms\n", name, end.ms_since(start) / kTimes);
  };
  std::printf("%lld samples of %lld..., 2 channels, %lld leaves to %lld:\n",
              static_cast<long long>(batch), static_cast<long long>(sides[0]),
              static_cast<long long>(one.leaves), static_cast<long long>(patch));
  for (const Resample method : {Resample::area, Resample::cubic}) {
    const bool is_area = method == Resample::area;
    time(is_area ? "serialise" : "cubic serialise",
         [&] { serialise(image.detach(), boxes, patch, method); });
    time(is_area ? "paste" : "cubic paste", [&] { paste(tokens.detach(), boxes, sides, method); });
    time(is_area ? "serialise + grad" : "cubic s. + grad",
         [&] { gradient(serialise(image, boxes, patch, method), image, tokens); });
    time(is_area ? "paste + grad" : "cubic p. + grad",
         [&] { gradient(paste(tokens, boxes, sides, method), tokens, image); });
  }
  time("labels", [&] { serialise_labels(labels, boxes, patch, LabelRule::majority); });
  time("shares of 3", [&] { serialise_shares(labels, 3, boxes, patch); });
}

TEST(GpuResample, TimesOfVolumesAndImages) {
  print_times({128, 128, 128}, 16, 4, 8);
  print_times({512, 512}, 64, 8, 16);
  print_times({4096, 4096}, 2, 16, 16);
}

}  // namespace
}  // namespace vitrail::patching
