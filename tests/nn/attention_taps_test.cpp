// What attention's heads read, tapped out of a trunk: under every engine, option and recompute kind the values and gradients
// of plain autograd.

#include <cstdio>
#include <map>

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "tests/nn/fused_cases.h"
#include "vitrail/nn/fused_engine.h"

namespace vitrail::nn {
namespace {

std::string name_of(const testing::TestParamInfo<BlockCase>& tested) { return tested.param.name; }

/// Which results of a trunk of three blocks enter the loss.
struct Asked {
  std::vector<Tap> taps;
  bool of_output = true;
};

const Asked kMixed{{{2, TapOf::attention}, 1, {0, TapOf::attention}, {1, TapOf::attention}, 2}};
const Asked kLastAlone{{{2, TapOf::attention}}, false};
const Asked kFirstAlone{{{0, TapOf::attention}}, false};

/// The blocks one by one in the outer graph; `stack` keeps its engine.
at::Tensor plain(Stack& stack, at::Tensor x_BTD, Context context, const std::vector<Tap>& taps,
                 std::vector<at::Tensor>& tapped) {
  std::vector<at::Tensor> outputs(3), attentions(3);
  for (int i = 0; i < 3; ++i) {
    context.attended_BTD = &attentions[i];
    outputs[i] = x_BTD = stack.block(i).forward(x_BTD, context);
  }
  for (const Tap& tap : taps)
    tapped.push_back((tap.of == TapOf::output ? outputs : attentions)[tap.block]);
  return x_BTD;
}

/// A null engine: plain autograd. Two micro-batches.
TrunkResult run_tapped(const BlockCase& c, const Asked& asked, std::unique_ptr<BlockEngine> engine,
                       at::ScalarType type = at::kDouble) {
  const BlockRun given = make_run(c);
  const auto stack = trunk_of(c, type);
  const bool is_plain = !engine;
  if (engine) stack->set_engine(std::move(engine));
  Context context = given.context;
  if (context.condition_BD.defined())
    context.condition_BD = context.condition_BD.detach().to(type).set_requires_grad(true);
  const at::Tensor x_BTD = given.x_BTD.detach().to(type).set_requires_grad(true);
  TrunkResult result;
  for (uint32_t micro = 0; micro < 2; ++micro) {
    context.step = micro;
    std::vector<at::Tensor> tapped;
    const at::Tensor y_BTD = is_plain ? plain(*stack, x_BTD, context, asked.taps, tapped)
                                      : stack->forward(x_BTD, context, asked.taps, &tapped);
    at::Tensor loss;
    if (asked.of_output) loss = scalar_of(y_BTD);
    for (size_t t = 0; t < tapped.size(); ++t) {
      const at::Tensor of_tap = scalar_of(tapped[t]) * (0.5 + static_cast<double>(t));
      loss = loss.defined() ? loss + of_tap : of_tap;
    }
    loss.backward();
    result.output = tapped.front().detach();
  }
  result.input = x_BTD.grad();
  if (context.condition_BD.defined()) result.condition = context.condition_BD.grad();
  for (const NamedTensor& parameter : stack->named_parameters()) {
    if (!parameter.tensor.grad().defined() && !asked.of_output) continue;
    result.parameters.emplace_back(parameter.name, parameter.tensor.grad());
    if (is_flat(c, parameter.name)) result.flat.push_back(parameter.name);
  }
  return result;
}

class AttentionTaps : public testing::TestWithParam<BlockCase> {};
INSTANTIATE_TEST_SUITE_P(Options, AttentionTaps, testing::ValuesIn(block_cases()), name_of);

// The same operations; only sums of gradients from several users may be added in another order: a few roundings of
// 1.1e-16, made larger by cancellation.
TEST_P(AttentionTaps, AreThoseOfPlainAutogradUnderTheAutogradEngine) {
  const TrunkResult expected = run_tapped(GetParam(), kMixed, nullptr);
  EXPECT_LT(worst_difference(GetParam().name, expected,
                             run_tapped(GetParam(), kMixed, autograd_engine())),
            1e-12);
}

// As for outputs (fused_engine_test.cpp): sums in another order.
TEST_P(AttentionTaps, AreThoseOfPlainAutogradUnderTheFusedEngine) {
  const TrunkResult expected = run_tapped(GetParam(), kMixed, nullptr);
  EXPECT_LT(
      worst_difference(GetParam().name, expected, run_tapped(GetParam(), kMixed, fused_engine())),
      1e-12);
}

TEST_P(AttentionTaps, HaveTheSameBitsUnderEveryKindOfRecompute) {
  const TrunkResult of_autograd = run_tapped(GetParam(), kMixed, autograd_engine(), at::kFloat);
  const TrunkResult of_fused = run_tapped(GetParam(), kMixed, fused_engine(), at::kFloat);
  FusedOptions cheap;
  cheap.keeps_cheap = false;
  EXPECT_TRUE(
      has_same_bits(of_fused, run_tapped(GetParam(), kMixed, fused_engine({}, cheap), at::kFloat)));
  for (const Recompute kind : {Recompute::block, Recompute::every_k, Recompute::selective}) {
    SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind));
    CopyingStore store;
    for (ActivationStore* place :
         {static_cast<ActivationStore*>(nullptr), static_cast<ActivationStore*>(&store)}) {
      const EngineOptions options{kind, 2, place};
      EXPECT_TRUE(has_same_bits(
          of_autograd, run_tapped(GetParam(), kMixed, autograd_engine(options), at::kFloat)));
      EXPECT_TRUE(has_same_bits(of_fused,
                                run_tapped(GetParam(), kMixed, fused_engine(options), at::kFloat)));
    }
    EXPECT_GT(store.kept, 0);
  }
}

