// Matrix products of the library and the fused kernel against fp64 on the GPU; tuning; the table of choices.

#include "vitrail/kernels/gemm.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/kernels/gemm_gelu.h"
#include "vitrail/kernels/gemm_table.h"
#include "vitrail/ops/gelu_product.h"
#include "vitrail/parallel/device.h"
#include "vitrail/parallel/graph.h"
#include "vitrail/train/bench_timer.h"

namespace vitrail::kernels {
namespace {

const at::Device kGpu(at::kCUDA, 0);
const auto kBf16 = at::TensorOptions().device(kGpu).dtype(at::kBFloat16);

void* stream() { return parallel::current_stream(kGpu); }
uint16_t* bits(const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); }

struct Operands {
  at::Tensor a, b, bias, c, d;

  explicit Operands(const GemmShape& s) {
    a = s.a_transposed ? at::randn({s.k, s.m}, kBf16) : at::randn({s.m, s.k}, kBf16);
    b = s.b_transposed ? at::randn({s.n, s.k}, kBf16) : at::randn({s.k, s.n}, kBf16);
    bias = at::randn({s.n}, kBf16);
    const auto out = kBf16.dtype(s.is_f32 ? at::kFloat : at::kBFloat16);
    c = at::randn({s.m, s.n}, out);
    // What stands in D must not matter unless it is what is added to.
    d = at::full({s.m, s.n}, std::nan(""), out);
  }
  GemmOperands view(bool in_place = false) const {
    return {bits(a), bits(b), bits(bias), in_place ? nullptr : c.data_ptr(), d.data_ptr()};
  }
  at::Tensor expected(const GemmShape& s) const {
    const auto wide = [](const at::Tensor& t, bool transposed) {
      return transposed ? t.to(at::kDouble).t() : t.to(at::kDouble);
    };
    at::Tensor sum = at::matmul(wide(a, s.a_transposed), wide(b, s.b_transposed));
    if (s.has_bias) sum = sum + bias.to(at::kDouble);
    return s.adds ? sum + c.to(at::kDouble) : sum;
  }
};

double relative(const at::Tensor& found, const at::Tensor& truth) {
  return std::sqrt((found.to(at::kDouble) - truth).square().sum().item<double>() /
                   truth.square().sum().item<double>());
}

// bf16: one rounding to 8 bits, 1.7e-3 in root mean square at most. fp32: sums of up to 1000 products.
double allowed(const GemmShape& shape) { return shape.is_f32 ? 1e-5 : 2.5e-3; }

TEST(GpuGemm, EveryLayoutAndOptionAgreesWithFp64) {
  GemmLibrary library(0);
  double worst_bf16 = 0, worst_f32 = 0;
  int cases = 0, refused = 0;
  for (const auto& [m, n, k] : {std::tuple{8, 8, 8},
                                {50, 72, 40},
                                {591, 768, 768},
                                {256, 3072, 768},
                                {1000, 128, 1000},
                                {33, 1000, 64}})
    for (int option = 0; option < 32; ++option) {
      const GemmShape shape{m,
                            n,
                            k,
                            (option & 1) != 0,
                            (option & 2) != 0,
                            (option & 4) != 0,
                            (option & 8) != 0,
                            (option & 16) != 0};
      // Rows of A that lie transposed begin every m values: not at 16 bytes for all.
      if (shape.a_transposed && m % 8 != 0) continue;
      const Operands operands(shape);
      try {
        library.run(shape, operands.view(), stream());
      } catch (const core::Error& error) {
        if (refused++ == 0) std::printf("refused: %s\n", error.what());
        EXPECT_TRUE(shape.has_bias && shape.is_f32) << error.what();
        continue;
      }
      const double error = relative(operands.d, operands.expected(shape));
      EXPECT_LE(error, allowed(shape)) << to_words(shape);
      (shape.is_f32 ? worst_f32 : worst_bf16) =
          std::max(shape.is_f32 ? worst_f32 : worst_bf16, error);
      ++cases;
    }
  std::printf("%d products: worst error bf16 %.1e (allowed 2.5e-3), fp32 %.1e (1e-5); %d refused\n",
              cases, worst_bf16, worst_f32, refused);
}

TEST(GpuGemm, AddsToWhatStandsInD) {
  GemmLibrary library(0);
  const GemmShape shape{
      .m = 128, .n = 256, .k = 64, .a_transposed = true, .adds = true, .is_f32 = true};
  const Operands operands(shape);
  operands.d.copy_(operands.c);
  library.run(shape, operands.view(true), stream());
  EXPECT_LE(relative(operands.d, operands.expected(shape)), 1e-5);
}

TEST(GpuGemm, WhatCannotBeIsRefusedWithItsShape) {
  GemmLibrary library(0);
  const Operands operands({.m = 16, .n = 16, .k = 16});
  EXPECT_THROW(library.run({.m = 0, .n = 16, .k = 16}, operands.view(), stream()), core::Error);
  GemmOperands odd = operands.view();
  odd.a += 1;
  try {
    library.run({.m = 8, .n = 16, .k = 16}, odd, stream());
    FAIL() << "misaligned operands were taken";
  } catch (const core::Error& error) {
    EXPECT_NE(std::string(error.what()).find("8 x 16 x 16"), std::string::npos) << error.what();
  }
}

std::vector<GemmShape> of_a_block(int64_t rows, int64_t width) {
  std::vector<GemmShape> all;
  for (const auto& [in, out] :
       {std::pair{width, 3 * width}, {width, width}, {width, 4 * width}, {4 * width, width}}) {
    all.push_back({.m = rows, .n = out, .k = in, .b_transposed = true, .has_bias = true});
    all.push_back({.m = rows, .n = in, .k = out});
    all.push_back({.m = out, .n = in, .k = rows, .a_transposed = true, .is_f32 = true});
  }
  return all;
}

TEST(GpuGemm, TunedChoicesAreRightAndComeBackFromTheirTable) {
  GemmLibrary library(0);
  const std::vector<GemmShape> shapes = of_a_block(197 * 32, 768);
  library.tune(shapes, 6, stream());
  for (const GemmShape& shape : shapes) {
    const Operands operands(shape);
    library.run(shape, operands.view(), stream());
    const double error = relative(operands.d, operands.expected(shape));
    // 6304 products in fp32.
    EXPECT_LE(error, shape.is_f32 ? 3e-5 : 2.5e-3) << to_words(shape);
  }
  const std::string path = ::testing::TempDir() + "gemm_choices.txt";
  library.save(path);
  GemmLibrary other(0);
  EXPECT_EQ(other.load(path), static_cast<int>(shapes.size()));
  const std::vector<GemmChoice> before = library.choices(), after = other.choices();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].shape, after[i].shape);
    EXPECT_EQ(before[i].algorithm, after[i].algorithm);
    const Operands operands(before[i].shape);
    library.run(before[i].shape, operands.view(), stream());
    const at::Tensor first = operands.d.clone();
    other.run(before[i].shape, operands.view(), stream());
    EXPECT_TRUE(at::equal(first, operands.d)) << to_words(before[i].shape);
  }
  GemmTable foreign = load_gemm_table(path);
  foreign.device = "another GPU";
  save_gemm_table(foreign, path);
  EXPECT_EQ(GemmLibrary(0).load(path), 0);
  std::remove(path.c_str());
}

