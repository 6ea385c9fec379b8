// Fused blocks with products of 8 bits on a GPU: against the same on the CPU, and their times beside bf16 at the shapes of
// the targets (printed, not judged).

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "tests/nn/fused_cases.h"
#include "vitrail/nn/fused_engine.h"
#include "vitrail/ops/product.h"
#include "vitrail/parallel/device.h"
#include "vitrail/train/bench_timer.h"

namespace vitrail::nn {
namespace {

const at::Device kGpu(at::kCUDA, 0);

std::unique_ptr<BlockEngine> engine_with(Products products, Recompute recompute = {}) {
  FusedOptions fused;
  fused.products = products;
  return fused_engine({recompute, 2}, fused);
}

/// Three blocks on a device, in bf16 (fp32 for the reference).
TrunkResult run_on(at::Device device, const BlockOptions& options,
                   std::unique_ptr<BlockEngine> engine, at::ScalarType type = at::kBFloat16) {
  constexpr int64_t kBatch = 4, kTokens = 65;
  const auto stack = trunk_of({.name = "", .options = options}, type, at::kBFloat16);
  for (NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.set_data((parameter.tensor.detach() * 0.3).to(at::kBFloat16).to(device, type));
  stack->set_engine(std::move(engine));
  const at::Tensor x = (draw(0, {kBatch, kTokens, options.width}) * 3.0)
                           .to(at::kBFloat16)
                           .to(device, type)
                           .set_requires_grad(true);
  const at::Tensor weights = draw(2, x.sizes()).to(device, at::kFloat);
  TrunkResult result;
  result.output = stack->forward(x, Context());
  (result.output * weights).sum().backward();
  result.output = result.output.detach().cpu();
  result.input = x.grad().cpu();
  for (const NamedTensor& parameter : stack->named_parameters())
    if (parameter.tensor.grad().defined())
      result.parameters.emplace_back(parameter.name, parameter.tensor.grad().cpu());
  return result;
}

TEST(GpuFusedFp8, AgreesWithTheCpuAsFarAsBothAgreeWithFp32) {
  for (const MlpKind mlp : {MlpKind::gelu, MlpKind::swiglu})
    for (const Products products : {Products::fp8, Products::fp8_gradients}) {
      BlockOptions options;
      options.width = 256, options.num_heads = 4, options.mlp_hidden = 512, options.mlp = mlp;
      options.layer_scale = mlp == MlpKind::swiglu;
      const TrunkResult exact = run_on(at::kCPU, options, autograd_engine(), at::kFloat),
                        cpu = run_on(at::kCPU, options, engine_with(products)),
                        gpu = run_on(kGpu, options, engine_with(products));
      const double of_cpu = error_of(exact, cpu), of_gpu = error_of(exact, gpu);
      std::printf("%s%s: relative error CPU %.3g, GPU %.3g; between them %.3g\n",
                  mlp == MlpKind::gelu ? "GELU" : "SwiGLU, LayerScale",
                  products == Products::fp8 ? "" : ", weight gradients too", of_cpu, of_gpu,
                  error_of(cpu, gpu));
      // Roundings that fall the other way move codes by a whole step, so the two differ by about what codes lose.
      EXPECT_LE(of_gpu, 1.1 * of_cpu);
      EXPECT_LE(error_of(cpu, gpu), of_cpu);
      EXPECT_TRUE(has_same_bits(gpu, run_on(kGpu, options, engine_with(products))));
      EXPECT_TRUE(
          has_same_bits(gpu, run_on(kGpu, options, engine_with(products, Recompute::block))));
    }
}

/// Milliseconds of forward and backward of one block among eight.
double ms_of_block(const BlockOptions& options, int64_t batch, int64_t tokens, Products products) {
  constexpr int kDepth = 8;
  std::vector<std::shared_ptr<Block>> blocks;
  for (int i = 0; i < kDepth; ++i) {
    BlockOptions own = options;
    own.index = i;
    blocks.push_back(std::make_shared<Block>(own));
  }
  Stack stack(std::move(blocks));
  const auto bf16 = at::TensorOptions().device(kGpu).dtype(at::kBFloat16);
  for (NamedTensor& parameter : stack.named_parameters()) {
    const at::Tensor start = at::randn(parameter.tensor.sizes(), bf16) * 0.02;
    parameter.tensor.set_data(parameter.tensor.dim() == 1 ? start + 1 : start);
  }
  stack.set_engine(engine_with(products));
  const at::Tensor x = at::randn({batch, tokens, options.width}, bf16).set_requires_grad(true);
  const at::Tensor dy = at::randn(x.sizes(), bf16) * 1e-3;
  const auto step = [&] { stack.forward(x, Context()).backward(dy); };
  step();
  ops::tune_products(kGpu, 1.0);
  return train::time_hot(kGpu, 1.5, step) / kDepth;
}

TEST(GpuFusedFp8, PrintsTimesOfBlocks) {
  struct Model {
    const char* name;
    int64_t batch, tokens, width, heads;
  };
  for (const Model& m :
       {Model{"Huge, 128 images", 128, 257, 1280, 16}, Model{"3B, 32 images", 32, 257, 2816, 32},
        Model{"Base, 256 images", 256, 197, 768, 12}}) {
    BlockOptions options;
    options.width = m.width, options.num_heads = m.heads, options.mlp_hidden = 4 * m.width;
    const double bf16 = ms_of_block(options, m.batch, m.tokens, Products::bf16),
                 fp8 = ms_of_block(options, m.batch, m.tokens, Products::fp8),
                 all = ms_of_block(options, m.batch, m.tokens, Products::fp8_gradients);
    std::printf(
        "%-17s ms of a block: bf16 %.3f  fp8 %.3f (%.2fx)  weight gradients too %.3f (%.2fx)\n",
        m.name, bf16, fp8, bf16 / fp8, all, bf16 / all);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace vitrail::nn
