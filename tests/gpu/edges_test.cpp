// Bytes, edges and importance of batches on the GPU against the same on the CPU, bit for bit.

#include <chrono>
#include <cmath>
#include <cstdio>

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "tests/patching/edge_samples.h"
#include "vitrail/patching/batch.h"

namespace vitrail::patching {
namespace {

using test::product;

const at::Device kGpu(at::kCUDA, 0);

at::Tensor ids_of(int64_t batch) {
  at::Tensor ids = at::empty({batch}, at::kLong);
  for (int64_t b = 0; b < batch; ++b) ids.mutable_data_ptr<int64_t>()[b] = 7 * b + 3;
  return ids;
}

/// [batch, channels, sides...] of rows that `fill(b)` gives.
template <class Fill>
at::Tensor batch_of(int64_t batch, int64_t channels, const std::vector<int64_t>& sides,
                    Fill&& fill) {
  std::vector<int64_t> shape{batch, channels};
  shape.insert(shape.end(), sides.begin(), sides.end());
  at::Tensor bytes = at::empty(shape, at::kByte);
  for (int64_t b = 0; b < batch; ++b) {
    const std::vector<uint8_t> row = fill(b);
    std::copy(row.begin(), row.end(),
              bytes.mutable_data_ptr<uint8_t>() + b * static_cast<int64_t>(row.size()));
  }
  return bytes;
}

void expect_equal_maps(const at::Tensor& bytes, const at::Tensor& edges, const char* name) {
  for (const Importance importance :
       {Importance::edges, Importance::gradient, Importance::variance, Importance::given}) {
    LeafOptions options;
    options.importance = importance;
    options.importance_channel = bytes.size(1) - 1;
    const at::Tensor cpu = importance_maps(bytes, options, edges);
    const at::Tensor gpu = importance_maps(bytes.to(kGpu), options, edges.to(kGpu)).to(at::kCPU);
    EXPECT_TRUE(at::equal(gpu, cpu))
        << name << ", importance " << static_cast<int>(importance) << ": "
        << gpu.ne(cpu).sum().item<int64_t>() << " of " << cpu.numel() << " pixels differ";
  }
}

TEST(GpuEdges, EqualTheCpuBitForBit) {
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{64, 64},
                                            {1, 1},
                                            {1, 33},
                                            {37, 1},
                                            {2, 2},
                                            {61, 97},
                                            {513, 1025},
                                            {33, 34, 35},
                                            {1, 9, 9},
                                            {7, 1, 1},
                                            {2, 3, 2},
                                            {64, 64, 64}})
    for (const int64_t channels : {1, 3}) {
      const int64_t batch = 5;  // with thresholds and blurs of their own
      const at::Tensor edges = edge_options({}, 3, 1, ids_of(batch), true);
      expect_equal_maps(batch_of(batch, channels, sides,
                                 [&](int64_t b) { return test::shapes(channels, sides, b); }),
                        edges, "shapes");
      expect_equal_maps(
          batch_of(batch, channels, sides,
                   [&](int64_t b) { return test::random_bytes(channels * product(sides), b); }),
          edges, "noise");
    }
}

TEST(GpuEdges, FollowLongEdgesAsTheCpuDoes) {
  for (const std::vector<int64_t>& sides :
       {std::vector<int64_t>{700, 900}, {2048, 2048}, {40, 128, 128}}) {
    const at::Tensor bytes = batch_of(2, 1, sides, [&](int64_t) { return test::spiral(sides); });
    at::Tensor edges = at::empty({2, 3}, at::kInt);
    edges.select(1, 0).fill_(1);
    edges.select(1, 1).fill_(30);
    edges.select(1, 2).fill_(125);
    const at::Tensor gpu = importance_maps(bytes.to(kGpu), {}, edges.to(kGpu)).to(at::kCPU);
    EXPECT_TRUE(at::equal(gpu, importance_maps(bytes, {}, edges)));
    EXPECT_GT(gpu.sum().item<int64_t>(), 2000);
  }
}

TEST(GpuEdges, OfFlatImagesAreNone) {
  for (const std::vector<int64_t>& sides : {std::vector<int64_t>{40, 50}, {12, 13, 14}})
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance}) {
      LeafOptions options;
      options.importance = importance;
      const at::Tensor bytes = batch_of(3, 2, sides, [&](int64_t b) {
        return std::vector<uint8_t>(static_cast<size_t>(2 * product(sides)),
                                    static_cast<uint8_t>(100 * b));
      });
      const at::Tensor edges = at::zeros({3, 3}, at::kInt).fill_(1).to(kGpu);
      EXPECT_EQ(importance_maps(bytes.to(kGpu), options, edges).sum().item<int64_t>(), 0);
    }
}

