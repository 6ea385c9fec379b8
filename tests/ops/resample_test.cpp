#include "vitrail/ops/resample.h"

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_trilinear3d.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::ops {
namespace {

at::Tensor random(at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return uniform({4, core::Stream::test, 0, 0}, at::zeros({1}, at::kLong), count).view(shape) - 0.5;
}

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(ResizeLinear, KeepsCornersAndHalvesTheWayBetween) {
  const at::Tensor x = at::tensor({1.0f, 3.0f, 4.0f}).view({1, 1, 3});
  const at::Tensor y = at::tensor({1.0f, 2.0f, 3.0f, 3.5f, 4.0f}).view({1, 1, 5});
  EXPECT_TRUE(at::equal(resize_linear(x, {5}), y));
  EXPECT_TRUE(at::equal(resize_linear(y, {3}), x));
}

TEST(ResizeLinear, AgreesWithAtenInTwoAndThreeAxes) {
  // Both round weights and sums of at most 8 products of values below 0.5 in fp32. Worst seen: 1.8e-7.
  constexpr double kBound = 3e-7;
  const at::Tensor image = random({2, 3, 5, 8}), volume = random({2, 2, 3, 4, 6});
  const std::vector<std::vector<int64_t>> of_image{{10, 16}, {7, 3}, {1, 8}, {5, 20}};
  const std::vector<std::vector<int64_t>> of_volume{{6, 8, 12}, {2, 9, 6}, {3, 4, 1}};
  double far = 0.0;
  for (const auto& sides : of_image)
    far = std::max(far, worst(resize_linear(image, sides),
                              at::upsample_bilinear2d(image, sides, /*align_corners=*/true)));
  for (const auto& sides : of_volume)
    far = std::max(far, worst(resize_linear(volume, sides),
                              at::upsample_trilinear3d(volume, sides, /*align_corners=*/true)));
  std::printf("worst difference %.2e (allowed %.0e)\n", far, kBound);
  EXPECT_LE(far, kBound);
}

TEST(ResizeLinear, GivesTheTransposeAsGradient) {
  // <y, A x> = <A^T y, x> in fp64; sums of 240 terms below 1 round below 1e-13.
  const at::Tensor x = random({2, 1, 3, 4, 5}).to(at::kDouble).set_requires_grad(true);
  const at::Tensor y = random({2, 1, 5, 8, 3}).to(at::kDouble);
  const at::Tensor product = (resize_linear(x, {5, 8, 3}) * y).sum();
  product.backward();
  EXPECT_NEAR((x.grad() * x.detach()).sum().item<double>(), product.item<double>(), 1e-13);
}

TEST(ResizeLinear, LeavesEqualSidesAlone) {
  const at::Tensor x = random({1, 2, 3, 4});
  EXPECT_TRUE(resize_linear(x, {3, 4}).is_same(x));
}

TEST(ResizeLinear, RefusesSidesOfAnotherNumberOfAxes) {
  EXPECT_THROW(resize_linear(random({1, 2, 3, 4}), {3}), core::Error);
  EXPECT_THROW(resize_linear(random({1, 2, 3, 4}), {3, 0}), core::Error);
}

}  // namespace
}  // namespace vitrail::ops
