// Blocks against the formulas, and what the options promise.

#include "vitrail/nn/block.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/nn/block_formula.h"
#include "vitrail/core/error.h"
#include "vitrail/ops/attention.h"

namespace vitrail::nn {
namespace {

double largest(const at::Tensor& values) { return values.abs().max().item<double>(); }

/// Gradients of x, the condition (undefined without one) and every parameter.
std::vector<at::Tensor> gradients_of(BlockRun& run, const std::function<at::Tensor()>& forward) {
  std::vector<at::Tensor> leaves{run.x_BTD.set_requires_grad(true)};
  if (run.context.condition_BD.defined())
    leaves.push_back(run.context.condition_BD.set_requires_grad(true));
  for (const NamedTensor& parameter : run.stack->named_parameters())
    leaves.push_back(parameter.tensor);
  for (at::Tensor& leaf : leaves) leaf.mutable_grad() = at::Tensor();
  forward().backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad().clone());
  return gradients;
}

class BlockOption : public testing::TestWithParam<BlockCase> {};

TEST_P(BlockOption, FollowsTheFormula) {
  BlockRun run = make_run(GetParam());
  const at::Tensor y = run.stack->forward(run.x_BTD, run.context);
  const at::Tensor expected = formula_forward(GetParam(), run, run.x_BTD);
  const double worst = largest(y - expected);
  const auto mine =
      gradients_of(run, [&] { return scalar_of(run.stack->forward(run.x_BTD, run.context)); });
  const auto plain =
      gradients_of(run, [&] { return scalar_of(formula_forward(GetParam(), run, run.x_BTD)); });
  double worst_gradient = 0;
  // Floor: a parameter without effect has a gradient of roundings only, as large as those of the others.
  for (size_t i = 0; i < mine.size(); ++i)
    worst_gradient =
        std::max(worst_gradient, largest(mine[i] - plain[i]) / std::max(largest(plain[i]), 0.1));
  // Sums of up to 144 fp64 products (1e-16 each) through two blocks, values up to 10.
  fmt::print("{}: worst value {:.1e}, gradient {:.1e} of its largest, bound 1e-13\n",
             GetParam().name, worst, worst_gradient);
  EXPECT_LE(worst, 1e-13);
  EXPECT_LE(worst_gradient, 1e-13);
}

TEST_P(BlockOption, InFp32IsTheFp64ResultRounded) {
  const BlockRun wide = make_run(GetParam()), narrow = make_run(GetParam(), at::kFloat);
  const at::Tensor exact = wide.stack->forward(wide.x_BTD, wide.context);
  const at::Tensor y = narrow.stack->forward(narrow.x_BTD, narrow.context);
  ASSERT_EQ(y.scalar_type(), at::kFloat);
  const double worst = largest(y.to(at::kDouble) - exact) / largest(exact);
  // Some twenty roundings of 6e-8 in a row, a few of which add up.
  fmt::print("{}: worst {:.1e} of the largest value, bound 2e-6\n", GetParam().name, worst);
  EXPECT_LE(worst, 2e-6);
}

INSTANTIATE_TEST_SUITE_P(Cases, BlockOption, testing::ValuesIn(block_cases()),
                         [](const auto& each) { return each.param.name; });

BlockCase case_called(const std::string& name) {
  for (const BlockCase& c : block_cases())
    if (c.name == name) return c;
  throw std::logic_error(name);
}

/// The trunk's real tokens and all gradients, when the loss reads real tokens only.
std::vector<at::Tensor> real_results(BlockRun& run, bool plain_core) {
  if (plain_core)
    for (int i = 0; i < run.stack->depth(); ++i)
      run.stack->block(i).attention().set_attend(
          [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
             const at::Tensor& mask) { return ops::plain_attention(q, k, v, mask); });
  const at::Tensor real = run.context.key_mask_BT.unsqueeze(-1);
  at::Tensor y;
  std::vector<at::Tensor> results = gradients_of(run, [&] {
    const at::Tensor all = run.stack->forward(run.x_BTD, run.context);
    EXPECT_TRUE(all.isfinite().all().item<bool>());
    y = all.masked_fill(real.logical_not(), 0.0);
    return scalar_of(y);
  });
  results.push_back(y.detach());
  return results;
}

class Padding : public testing::TestWithParam<std::tuple<const char*, bool, at::ScalarType>> {};

TEST_P(Padding, DoesNotTouchABitOfTheRealTokensOrOfAnyGradient) {
  const auto& [name, plain_core, type] = GetParam();
  const BlockCase c = case_called(name);
  BlockRun one = make_run(c, type), other = make_run(c, type);
  const at::Tensor padded = other.context.key_mask_BT.logical_not().unsqueeze(-1);
  const at::Tensor junk = (draw(77, one.x_BTD.sizes()) * 1e4).to(type);
  other.x_BTD = at::where(padded, junk, other.x_BTD);
  const auto a = real_results(one, plain_core), b = real_results(other, plain_core);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << "result " << i;
  EXPECT_EQ(largest(a[0].masked_select(padded)), 0.0) << "padding must get no gradient";
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Padding,
    testing::Combine(testing::Values("KeyMask", "AttnDropGroupedMasked", "Everything"),
                     testing::Bool(), testing::Values(at::kFloat, at::kBFloat16, at::kDouble)));

TEST(Padding, GivesWhatTheRealTokensGiveAlone) {
  const BlockRun run = make_run(case_called("KeyMask"));
  const at::Tensor y = run.stack->forward(run.x_BTD, run.context);
  double worst = 0;
  for (int64_t b = 0; b < kCaseBatch; ++b) {
    const int64_t real = run.context.key_mask_BT[b].sum().item<int64_t>();
    Context alone = run.context;
    alone.key_mask_BT = at::Tensor();
    const at::Tensor x = run.x_BTD.slice(0, b, b + 1).slice(1, 0, real);
    worst = std::max(
        worst, largest(run.stack->forward(x, alone) - y.slice(0, b, b + 1).slice(1, 0, real)));
  }
  fmt::print("worst {:.1e}, bound 1e-14 (sums of fp64 in another order)\n", worst);
  EXPECT_LE(worst, 1e-14);
}

/// Rows of a grouped qkv tensor with each key and value head written out for all its query heads.
at::Tensor ungrouped(const at::Tensor& grouped, int64_t heads, int64_t kv_heads, int64_t E) {
  std::vector<at::Tensor> rows{grouped.slice(0, 0, heads * E)};
  for (int64_t kind = 0; kind < 2; ++kind)
    for (int64_t n = 0; n < heads; ++n) {
      const int64_t first = (heads + kind * kv_heads + n / (heads / kv_heads)) * E;
      rows.push_back(grouped.slice(0, first, first + E));
    }
  return at::cat(rows);
}

TEST(GroupedQueries, EqualFullAttentionWithRepeatedWeights) {
  const BlockCase grouped_case = case_called("GroupedQueries");
  BlockCase full_case = grouped_case;
  full_case.options.num_kv_heads = 0;
  const BlockRun grouped = make_run(grouped_case), full = make_run(full_case);
  const auto from = grouped.stack->named_parameters();
  const auto to = full.stack->named_parameters();
  ASSERT_EQ(from.size(), to.size());
  for (size_t p = 0; p < from.size(); ++p) {
    ASSERT_EQ(from[p].name, to[p].name);
    at::Tensor values = from[p].tensor.detach().clone();
    if (from[p].name.find("qkv") != std::string::npos)
      values = ungrouped(values, kCaseHeads, 2, kCaseWidth / kCaseHeads);
    at::Tensor target = to[p].tensor;
    target.set_data(values);
  }
  EXPECT_EQ(from[2].tensor.size(0), (4 + 2 * 2) * 12) << from[2].name;
  const double worst = largest(grouped.stack->forward(grouped.x_BTD, grouped.context) -
                               full.stack->forward(full.x_BTD, full.context));
  fmt::print("worst {:.1e}, bound 1e-14 (products of other shapes)\n", worst);
  EXPECT_LE(worst, 1e-14);
}

TEST(GroupedQueries, HeadsThatDoNotDivideAreRefused) {
  BlockOptions options;
  options.num_heads = 12, options.num_kv_heads = 5;
  EXPECT_THROW(Block{options}, core::ConfigError);
}

TEST(Block, WithoutProjBiasOnlyTheQkvBiasIsLeft) {
  BlockOptions options;
  options.width = 8, options.num_heads = 2, options.proj_bias = false;
  for (const MlpKind kind : {MlpKind::gelu, MlpKind::swiglu}) {
    options.mlp = kind;
    const Block block(options);
    for (const NamedTensor& parameter : block.named_parameters())
      EXPECT_TRUE(!parameter.name.ends_with("bias") || parameter.name == "attn.qkv.bias" ||
                  parameter.name.starts_with("norm"))
          << parameter.name;
  }
}

TEST(Block, AConditionedBlockRefusesToRunWithoutACondition) {
  const BlockRun run = make_run(case_called("Conditioned"));
  EXPECT_THROW(run.stack->forward(run.x_BTD, Draws{}), core::Error);
}

TEST(Block, TheConditionReachesOnlyTheAttentionBranch) {
  BlockRun run = make_run(case_called("Conditioned"));
  Block& block = run.stack->block(0);
  for (NamedTensor& parameter : block.named_parameters())
    if (parameter.name.starts_with("attn.proj")) parameter.tensor.set_data(parameter.tensor * 0.0);
  const at::Tensor y = block.forward(run.x_BTD, run.context);
  run.context.condition_BD = run.context.condition_BD * 2.0;
  EXPECT_TRUE(at::equal(block.forward(run.x_BTD, run.context), y));
}

}  // namespace
}  // namespace vitrail::nn