TEST(GpuGemm, ARecordedProductGivesTheSameBits) {
  GemmLibrary library(0);
  for (const GemmShape& shape : of_a_block(197 * 8, 384)) {
    const Operands operands(shape);
    const auto run = [&] { library.run(shape, operands.view(), stream()); };
    run();
    const at::Tensor eager = operands.d.clone();
    parallel::Graph graph(kGpu);
    graph.run(run);
    graph.record(run);
    operands.d.zero_();
    graph.replay();
    parallel::synchronize(kGpu);
    EXPECT_TRUE(at::equal(operands.d, eager)) << to_words(shape);
  }
}

TEST(GpuGemmGelu, AgreesWithFp64) {
  if (!has_gemm_gelu()) GTEST_SKIP() << "built without CUTLASS";
  double worst = 0;
  for (const auto& [m, n, k] : {std::tuple{8, 8, 8},
                                {50, 72, 40},
                                {591, 3072, 768},
                                {257, 5120, 1280},
                                {1, 128, 64},
                                {1000, 1000, 1000}}) {
    const GemmShape shape{.m = m, .n = n, .k = k, .b_transposed = true, .has_bias = true};
    ASSERT_TRUE(fits_gemm_gelu(shape)) << to_words(shape);
    const Operands operands(shape);
    const at::Tensor aux = at::full({m, n}, std::nan(""), kBf16);
    const at::Tensor workspace =
        at::empty({gemm_gelu_workspace_bytes(shape) + 256}, kBf16.dtype(at::kByte));
    gemm_gelu(shape, operands.view(), bits(aux), workspace.data_ptr(), stream());
    const at::Tensor sum = operands.expected(shape);
    const double of_aux = relative(aux, sum), of_gelu = relative(operands.d, at::gelu(sum));
    std::printf("%-40s aux %.1e  gelu %.1e (allowed 2.5e-3)  workspace %ld\n",
                to_words(shape).c_str(), of_aux, of_gelu,
                static_cast<long>(gemm_gelu_workspace_bytes(shape)));
    worst = std::max({worst, of_aux, of_gelu});
    EXPECT_LE(std::max(of_aux, of_gelu), 2.5e-3) << to_words(shape);
  }
  GemmShape odd{.m = 8, .n = 12, .k = 8, .b_transposed = true, .has_bias = true};
  EXPECT_FALSE(fits_gemm_gelu(odd));
  EXPECT_THROW(gemm_gelu(odd, {}, nullptr, nullptr, stream()), core::Error);
}