/// Parameters of `expected` that `found` has no gradient of, or gradients of `found` that are not zero where `expected`
/// has none: an engine may write zeros for what nothing reads.
int differing_gradients(const TrunkResult& expected, const TrunkResult& found, double tolerance) {
  std::map<std::string, at::Tensor> wanted(expected.parameters.begin(), expected.parameters.end());
  int differing = 0;
  double worst = 0.0;
  for (const auto& [name, gradient] : found.parameters) {
    if (std::ranges::find(found.flat, name) != found.flat.end()) {
      wanted.erase(name);
      continue;
    }
    const auto entry = wanted.find(name);
    const double scale =
        entry == wanted.end() ? 1.0 : entry->second.abs().max().item().toDouble() + 1e-3;
    const at::Tensor difference = entry == wanted.end() ? gradient : gradient - entry->second;
    const double error = difference.abs().max().item().toDouble() / scale;
    worst = std::max(worst, error);
    if (error > tolerance) ++differing, std::printf("%s differs by %.2g\n", name.c_str(), error);
    wanted.erase(name);
  }
  for (const auto& [name, gradient] : wanted)
    ++differing, std::printf("%s has no gradient\n", name.c_str());
  std::printf("worst difference %.2g\n", worst);
  return differing;
}

TEST_P(AttentionTaps, AloneSendGradientsToWhatLiesBelow) {
  for (const Asked& asked : {kLastAlone, kFirstAlone}) {
    const TrunkResult expected = run_tapped(GetParam(), asked, nullptr);
    for (const Recompute kind : {Recompute::none, Recompute::block}) {
      EXPECT_EQ(differing_gradients(expected,
                                    run_tapped(GetParam(), asked, autograd_engine({kind})), 1e-12),
                0);
      EXPECT_EQ(
          differing_gradients(expected, run_tapped(GetParam(), asked, fused_engine({kind})), 1e-12),
          0);
    }
  }
}

TEST(AttentionTap, IsWhatTheProjectionReads) {
  const BlockCase c = block_cases().front();
  const auto stack = trunk_of(c, at::kDouble);
  const BlockRun given = make_run(c);
  at::Tensor read;
  Linear& proj = stack->block(1).attention().proj();
  proj.set_product(
      [&](const at::Tensor& x, const at::Tensor& weight) {
        read = x;
        return x.matmul(weight.t());
      },
      {});
  std::vector<at::Tensor> tapped;
  const at::NoGradGuard no_grad;
  stack->forward(given.x_BTD, given.context, {{1, TapOf::attention}}, &tapped);
  ASSERT_TRUE(read.defined());
  EXPECT_TRUE(at::equal(tapped[0], read));
}

}  // namespace
}  // namespace vitrail::nn
