// Products of 8-bit numbers on the CPU: those of the plain loops, and near those of the matrices they stand for.

#include "vitrail/ops/product8.h"

#include <cstdio>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm.h"

namespace vitrail::ops {
namespace {

double relative(const at::Tensor& found, const at::Tensor& truth) {
  return ((found.to(at::kDouble) - truth).norm() / truth.norm()).item<double>();
}

struct Layer {
  at::Tensor x = at::randn({3, 7, 48}).to(at::kBFloat16);
  at::Tensor weight = (at::randn({32, 48}) * 0.1).to(at::kBFloat16);
  at::Tensor bias = at::randn({32}).to(at::kBFloat16);
  at::Tensor dy = (at::randn({3, 7, 32}) * 1e-4).to(at::kBFloat16);
};

at::Tensor wide(const at::Tensor& x) { return x.to(at::kDouble); }
at::Tensor rows(const at::Tensor& x) { return wide(x).view({-1, x.size(-1)}); }

// Each operand is off by up to half a step of 2^-3 of its values, 2.6 % in root mean square (3.6 % together), and a sum
// of 48 averages as its terms do.
constexpr double kCodes = 0.05;

TEST(Product8, ForwardAndBothGradientsAreNearThoseOfBf16) {
  const Layer layer;
  Codes x = quantize(layer.x), weight = quantize(layer.weight), dy = quantize(layer.dy);
  transpose(x), transpose(weight), transpose(dy);
  const at::Tensor added = at::randn({3, 7, 32}).to(at::kBFloat16);
  const double forward =
      relative(product(x, weight, layer.bias, added),
               at::matmul(wide(layer.x), wide(layer.weight).t()) + wide(layer.bias) + wide(added));
  const double input =
      relative(product_input_gradient(dy, weight), at::matmul(wide(layer.dy), wide(layer.weight)));
  const at::Tensor dweight = at::ones({32, 48});
  add_weight_gradient(dweight, dy, x);
  const double gradient =
      relative(wide(dweight) - 1, at::matmul(rows(layer.dy).t(), rows(layer.x)));
  std::printf("relative error of y %.3f, dx %.3f, dW %.3f (allowed %.2f)\n", forward, input,
              gradient, kCodes);
  EXPECT_LE(forward, kCodes);
  EXPECT_LE(input, kCodes);
  EXPECT_LE(gradient, kCodes);
  EXPECT_GT(input, 0.01);  // these are 8 bits
}

TEST(Product8, IsThePlainLoopOfTheSameCodes) {
  const Layer layer;
  const Codes x = quantize(layer.x), weight = quantize(layer.weight);
  kernels::GemmShape shape{.m = 21, .n = 32, .k = 48, .b_transposed = true, .has_bias = true};
  shape.a_type = shape.b_type = kernels::GemmType::e4m3;
  shape.row_scales = true;
  at::Tensor expected = at::empty({3, 7, 32}, at::kBFloat16);
  const auto bytes = [](const at::Tensor& t) {
    return static_cast<const uint8_t*>(t.const_data_ptr());
  };
  kernels::gemm_plain(shape, {.bias = static_cast<const uint16_t*>(layer.bias.const_data_ptr()),
                              .d = expected.data_ptr(),
                              .a8 = bytes(x.values),
                              .b8 = bytes(weight.values),
                              .a_scales = x.scales.const_data_ptr<float>(),
                              .b_scales = weight.scales.const_data_ptr<float>()});
  // Sums of 48 exact products in fp32 and in fp64, rounded to bf16: a neighbour now and then.
  const double error = relative(product(x, weight, layer.bias), wide(expected));
  std::printf("relative difference %.1e (allowed 1e-4)\n", error);
  EXPECT_LE(error, 1e-4);
}

TEST(Product8, ColumnsHoldTheNumbersOfTheRows) {
  const Layer layer;
  Codes codes = quantize(layer.x);
  transpose(codes);
  EXPECT_TRUE(codes.transposed.sizes() == at::IntArrayRef({48, 32}));
  const at::Tensor by_rows = numbers_of_rows(codes).view({21, 48});
  const at::Tensor by_columns = numbers_of_columns(codes).t();
  // Rows of one size: only numbers below the last steps of the largest row differ.
  EXPECT_LE((by_rows - by_columns).abs().max().item<double>(),
            codes.largest.item<double>() * 0x1p-10);
  EXPECT_TRUE(at::equal(codes.column_scales, at::ones({48}) * codes.largest));
}

TEST(Product8, AddsASecondInputGradient) {
  const Layer layer;
  Codes weight = quantize(layer.weight);
  const Codes dy = quantize(layer.dy);
  transpose(weight);
  const at::Tensor once = product_input_gradient(dy, weight);
  at::Tensor twice = once.clone();
  add_product_input_gradient(twice, dy, weight);
  EXPECT_LE(relative(twice, 2 * wide(once)), 0.004);  // two roundings to bf16
}

TEST(Product8, RefusesWidthsThatTensorCoresDoNotTake) {
  EXPECT_THROW(quantize(at::ones({4, 24}, at::kBFloat16)), core::Error);
  EXPECT_THROW(quantize(at::ones({4, 32})), core::Error);
}

}  // namespace
}  // namespace vitrail::ops
