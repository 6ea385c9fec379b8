// Trees of a batch on the GPU against the same on the CPU: equal leaf by leaf.

#include <cstdio>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "tests/patching/tree_samples.h"
#include "vitrail/parallel/device.h"
#include "vitrail/patching/batch.h"

namespace vitrail::patching {
namespace {

using test::random_maps;
using test::random_scores;

const at::Device kGpu(at::kCUDA, 0);

void expect_equal_trees(const at::Tensor& maps, const LeafOptions& options) {
  const at::Tensor cpu = leaf_boxes(maps, options);
  const at::Tensor gpu = leaf_boxes(maps.to(kGpu), options).to(at::kCPU);
  ASSERT_EQ(gpu.sizes(), cpu.sizes());
  EXPECT_TRUE(at::equal(gpu, cpu))
      << "length " << options.fixed_length << " of " << options.min_leaf << ", floor "
      << options.value_floor << ", sides " << maps.sizes() << ": "
      << gpu.ne(cpu).any(-1).sum().item<int64_t>() << " leaves differ";
}

TEST(GpuTree, EqualsTheCpu) {
  uint64_t seed = 0;
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{256, 256},
                                            {64, 64, 64},
                                            {128, 96},
                                            {61, 40},
                                            {333, 17},
                                            {17, 23, 30},
                                            {1, 50},
                                            {200, 1},
                                            {1, 1},
                                            {1, 1, 40},
                                            {5, 1, 70},
                                            {3, 3, 3}})
    for (const int64_t length : {1, 2, 3, 8, 15, 60, 196, 197, 512, 4096})
      for (const int64_t min_leaf : {1, 2, 3, 8}) {
        LeafOptions options{length, 8, min_leaf};
        options.order = ++seed % 3 == 0 ? Order::raster : Order::morton;
        options.value_floor = static_cast<int64_t>(seed % 4) - 1;
        expect_equal_trees(random_maps(5, sides, seed), options);
      }
  std::printf("%llu batches of 5\n", static_cast<unsigned long long>(seed));
}

TEST(GpuTree, SumsAnyLeafEdgeAndWidth) {
  uint64_t seed = 1000;
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{260, 516}, {250, 301}, {70, 68, 72}, {33, 65, 66}})
    for (const int64_t min_leaf : {4, 5, 6, 7, 16, 31, 32, 64}) {
      LeafOptions options{100, 8, min_leaf};
      options.value_floor = 300;
      expect_equal_trees(random_maps(7, sides, ++seed), options);
    }
  // Bytes that do not begin at a word.
  const at::Tensor maps = random_maps(1, {64, 128}, seed).flatten();
  const at::Tensor shifted = maps.slice(0, 1, 1 + 63 * 128).view({1, 63, 128});
  const LeafOptions options{61, 8, 2};
  EXPECT_TRUE(at::equal(
      leaf_boxes(maps.to(kGpu).slice(0, 1, 1 + 63 * 128).view({1, 63, 128}), options).to(at::kCPU),
      leaf_boxes(shifted, options)));
}

TEST(GpuTree, EqualsTheCpuForManyLeaves) {
  expect_equal_trees(random_maps(3, {1024, 1024}, 1), {32768, 8, 2});
  expect_equal_trees(random_maps(3, {1000, 1023}, 2), {32767, 8, 1});
  expect_equal_trees(random_maps(3, {128, 128, 128}, 3), {32768, 8, 2});
  expect_equal_trees(random_maps(3, {127, 100, 128}, 4), {20000, 8, 1});
  expect_equal_trees(random_maps(300, {64, 64}, 5), {256, 8, 4});
}

TEST(GpuTree, IsEmptyForNoSamples) {
  const at::Tensor none = at::empty({0, 64, 64}, at::TensorOptions().dtype(at::kByte).device(kGpu));
  EXPECT_EQ(leaf_boxes(none, {16, 8, 4}).size(0), 0);
}

