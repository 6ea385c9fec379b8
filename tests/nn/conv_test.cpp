#include "vitrail/nn/conv.h"

#include <cmath>
#include <cstdio>
#include <functional>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/nn/conv_blocks.h"
#include "vitrail/ops/patch.h"
#include "vitrail/ops/random.h"

namespace vitrail::nn {
namespace {

at::Tensor random(at::IntArrayRef shape, uint16_t layer) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return (ops::uniform({5, core::Stream::test, 0, layer}, at::zeros({1}, at::kLong), count)
              .view(shape) -
          0.5) *
         2.0;
}

/// Random parameters in `type`.
void fill(Module& module, at::ScalarType type = at::kFloat) {
  const at::NoGradGuard no_grad;
  uint16_t layer = 100;
  for (NamedTensor& parameter : module.named_parameters())
    parameter.tensor.set_data(random(parameter.tensor.sizes(), layer++).to(type));
}

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const NamedTensor& parameter : module.named_parameters()) names.push_back(parameter.name);
  return names;
}

std::vector<int64_t> shape_of(int64_t batch, int64_t channels, int64_t axes, int64_t side) {
  std::vector<int64_t> shape{batch, channels};
  for (int64_t axis = 0; axis < axes; ++axis) shape.push_back(side + axis);
  return shape;
}

class EveryNumberOfAxes : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Axes, EveryNumberOfAxes, testing::Values(2, 3));

TEST_P(EveryNumberOfAxes, ConvolutionWeighsNeighboursAndZerosBeyondTheBorder) {
  const int64_t axes = GetParam();
  Conv conv(axes, 1, 1, 3, /*bias=*/true);
  const at::NoGradGuard no_grad;
  for (NamedTensor& parameter : conv.named_parameters()) parameter.tensor.fill_(1.0);
  const at::Tensor x = at::zeros(shape_of(1, 1, axes, 3)).fill_(1.0);
  const at::Tensor y = conv.forward(x).flatten();
  EXPECT_EQ(y[0].item<double>(), std::pow(2, axes) + 1);     // a corner has 2^k neighbours
  EXPECT_EQ(y.max().item<double>(), std::pow(3, axes) + 1);  // the middle 3^k
}

TEST_P(EveryNumberOfAxes, UpConvolutionIsALinearMapOfEveryPlaceToABlock) {
  const int64_t axes = GetParam();
  for (const int64_t factor : {1, 2, 4}) {
    UpConv up(axes, 3, 5, factor);
    fill(up);
    const at::Tensor x = random(shape_of(2, 3, axes, 2), 1);
    const at::Tensor weight = up.named_parameters()[0].tensor.flatten(1);  // [in, out * factor^k]
    const at::Tensor tokens = x.flatten(2).transpose(1, 2).matmul(weight);
    const at::Tensor expected =
        ops::unpatchify(tokens, x.sizes().slice(2), factor, ops::PatchOrder::channel_first);
    // Sums of 3 products below 1.
    EXPECT_LE((up.forward(x) - expected).abs().max().item<double>(), 1e-6);
  }
}

TEST_P(EveryNumberOfAxes, InstanceNormLeavesMeanZeroAndVarianceOne) {
  const at::Tensor x = random(shape_of(2, 3, GetParam(), 4), 2) * 5.0 + 100.0;
  const at::Tensor y = instance_norm(x).flatten(2);
  EXPECT_LE(y.mean(-1).abs().max().item<double>(), 1e-5);  // fp32 rounds 100 at 8e-6
  EXPECT_LE((y.square().mean(-1) - 1.0).abs().max().item<double>(), 1e-4);
}

TEST(InstanceNorm, TakesStatisticsOfBf16InFp32) {
  // A mean of 100 rounds to steps of 0.5 in bf16, which would move every result by up to 0.25 / 2.9.
  const at::Tensor x = (random({1, 2, 8, 9}, 3) * 5.0 + 100.0).to(at::kBFloat16);
  const at::Tensor expected = instance_norm(x.to(at::kFloat));
  const double far = (instance_norm(x).to(at::kFloat) - expected).abs().max().item<double>();
  EXPECT_LE(far, 0.5 * std::ldexp(2.0, -8)) << "one rounding of a result below 2";
  EXPECT_EQ(instance_norm(x).scalar_type(), at::kBFloat16);
}

TEST(InstanceNorm, RefusesASinglePlace) {
  EXPECT_THROW(instance_norm(random({2, 3, 1, 1}, 1)), core::Error);
}

TEST(ConvolutionBlocks, HaveMonaisNames) {
  EXPECT_THAT(names_of(ResidualBlock(3, 4, 4)),
              testing::ElementsAre("conv1.conv.weight", "conv2.conv.weight"));
  EXPECT_THAT(names_of(ResidualBlock(3, 2, 4)),
              testing::ElementsAre("conv1.conv.weight", "conv2.conv.weight", "conv3.conv.weight"));
  EXPECT_THAT(names_of(RaiseBlock(2, 8, 4, 1)),
              testing::ElementsAre("transp_conv_init.conv.weight", "blocks.0.0.conv.weight",
                                   "blocks.0.1.conv1.conv.weight", "blocks.0.1.conv2.conv.weight"));
  EXPECT_THAT(names_of(MergeBlock(2, 8, 4)),
              testing::ElementsAre("transp_conv.conv.weight", "conv_block.conv1.conv.weight",
                                   "conv_block.conv2.conv.weight", "conv_block.conv3.conv.weight"));
}