/// d/dx of x Phi(x), in fp64.
at::Tensor gelu_slope(const at::Tensor& x) {
  return 0.5 * (1.0 + at::erf(x * M_SQRT1_2)) +
         x * at::exp(-0.5 * x * x) * (0.5 * M_SQRT1_2 * M_2_SQRTPI);
}

TEST(GpuGemmGelu, BackwardAgreesWithFp64) {
  if (!has_gemm_gelu()) GTEST_SKIP() << "built without CUTLASS";
  for (const auto& [m, n, k] : {std::tuple{8, 8, 8},
                                {50, 72, 40},
                                {591, 3072, 768},
                                {257, 5120, 1280},
                                {1, 128, 64},
                                {1000, 1000, 1000}}) {
    const GemmShape shape{.m = m, .n = n, .k = k};
    ASSERT_TRUE(fits_gemm_gelu_backward(shape)) << to_words(shape);
    const Operands operands(shape);
    const at::Tensor pre = 2.0 * at::randn({m, n}, kBf16);
    const at::Tensor workspace =
        at::empty({gemm_gelu_workspace_bytes(shape) + 256}, kBf16.dtype(at::kByte));
    gemm_gelu_backward(shape, operands.view(), bits(pre), workspace.data_ptr(), stream());
    const double error =
        relative(operands.d, operands.expected(shape) * gelu_slope(pre.to(at::kDouble)));
    std::printf("%-40s gradient %.1e (allowed 2.5e-3)\n", to_words(shape).c_str(), error);
    EXPECT_LE(error, 2.5e-3) << to_words(shape);
  }
}

TEST(GpuGeluProduct, ChoicesOfTheTimingGiveTheSame) {
  const at::Tensor x = at::randn({4, 197, 768}, kBf16),
                   weight = 0.05 * at::randn({3072, 768}, kBf16), bias = at::randn({3072}, kBf16),
                   dy = at::randn({4, 197, 768}, kBf16),
                   down = 0.05 * at::randn({768, 3072}, kBf16);
  const auto both = [&] {
    const ops::GeluProduct up = ops::gelu_product(x, weight, bias);
    const at::Tensor sums = at::zeros({3072}, kBf16.dtype(at::kFloat));
    const at::Tensor dpre = ops::gelu_product_backward(dy, down, up.pre, sums);
    return std::vector<at::Tensor>{up.pre, up.out, dpre, sums};
  };
  const std::vector<at::Tensor> before = both();
  ops::tune_gelu_products(kGpu);
  std::printf("%s\n", ops::gelu_product_choices().c_str());
  const std::vector<at::Tensor> after = both();
  // Where GELU sees the sum before it is rounded, it differs by that rounding.
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_LE(relative(after[i], before[i].to(at::kDouble)), 5e-3) << i;
}

double median_ms(const std::function<void()>& work) {
  train::time_hot(kGpu, 0.2, work);
  return train::quantile(train::time_each(kGpu, 100, work), 0.5);
}

// For the eye: the library's own choices, the tuned ones, and the fused kernel beside the bare product.
TEST(GpuGemm, TimesOfBlocks) {
  struct Model {
    const char* name;
    int64_t rows, width;
  };
  GemmLibrary library(0);
  for (const Model& model : {Model{"Base", 197 * 256, 768}, Model{"Huge", 257 * 128, 1280},
                             Model{"3B", 257 * 32, 2816}}) {
    const std::vector<GemmShape> shapes = of_a_block(model.rows, model.width);
    library.tune(shapes, 8, stream());
    for (const GemmChoice& choice : library.choices()) {
      const GemmShape& s = choice.shape;
      if (std::find(shapes.begin(), shapes.end(), s) == shapes.end()) continue;
      std::printf("%-5s %-40s %.4f -> %.4f ms  %.0f TFLOP/s  %s\n", model.name, to_words(s).c_str(),
                  choice.first_ms, choice.ms,
                  2e-9 * static_cast<double>(s.m) * static_cast<double>(s.n) *
                      static_cast<double>(s.k) / choice.ms,
                  choice.algorithm.c_str());
    }
    const GemmShape up = shapes[6];
    if (!has_gemm_gelu() || !fits_gemm_gelu(up)) continue;
    const Operands operands(up);
    const at::Tensor aux = at::empty({up.m, up.n}, kBf16);
    const double fused =
        median_ms([&] { gemm_gelu(up, operands.view(), bits(aux), nullptr, stream()); });
    const double bare = median_ms([&] { library.run(up, operands.view(), stream()); });
    std::printf("%-5s up with bias, GELU and aux in one kernel %.4f ms; product and bias %.4f ms\n",
                model.name, fused, bare);
  }
}

}  // namespace
}  // namespace vitrail::kernels
