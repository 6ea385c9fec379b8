// The fused engine's kernels inside whole blocks: bf16 on a GPU against the autograd engine there, in fp32 and in bf16.

#include "vitrail/nn/fused_engine.h"

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include "tests/nn/fused_cases.h"

namespace vitrail::nn {
namespace {

const at::Device kGpu(at::kCUDA, 0);
constexpr int64_t kBatch = 4, kWidth = 128, kHeads = 4, kTokens = 197;

struct GpuCase {
  std::string name;
  BlockOptions options;
  Rope rope = Rope::none;
  bool masked = false, gaps = false, training = false, every_sample = false;
  int64_t tokens = kTokens;
};

std::vector<GpuCase> gpu_cases() {
  GpuCase plain{.name = "Gelu", .options = {}};
  plain.options.width = kWidth, plain.options.num_heads = kHeads;
  plain.options.mlp_hidden = 256;
  std::vector<GpuCase> cases{plain};
  const auto add = [&](const char* name, auto&& change) {
    GpuCase next = plain;
    next.name = name;
    change(next);
    cases.push_back(next);
  };
  add("GeluTanh", [](GpuCase& c) { c.options.mlp = MlpKind::gelu_tanh; });
  add("Swiglu", [](GpuCase& c) { c.options.mlp = MlpKind::swiglu; });
  add("RmsNorm", [](GpuCase& c) { c.options.norm.kind = NormKind::rmsnorm; });
  add("QkNorm", [](GpuCase& c) { c.options.qk_norm = true; });
  add("LayerScale", [](GpuCase& c) { c.options.layer_scale = true; });
  add("GroupedQueries", [](GpuCase& c) { c.options.num_kv_heads = 2; });
  add("NoBiases", [](GpuCase& c) { c.options.qkv_bias = c.options.proj_bias = false; });
  add("Rope", [](GpuCase& c) { c.rope = Rope::axial; });
  add("RopeOfSample", [](GpuCase& c) { c.rope = Rope::axial, c.every_sample = true; });
  add("KeyMask", [](GpuCase& c) { c.masked = true; });
  add("KeyMaskWithGaps", [](GpuCase& c) { c.masked = c.gaps = true; });
  add("Conditioned", [](GpuCase& c) { c.options.conditioned = true; });
  add("DropPath", [](GpuCase& c) { c.options.drop_path = 0.4, c.training = true; });
  add("AttnDrop", [](GpuCase& c) { c.options.attn_drop = 0.3, c.training = true; });
  add("ProjDrop", [](GpuCase& c) { c.options.proj_drop = 0.3, c.training = true; });
  add("KeysThatCudnnAvoids", [](GpuCase& c) { c.tokens = 192; });
  add("HeadsOf80", [](GpuCase& c) { c.options.width = 320, c.tokens = 257; });
  add("Everything", [](GpuCase& c) {
    c.options.mlp = MlpKind::swiglu, c.options.norm.kind = NormKind::rmsnorm;
    c.options.qk_norm = c.options.layer_scale = c.options.conditioned = true;
    c.options.num_kv_heads = 2, c.options.drop_path = 0.2, c.options.proj_drop = 0.25;
    c.rope = Rope::axial, c.masked = c.training = true;
  });
  return cases;
}

Context context_of(const GpuCase& c, at::ScalarType type) {
  Context context = Draws{11, 3, at::arange(100, 100 + kBatch, at::kLong).to(kGpu), c.training};
  if (c.rope != Rope::none) {
    const ops::Rotary table =
        ops::axial_rotary({1, c.tokens - 1}, 1, c.options.width / c.options.num_heads, 100.0);
    const int64_t samples = c.every_sample ? kBatch : 1;
    const auto on_gpu = [&](const at::Tensor& x) {
      return x.expand({samples, -1, -1}).to(kGpu).contiguous();
    };
    context.rotary = {on_gpu(table.cos), on_gpu(table.sin)};
  }
  if (c.masked) {
    const at::Tensor real_B = at::tensor({150, 1, 100, 1000}, at::kLong).unsqueeze(1);
    at::Tensor mask = at::arange(c.tokens).unsqueeze(0).lt(real_B);
    if (c.gaps) mask.select(1, 0).fill_(true), mask.narrow(1, 3, 5).fill_(false);
    context.key_mask_BT = mask.to(kGpu);
    context.key_mask_is_prefix = !c.gaps;
  }
  if (c.options.conditioned)
    context.condition_BD = (draw(1, {kBatch, c.options.width}) * 3.0)
                               .to(at::kBFloat16)
                               .to(kGpu, type)
                               .set_requires_grad(true);
  return context;
}

/// Three blocks, the middle one tapped; values that bf16 holds.
TrunkResult run_on_gpu(const GpuCase& c, std::unique_ptr<BlockEngine> engine, at::ScalarType type) {
  const auto stack = trunk_of({.name = c.name, .options = c.options}, type, at::kBFloat16);
  for (NamedTensor& parameter : stack->named_parameters())
    parameter.tensor.set_data((parameter.tensor.detach() * 0.3).to(at::kBFloat16).to(kGpu, type));
  stack->set_engine(std::move(engine));
  const Context context = context_of(c, type);
  const at::Tensor x_BTD = (draw(0, {kBatch, c.tokens, c.options.width}) * 3.0)
                               .to(at::kBFloat16)
                               .to(kGpu, type)
                               .set_requires_grad(true);
  at::Tensor weights = draw(2, x_BTD.sizes()).to(kGpu, at::kFloat);
  // Tokens that count for nothing have no gradient.
  if (context.key_mask_BT.defined()) weights = weights * context.key_mask_BT.unsqueeze(2);
  std::vector<at::Tensor> taps;
  TrunkResult result;
  result.output = stack->forward(x_BTD, context, {1}, &taps);
  (result.output * weights + taps[0] * weights * 0.5).sum().backward();
  result.output = (result.output * weights.ne(0)).detach();
  result.input = x_BTD.grad();
  if (context.condition_BD.defined()) result.condition = context.condition_BD.grad();
  for (const NamedTensor& parameter : stack->named_parameters()) {
    result.parameters.emplace_back(parameter.name, parameter.tensor.grad());
    if (c.rope == Rope::none && parameter.name.ends_with("k_norm.bias"))
      result.flat.push_back(parameter.name);
  }
  return result;
}

std::unique_ptr<FusedEngine> with_attention(ops::AttentionKind kind, Recompute recompute = {}) {
  FusedOptions options;
  options.attention = kind;
  return fused_engine({recompute, 2}, options);
}

TEST(GpuFusedEngine, ErrorIsNotAboveTheAutogradEnginesInBf16) {
  using enum ops::AttentionKind;
  for (const GpuCase& c : gpu_cases()) {
    const TrunkResult exact = run_on_gpu(c, autograd_engine(), at::kFloat);
    const double autograd = error_of(exact, run_on_gpu(c, autograd_engine(), at::kBFloat16));
    const std::pair<const char*, ops::AttentionKind> kinds[] = {{"auto", automatic},
                                                                {"cudnn", cudnn},
                                                                {"short", own_short},
                                                                {"narrow", own_narrow},
                                                                {"aten", aten}};
    for (const auto& [name, kind] : kinds) {
      const double fused = error_of(exact, run_on_gpu(c, with_attention(kind), at::kBFloat16));
      std::printf("%s, attention %s: relative error %.3g, of the autograd engine %.3g\n",
                  c.name.c_str(), name, fused, autograd);
      // One draw of roundings: the CPU's cases scatter by 2 percent.
      EXPECT_LE(fused, 1.05 * autograd) << c.name << ", attention " << name;
    }
  }
}

TEST(GpuFusedEngine, RecomputedGradientsAreEqualBitForBit) {
  const GpuCase plain = gpu_cases().front(), every = gpu_cases().back();
  for (const GpuCase& c : {plain, every}) {
    const auto kind = ops::AttentionKind::own_short;  // deterministic
    const TrunkResult kept = run_on_gpu(c, with_attention(kind), at::kBFloat16);
    for (const Recompute recompute : {Recompute::block, Recompute::every_k, Recompute::selective})
      EXPECT_TRUE(
          has_same_bits(kept, run_on_gpu(c, with_attention(kind, recompute), at::kBFloat16)))
          << c.name << ", kind " << static_cast<int>(recompute);
    FusedOptions cheap;
    cheap.attention = kind, cheap.keeps_cheap = false;
    EXPECT_TRUE(has_same_bits(kept, run_on_gpu(c, fused_engine({}, cheap), at::kBFloat16)))
        << c.name;
  }
}

TEST(GpuFusedEngine, Fp32FallsBack) {
  const GpuCase c = gpu_cases().front();
  const TrunkResult plain = run_on_gpu(c, autograd_engine(), at::kFloat);
  EXPECT_LT(worst_difference("fp32", plain, run_on_gpu(c, fused_engine(), at::kFloat)), 1e-5);
}

}  // namespace
}  // namespace vitrail::nn
