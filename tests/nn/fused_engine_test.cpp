// The fused engine's explicit gradients against the autograd engine's, every option of a block and every pair of them.

#include "vitrail/nn/fused_engine.h"

#include <cmath>
#include <cstdio>
#include <functional>

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/nn/fused_cases.h"
#include "vitrail/ops/attention.h"

namespace vitrail::nn {
namespace {

std::string name_of(const testing::TestParamInfo<BlockCase>& tested) { return tested.param.name; }

class Fused : public testing::TestWithParam<BlockCase> {};
INSTANTIATE_TEST_SUITE_P(Options, Fused, testing::ValuesIn(block_cases()), name_of);
class FusedPair : public testing::TestWithParam<BlockCase> {};
INSTANTIATE_TEST_SUITE_P(Options, FusedPair, testing::ValuesIn(paired_cases()), name_of);

// The same sums in another order: about 20 roundings of 1.1e-16 (6e-8 in fp32) in a row, made larger by gradients that
// cancel; worst seen 3e-15 and 2e-6.
constexpr double kDoubleTolerance = 1e-12, kFloatTolerance = 1e-5;

TEST_P(Fused, GradientsAreThoseOfTheAutogradEngine) {
  const TrunkResult plain = run_trunk(GetParam(), autograd_engine(), at::kDouble);
  EXPECT_LT(
      worst_difference(GetParam().name, plain, run_trunk(GetParam(), fused_engine(), at::kDouble)),
      kDoubleTolerance);
  const TrunkResult single = run_trunk(GetParam(), autograd_engine(), at::kFloat);
  EXPECT_LT(worst_difference(GetParam().name + " fp32", single,
                             run_trunk(GetParam(), fused_engine(), at::kFloat)),
            kFloatTolerance);
}

TEST_P(FusedPair, GradientsAreThoseOfTheAutogradEngine) {
  const TrunkResult plain = run_trunk(GetParam(), autograd_engine(), at::kDouble);
  EXPECT_LT(
      worst_difference(GetParam().name, plain, run_trunk(GetParam(), fused_engine(), at::kDouble)),
      kDoubleTolerance);
}

TEST_P(Fused, EveryKindOfRecomputeGivesTheBitsOfKeepingEverything) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const TrunkResult plain = run_trunk(GetParam(), fused_engine(), type);
    FusedOptions cheap;
    cheap.keeps_cheap = false;
    EXPECT_TRUE(has_same_bits(plain, run_trunk(GetParam(), fused_engine({}, cheap), type)));
    for (const Recompute kind : {Recompute::block, Recompute::every_k, Recompute::selective}) {
      SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << " in " << type);
      EXPECT_TRUE(has_same_bits(plain, run_trunk(GetParam(), fused_engine({kind, 2}), type)));
      CopyingStore store;
      EXPECT_TRUE(
          has_same_bits(plain, run_trunk(GetParam(), fused_engine({kind, 2, &store}), type)));
      EXPECT_GT(store.kept, 0);
    }
  }
}

/// Relative errors in bf16 against fp32, of the fused and of the autograd engine.
std::pair<double, double> errors_in_bf16(const BlockCase& c) {
  const TrunkResult exact = run_trunk(c, autograd_engine(), at::kFloat, at::kBFloat16);
  return {error_of(exact, run_trunk(c, fused_engine(), at::kBFloat16, at::kBFloat16)),
          error_of(exact, run_trunk(c, autograd_engine(), at::kBFloat16, at::kBFloat16))};
}

// Every step of both engines rounds to bf16; the fused one rounds less often, and its gradients of parameters not at
// all. Tensors are small, so each error scatters by a few percent: worst seen 1.02 times autograd's.
TEST_P(Fused, ErrorInBf16IsNotAboveTheAutogradEngines) {
  const auto [fused, autograd] = errors_in_bf16(GetParam());
  std::printf("%s: relative error in bf16 %.3g, of the autograd engine %.3g\n",
              GetParam().name.c_str(), fused, autograd);
  EXPECT_LE(fused, 1.05 * autograd);
}

