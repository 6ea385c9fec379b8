// Products of 8-bit numbers on a GPU: quantisation against the plain loops, products against those of the numbers that the
// codes stand for, and their times beside bf16 at the shapes of the targets (printed, not judged).

#include <cstdio>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/gpu/gpu_memory.h"
#include "tests/kernels/quantize_cases.h"
#include "vitrail/ops/product.h"
#include "vitrail/ops/product8.h"
#include "vitrail/train/bench_timer.h"

namespace vitrail::testing {
namespace {

using ops::Codes;

const auto kBf16 = at::TensorOptions().device(kGpu).dtype(at::kBFloat16);

TEST(GpuFp8, QuantisationEqualsThePlainLoopBitForBit) {
  const QuantizeCandidate gpu{
      [](const QuantizeRows& task) { kernels::quantize_rows(task, stream()); },
      [](const TransposeQuantized& task) { kernels::transpose_quantized(task, stream()); }};
  for (const QuantizeCase& c : quantize_cases()) {
    GpuMemory memory;
    check_quantize(gpu, c, memory);
  }
}

double relative(const at::Tensor& found, const at::Tensor& truth) {
  const at::Tensor wide = truth.to(at::kDouble);
  return ((found.to(at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

/// A linear layer of `rows` tokens.
struct Layer {
  at::Tensor x, weight, bias, added, dy, dweight;
  Codes x_codes, weight_codes, dy_codes;

  Layer(int64_t rows, int64_t out, int64_t in)
      : x(at::randn({rows, in}, kBf16)),
        weight(at::randn({out, in}, kBf16) * 0.02),
        bias(at::randn({out}, kBf16)),
        added(at::randn({rows, out}, kBf16)),
        dy(at::randn({rows, out}, kBf16) * 1e-3),
        dweight(at::zeros({out, in}, kBf16.dtype(at::kFloat))) {}
  void read() {
    for (auto [codes, from] :
         {std::pair{&x_codes, &x}, {&weight_codes, &weight}, {&dy_codes, &dy}}) {
      *codes = ops::quantize(*from);
      ops::transpose(*codes);
    }
  }
};

// Of what the codes stand for: one rounding to bf16 (1.7e-3 in root mean square at most), and fast sums, whose 14 bits
// cut off up to 2^-13 of a running sum in each of a few hundred additions. The weight gradient is fp32 with full sums.
constexpr double kRounded = 4e-3, kSummed = 1e-3;
// Of bf16: each operand off by 2.6 %.
constexpr double kCodes = 0.045;

TEST(GpuFp8, ProductsAreThoseOfTheNumbersThatCodesStandFor) {
  for (const auto& [rows, out, in] : {std::tuple{33, 48, 64},
                                      {257, 2304, 768},
                                      {4112, 3840, 1280},
                                      {4112, 1280, 5120},
                                      {1000, 11264, 2816}}) {
    Layer layer(rows, out, in);
    layer.read();
    const at::Tensor x = ops::numbers_of_rows(layer.x_codes),
                     w = ops::numbers_of_rows(layer.weight_codes);
    const at::Tensor dy = ops::numbers_of_rows(layer.dy_codes);
    const double forward =
        relative(ops::product(layer.x_codes, layer.weight_codes, layer.bias, layer.added),
                 at::matmul(x, w.t()) + layer.bias + layer.added);
    const at::Tensor dx = ops::product_input_gradient(layer.dy_codes, layer.weight_codes);
    const double input =
        relative(dx, at::matmul(dy, ops::numbers_of_columns(layer.weight_codes).t()));
    ops::add_weight_gradient(layer.dweight, layer.dy_codes, layer.x_codes);
    ops::add_weight_gradient(layer.dweight, layer.dy_codes, layer.x_codes);
    const at::Tensor product = at::matmul(ops::numbers_of_columns(layer.dy_codes),
                                          ops::numbers_of_columns(layer.x_codes).t());
    const double gradient = relative(layer.dweight, 2 * product);
    const double of_bf16 =
        relative(dx, at::matmul(layer.dy.to(at::kFloat), layer.weight.to(at::kFloat)));
    std::printf(
        "%ld x %ld x %ld: y %.1e, dx %.1e (allowed %.0e), dW %.1e (%.0e); dx of bf16 %.1e (%.1e)\n",
        long{rows}, long{out}, long{in}, forward, input, kRounded, gradient, kSummed, of_bf16,
        kCodes);
    EXPECT_LE(forward, kRounded);
    EXPECT_LE(input, kRounded);
    EXPECT_LE(gradient, kSummed);
    EXPECT_LE(of_bf16, kCodes);
  }
}

TEST(GpuFp8, CodesAndProductsAreThoseOfTheCpu) {
  Layer layer(130, 96, 144);
  layer.read();
  Codes on_cpu = ops::quantize(layer.x.cpu());
  ops::transpose(on_cpu);
  EXPECT_TRUE(at::equal(layer.x_codes.values.cpu(), on_cpu.values));
  EXPECT_TRUE(at::equal(layer.x_codes.transposed.cpu(), on_cpu.transposed));
  EXPECT_TRUE(at::equal(layer.x_codes.scales.cpu(), on_cpu.scales));
  const at::Tensor y = ops::product(on_cpu, ops::quantize(layer.weight.cpu()), layer.bias.cpu());
  EXPECT_LE(relative(ops::product(layer.x_codes, layer.weight_codes, layer.bias).cpu(), y),
            kRounded);
}

struct Times {
  double forward = 0, input = 0, weight = 0;
  Times& operator+=(const Times& other) {
    forward += other.forward, input += other.input, weight += other.weight;
    return *this;
  }
  double sum() const { return forward + input + weight; }
};

constexpr double kSeconds = 0.06;

template <class Work>
double ms(Work&& work) {
  return train::time_hot(kGpu, kSeconds, work);
}

Times in_bf16(Layer& l) {
  return {ms([&] { ops::product(l.x, l.weight, l.bias); }),
          ms([&] { ops::product_input_gradient(l.dy, l.weight); }),
          ms([&] { ops::add_weight_gradient(l.dweight, l.dy, l.x); })};
}
Times products_in_fp8(Layer& l) {
  l.read();
  return {ms([&] { ops::product(l.x_codes, l.weight_codes, l.bias); }),
          ms([&] { ops::product_input_gradient(l.dy_codes, l.weight_codes); }),
          ms([&] { ops::add_weight_gradient(l.dweight, l.dy_codes, l.x_codes); })};
}
/// What becomes codes apart from the products: rows of x, dy and the weight twice; then columns of x and dy.
Times quantisation(Layer& l) {
  const auto columns = [](const at::Tensor& t) {
    Codes codes = ops::quantize(t);
    ops::transpose(codes);
  };
  const double x = ms([&] { ops::quantize(l.x); }), dy = ms([&] { ops::quantize(l.dy); });
  const double both = ms([&] { columns(l.x); }) + ms([&] { columns(l.dy); });
  return {x + ms([&] { ops::quantize(l.weight); }), dy + ms([&] { columns(l.weight); }),
          both - x - dy};
}

TEST(GpuFp8, PrintsTimesBesideBf16) {
  struct Model {
    const char* name;
    int64_t tokens, width, hidden;
  };
  for (const Model& m : {Model{"Huge, 128 images", 128 * 257, 1280, 5120},
                         Model{"3B, 32 images", 32 * 257, 2816, 11264},
                         Model{"Base, 256 images", 256 * 197, 768, 3072}}) {
    std::vector<Layer> layers;
    for (const auto& [out, in] : {std::pair{3 * m.width, m.width},
                                  {m.width, m.width},
                                  {m.hidden, m.width},
                                  {m.width, m.hidden}})
      layers.emplace_back(m.tokens, out, in);
    for (Layer& l : layers) {
      l.read();
      ops::product(l.x, l.weight, l.bias), ops::product_input_gradient(l.dy, l.weight);
      ops::add_weight_gradient(l.dweight, l.dy, l.x);
      ops::product(l.x_codes, l.weight_codes, l.bias);
      ops::product_input_gradient(l.dy_codes, l.weight_codes);
      ops::add_weight_gradient(l.dweight, l.dy_codes, l.x_codes);
    }
    ops::tune_products(kGpu, 1.5);
    Times wide, narrow, made;
    const char* names[] = {"qkv", "proj", "fc1", "fc2"};
    for (size_t i = 0; i < layers.size(); ++i) {
      const Times a = in_bf16(layers[i]), b = products_in_fp8(layers[i]),
                  c = quantisation(layers[i]);
      std::printf(
          "%-17s %-4s ms: bf16 %.3f %.3f %.3f  fp8 %.3f %.3f %.3f  quantisation %.3f %.3f %.3f\n",
          m.name, names[i], a.forward, a.input, a.weight, b.forward, b.input, b.weight, c.forward,
          c.input, c.weight);
      wide += a, narrow += b, made += c;
    }
    std::printf(
        "%-17s all ms: bf16 %.3f  fp8 with weight gradients in bf16 %.3f (%.2fx), in fp8 %.3f "
        "(%.2fx); "
        "products alone %.2fx\n",
        m.name, wide.sum(), narrow.forward + narrow.input + wide.weight + made.forward + made.input,
        wide.sum() / (narrow.forward + narrow.input + wide.weight + made.forward + made.input),
        narrow.sum() + made.sum(), wide.sum() / (narrow.sum() + made.sum()),
        wide.sum() / narrow.sum());
  }
}

}  // namespace
}  // namespace vitrail::testing
