#include "vitrail/ops/gelu_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace vitrail::ops {
namespace {

// Sums of 24 products in fp64.
constexpr double kAllowed = 1e-12;

double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(GeluProduct, IsTheLayerAndItsGelu) {
  const at::Tensor x = at::randn({2, 5, 24}, at::kDouble),
                   weight = at::randn({40, 24}, at::kDouble), bias = at::randn({40}, at::kDouble);
  const GeluProduct found = gelu_product(x, weight, bias);
  const at::Tensor pre = at::linear(x, weight, bias);
  EXPECT_LE(worst(found.pre, pre), kAllowed);
  EXPECT_LE(worst(found.out, at::gelu(pre)), kAllowed);
  EXPECT_LE(worst(gelu_product(x, weight, {}).out, at::gelu(at::linear(x, weight))), kAllowed);
}

TEST(GeluProduct, BackwardIsTheGradientOfGelusInputAndAddsItsColumns) {
  const at::Tensor dy = at::randn({2, 5, 24}, at::kDouble),
                   weight = at::randn({24, 40}, at::kDouble),
                   pre = at::randn({2, 5, 40}, at::kDouble);
  const at::Tensor sums = at::ones({40}, at::kDouble);
  const at::Tensor found = gelu_product_backward(dy, weight, pre, sums);
  const at::Tensor expected = at::gelu_backward(at::matmul(dy, weight), pre);
  EXPECT_LE(worst(found, expected), kAllowed);
  EXPECT_LE(worst(sums, expected.flatten(0, 1).sum(0) + 1.0), kAllowed);
  EXPECT_LE(worst(gelu_product_backward(dy, weight, pre, {}), expected), kAllowed);
}

}  // namespace
}  // namespace vitrail::ops