TEST(FusedEngine, ErrorInBf16IsBelowTheAutogradEnginesOverAllOptions) {
  double ratios = 0.0;
  for (const BlockCase& c : block_cases()) {
    const auto [fused, autograd] = errors_in_bf16(c);
    ratios += std::log(fused / autograd);
  }
  const double mean = std::exp(ratios / static_cast<double>(block_cases().size()));
  std::printf("error in bf16 over that of the autograd engine, geometric mean %.3f\n", mean);
  EXPECT_LT(mean, 1.0);
}

TEST(FusedEngine, ABiasOfKeysHasNoGradientAtAll) {
  const BlockCase c = block_cases().front();
  const auto stack = trunk_of(c, at::kDouble);
  stack->set_engine(fused_engine());
  const BlockRun given = make_run(c);
  scalar_of(stack->forward(given.x_BTD, given.context)).backward();
  const at::Tensor bias = stack->block(0).attention().qkv().bias().grad();
  const at::Tensor of_keys = bias.narrow(0, kCaseWidth, kCaseWidth);
  EXPECT_TRUE(at::equal(of_keys, at::zeros_like(of_keys)));
  EXPECT_GT(bias.narrow(0, 0, kCaseWidth).abs().min().item().toDouble(), 0.0);
}

TEST(FusedEngine, GradientsOfBf16ParametersAreFp32) {
  const BlockCase c = block_cases().front();
  const TrunkResult result = run_trunk(c, fused_engine(), at::kBFloat16);
  for (const auto& [name, gradient] : result.parameters)
    EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
}

TEST(FusedEngine, FrozenParametersGetNoGradient) {
  const BlockCase c = block_cases().back();
  const auto stack = trunk_of(c, at::kDouble);
  stack->set_engine(fused_engine());
  const std::vector<NamedTensor> parameters = stack->named_parameters();
  for (size_t p = 0; p < parameters.size(); p += 2) parameters[p].tensor.set_requires_grad(false);
  const BlockRun given = make_run(c);
  scalar_of(stack->forward(given.x_BTD, given.context)).backward();
  for (size_t p = 0; p < parameters.size(); ++p)
    EXPECT_EQ(parameters[p].tensor.grad().defined(), p % 2 == 1) << parameters[p].name;
}

TEST(FusedEngine, AWrittenOutCoreRunsUnderAutograd) {
  const BlockCase c = block_cases().front();
  const auto plain_core = [](Stack& stack) {
    for (int i = 0; i < stack.depth(); ++i)
      stack.block(i).attention().set_attend(
          [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             const at::Tensor& mask) { return ops::plain_attention(q, k, v, mask); });
  };
  const TrunkResult plain = run_trunk(c, autograd_engine(), at::kDouble, at::kDouble, plain_core);
  EXPECT_LT(worst_difference("written out", plain,
                             run_trunk(c, fused_engine(), at::kDouble, at::kDouble, plain_core)),
            kDoubleTolerance);
}

TEST(FusedEngine, BlocksWithProductsOfTheirOwnFallBack) {
  const BlockCase c = block_cases().front();
  int calls = 0;
  const auto own_product = [&](Stack& stack) {
    stack.block(1).mlp().fc2().set_product(
        [&](const at::Tensor& x, const at::Tensor& weight) {
          ++calls;
          return x.matmul(weight.t());
        },
        {});
  };
  const TrunkResult plain = run_trunk(c, autograd_engine(), at::kDouble, at::kDouble, own_product);
  const int calls_of_autograd = calls;
  EXPECT_LT(worst_difference("a product of its own", plain,
                             run_trunk(c, fused_engine(), at::kDouble, at::kDouble, own_product)),
            kDoubleTolerance);
  EXPECT_EQ(calls, 2 * calls_of_autograd);
}

TEST(FusedEngine, SaysWhatABlockKeeps) {
  const BlockCase c = block_cases().front();
  const auto stack = trunk_of(c, at::kFloat);
  auto engine = fused_engine();
  FusedEngine& fused = *engine;
  stack->set_engine(std::move(engine));
  const BlockRun given = make_run(c, at::kFloat);
  stack->forward(given.x_BTD, given.context);
  // 7 tokens of 3 samples: (8 + 2 * 20 / 48) * 48 values, and 4 sums of each token, in fp32.
  EXPECT_THAT(fused.describe(), testing::HasSubstr("a block keeps 0.03 MiB: x 0.00"));
  EXPECT_EQ(fused.name(), "fused");
}

}  // namespace
}  // namespace vitrail::nn