TEST_P(EveryNumberOfAxes, BlocksCountTheirMultiplyAdds) {
  const int64_t axes = GetParam();
  const double kernel = std::pow(3, axes), two = std::pow(2, axes);
  EXPECT_EQ(ResidualBlock(axes, 2, 4).multiply_adds(10), 10 * (8 * kernel + 16 * kernel + 8));
  EXPECT_EQ(MergeBlock(axes, 8, 4).multiply_adds(10),
            10 * 32 * two + 10 * two * (32 * kernel + 16 * kernel + 32));
  EXPECT_EQ(RaiseBlock(axes, 8, 4, 1).multiply_adds(10),
            10 * 32 * two + 10 * two * 16 * two + 10 * two * two * 32 * kernel);
}

TEST(ConvolutionBlocks, RefuseMapsThatDoNotFit) {
  MergeBlock merge(2, 4, 2);
  fill(merge);
  EXPECT_THROW(merge.forward(random({1, 4, 3, 3}, 1), random({1, 2, 5, 6}, 2)), core::Error);
  EXPECT_THROW(merge.forward(random({1, 3, 3, 3}, 1), random({1, 2, 6, 6}, 2)), core::Error);
}

/// Every gradient against central differences in fp64, three elements of each tensor. The step errs by h^2 / 6 times the
/// third derivative and by rounding, 1e-16 / h: both near 1e-10 of values near 1; the kink of the leaky ReLU lies within
/// a step of none of the few hundred values for this seed.
void check_gradients(Module& module, std::vector<at::Tensor> tensors,
                     const std::function<at::Tensor(const std::vector<at::Tensor>&)>& forward) {
  constexpr double kStep = 1e-5, kBound = 1e-7;
  fill(module, at::kDouble);
  for (at::Tensor& tensor : tensors) tensor = tensor.to(at::kDouble).set_requires_grad(true);
  std::vector<at::Tensor> all = tensors;
  for (const NamedTensor& parameter : module.named_parameters()) all.push_back(parameter.tensor);
  const auto value = [&] {
    const at::Tensor y = forward(tensors);
    return (y * random(y.sizes(), 9).to(at::kDouble)).sum();
  };
  value().backward();
  const at::NoGradGuard no_grad;
  double far = 0.0;
  for (at::Tensor& tensor : all) {
    double* element = tensor.mutable_data_ptr<double>();
    for (int64_t pick = 0; pick < 3; ++pick) {
      const int64_t e = (7 + pick * tensor.numel() / 3) % tensor.numel();
      const double centre = element[e];
      element[e] = centre + kStep;
      const double high = value().item<double>();
      element[e] = centre - kStep;
      const double low = value().item<double>();
      element[e] = centre;
      const double slope = tensor.grad().flatten()[e].item<double>();
      far = std::max(far,
                     std::abs((high - low) / (2 * kStep) - slope) / std::max(1.0, std::abs(slope)));
    }
  }
  std::printf("worst relative difference %.2e (allowed %.0e)\n", far, kBound);
  EXPECT_LE(far, kBound);
}

TEST_P(EveryNumberOfAxes, GradientsOfBlocksAreTheirDifferences) {
  const int64_t axes = GetParam();
  ResidualBlock wider(axes, 2, 3), plain(axes, 2, 2);
  const auto through = [](const auto& block) {
    return [&block](const std::vector<at::Tensor>& x) { return block.forward(x[0]); };
  };
  check_gradients(wider, {random(shape_of(2, 2, axes, 3), 1)}, through(wider));
  check_gradients(plain, {random(shape_of(2, 2, axes, 3), 1)}, through(plain));
  RaiseBlock raise(axes, 3, 2, 1);
  check_gradients(raise, {random(shape_of(2, 3, axes, 1), 1)}, through(raise));
  MergeBlock merge(axes, 3, 2), keep(axes, 3, 2, 1);
  const auto both = [](const MergeBlock& block) {
    return [&block](const std::vector<at::Tensor>& x) { return block.forward(x[0], x[1]); };
  };
  std::vector<int64_t> twice = shape_of(2, 2, axes, 2);
  for (int64_t axis = 0; axis < axes; ++axis) twice[2 + axis] *= 2;
  check_gradients(merge, {random(shape_of(2, 3, axes, 2), 1), random(twice, 2)}, both(merge));
  check_gradients(keep, {random(shape_of(2, 3, axes, 2), 1), random(shape_of(2, 2, axes, 2), 2)},
                  both(keep));
}

}  // namespace
}  // namespace vitrail::nn