TEST(GpuTree, DividesScoresAsTheCpu) {
  int64_t divisions = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const bool is_volume = seed % 4 == 3;
    const std::vector<int64_t> grid =
        is_volume ? std::vector<int64_t>{2, 1, static_cast<int64_t>(1 + seed % 3)}
                  : std::vector<int64_t>{static_cast<int64_t>(1 + seed % 5), 4};
    const auto scores = random_scores(6, grid, static_cast<int64_t>(1 + seed % 4), seed);
    std::vector<at::Tensor> on_gpu;
    for (const at::Tensor& level : scores) on_gpu.push_back(level.to(kGpu));
    const int64_t first = scores.back()[0].numel(), all = scores.front()[0].numel();
    const int64_t more = is_volume ? 7 : 3;
    for (const int64_t share : {0, 1, 3, 7, 10}) {
      const int64_t count = first + (all - first) / more * share / 10 * more;
      const Order order = seed % 2 ? Order::raster : Order::morton;
      EXPECT_TRUE(at::equal(divide(on_gpu, 16, count, order).to(at::kCPU),
                            divide(scores, 16, count, order)))
          << "seed " << seed << ", count " << count;
      ++divisions;
    }
  }
  std::printf("%lld batches of 6\n", static_cast<long long>(divisions));
}

TEST(GpuTree, MakesTheSameLeavesAsTheCpu) {
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{96, 128}, {32, 48, 40}})
    for (const bool per_channel : {false, true}) {
      LeafOptions options{100, 8, 4};
      options.per_channel = per_channel;
      const at::Tensor image =
          at::cat({random_maps(6, sides, 3).unsqueeze(1), random_maps(6, sides, 4).unsqueeze(1)}, 1)
              .to(at::kFloat)
              .div(255);
      const at::Tensor ids = at::arange(6, at::kLong);
      const at::Tensor edges = edge_options({}, 1, 2, ids, true);
      const LeafTensors cpu = make_leaves(image, {}, options, edges);
      const LeafTensors gpu = make_leaves(image.to(kGpu), {}, options, edges);
      EXPECT_TRUE(at::equal(gpu.boxes.to(at::kCPU), cpu.boxes));
      // Values of up to 1 in float.
      const double worst = gpu.tokens.to(at::kCPU).sub(cpu.tokens).abs().max().item<double>();
      std::printf("tokens: worst difference %.1e (allowed 1e-6)\n", worst);
      EXPECT_LE(worst, 1e-6);
    }
}

template <class Body>
double gpu_ms(Body&& body) {
  for (int i = 0; i < 3; ++i) body();
  parallel::Event start(kGpu, true), end(kGpu, true);
  constexpr int kTimes = 20;
  start.record(parallel::current_stream(kGpu));
  for (int i = 0; i < kTimes; ++i) body();
  end.record(parallel::current_stream(kGpu));
  end.synchronize();
  return end.ms_since(start) / kTimes;
}

TEST(GpuTree, PrintsItsTimes) {
  struct Size {
    int64_t batch;
    std::vector<int64_t> sides;
    LeafOptions options;
  };
  for (const Size& size :
       {Size{64, {256, 256}, {196, 16, 2}}, Size{16, {128, 128, 128}, {4096, 8, 8}},
        Size{16, {128, 128, 128}, {4096, 8, 2}}, Size{64, {128, 128, 128}, {4096, 8, 2}},
        Size{4, {4096, 4096}, {4096, 16, 16}}, Size{4, {4096, 4096}, {32767, 16, 4}}}) {
    const at::Tensor maps = random_maps(size.batch, size.sides, 9).to(kGpu);
    const double tree_ms = gpu_ms([&] { leaf_boxes(maps, size.options); });
    std::vector<int64_t> shape = size.sides;
    shape.insert(shape.begin(), {size.batch, 1});
    const at::Tensor image = maps.view(shape).to(at::kFloat).div(255);
    const at::Tensor edges =
        edge_options({}, 1, 1, at::arange(size.batch, at::kLong), true).to(kGpu);
    const double all_ms = gpu_ms([&] { make_leaves(image, {}, size.options, edges); });
    std::printf("%lld x %s -> %lld of %lld: tree %.2f ms, all %.2f ms, %.0f samples/s\n",
                static_cast<long long>(size.batch), c10::str(at::IntArrayRef(size.sides)).c_str(),
                static_cast<long long>(size.options.fixed_length),
                static_cast<long long>(size.options.min_leaf), tree_ms, all_ms,
                static_cast<double>(size.batch) * 1e3 / all_ms);
  }
}

}  // namespace
}  // namespace vitrail::patching