TEST(GpuEdges, DrawTheOptionsOfTheCpu) {
  for (const bool training : {true, false}) {
    const at::Tensor cpu = edge_options({}, 123, 4, ids_of(1000), training);
    EXPECT_TRUE(
        at::equal(edge_options({}, 123, 4, ids_of(1000).to(kGpu), training).to(at::kCPU), cpu));
  }
}

/// Values over several powers of ten, so that the last bit of each product counts.
at::Tensor floats_of(const std::vector<int64_t>& shape) {
  const auto draws = test::random_bytes(2 * product(shape), 9);
  at::Tensor image = at::empty(shape, at::kFloat);
  auto* out = image.mutable_data_ptr<float>();
  for (int64_t i = 0; i < image.numel(); ++i)
    out[i] = (static_cast<float>(draws[static_cast<size_t>(2 * i)]) - 120.0f) *
             std::exp(0.02f * static_cast<float>(draws[static_cast<size_t>(2 * i + 1)]));
  return image;
}

TEST(GpuEdges, BytesEqualTheCpuBitForBit) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{4, 3, 61, 97}, {3, 1, 1, 1}, {2, 5, 17, 18, 19}}) {
    const at::Tensor image = floats_of(shape);
    at::Tensor range = at::empty({shape[0], shape[1], 2}, at::kFloat);
    for (int64_t b = 0; b < shape[0]; ++b)
      for (int64_t c = 0; c < shape[1]; ++c) {
        range[b][c][0] = -2.1179f * static_cast<float>(b) - 0.3f * static_cast<float>(c);
        range[b][c][1] = b == 1 ? range[b][c][0].item<float>() : 30.64f + static_cast<float>(c);
      }
    for (const at::Tensor& ranges : {range, at::Tensor()}) {
      const at::Tensor on = ranges.defined() ? ranges.to(kGpu) : ranges;
      EXPECT_TRUE(at::equal(to_bytes(image.to(kGpu), on).to(at::kCPU), to_bytes(image, ranges)));
    }
  }
}

TEST(GpuEdges, PixelsThatAreNoNumbersBecomeZeroAndLeaveTheOthers) {
  at::Tensor image = floats_of({2, 2, 20, 20});
  const at::Tensor clean = image.clone();
  image[0][1][3][4] = NAN;
  image[0][0][5][5] = INFINITY;
  image[0][0][0][0] = -INFINITY;
  const at::Tensor bytes = to_bytes(image.to(kGpu), {}).to(at::kCPU);
  EXPECT_EQ(bytes[0][1][3][4].item<int64_t>(), 0);
  EXPECT_EQ(bytes[0][0][5][5].item<int64_t>(), 0);
  EXPECT_EQ(bytes[0][0][0][0].item<int64_t>(), 0);
  EXPECT_TRUE(at::equal(bytes[1], to_bytes(clean, {})[1]));
  EXPECT_EQ(bytes[0].max().item<int64_t>(), 255);
  const at::Tensor none = at::empty({1, 1, 4, 4}, at::kFloat).fill_(NAN);
  EXPECT_EQ(to_bytes(none.to(kGpu), {}).sum().item<int64_t>(), 0);
}

TEST(GpuEdges, PrintTheirTimes) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{32, 1, 128, 128, 128}, {64, 3, 512, 512}, {1, 3, 4096, 4096}}) {
    const std::vector<int64_t> sides(shape.begin() + 2, shape.end());
    const auto one = test::shapes(shape[1], sides, 1);
    const at::Tensor bytes =
        batch_of(shape[0], shape[1], sides, [&](int64_t) { return one; }).to(kGpu);
    const at::Tensor image = bytes.to(at::kFloat),
                     edges = edge_options({}, 1, 1, ids_of(shape[0]), true).to(kGpu);
    for (const Importance importance :
         {Importance::edges, Importance::gradient, Importance::variance}) {
      LeafOptions options;
      options.importance = importance;
      importance_maps(bytes, options, edges);
      const auto start = [] {
        c10::cuda::device_synchronize();
        return std::chrono::steady_clock::now();
      };
      const auto begin = start();
      constexpr int kTimes = 5;
      for (int i = 0; i < kTimes; ++i) importance_maps(bytes, options, edges);
      const std::chrono::duration<double, std::milli> maps = start() - begin;
      const auto second = start();
      for (int i = 0; i < kTimes; ++i) to_bytes(image, {});
      const std::chrono::duration<double, std::milli> scaled = start() - second;
      const double samples = static_cast<double>(kTimes * shape[0]);
      std::printf("importance %d of %lld x %lld^%d: %.3f ms a sample, bytes %.3f ms\n",
                  static_cast<int>(importance), static_cast<long long>(shape[1]),
                  static_cast<long long>(shape.back()), static_cast<int>(sides.size()),
                  maps.count() / samples, scaled.count() / samples);
    }
  }
}

}  // namespace
}  // namespace vitrail::patching
