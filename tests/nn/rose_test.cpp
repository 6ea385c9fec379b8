#include "vitrail/nn/rose.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"

namespace vitrail::nn {
namespace {

RoseOptions options_of(int64_t axes, FrequencyLaw law) {
  RoseOptions options;
  options.axes = axes;
  options.width = 32, options.num_heads = 4, options.ratio = 0.5;
  options.law = law;
  return options;
}

/// The angle of one cell, out of its sine and cosine: right within half a turn.
double angle(const ops::Rotary& tables, int64_t head, int64_t cell, int64_t plane) {
  return std::atan2(tables.sin[0][head][cell][plane].item<double>(),
                    tables.cos[0][head][cell][plane].item<double>());
}

void zero(Rose& rose) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : rose.named_parameters())
    if (parameter.name == "log_offset") parameter.tensor.zero_();
}

TEST(Rose, BasesFollowTheFourLaws) {
  for (const int64_t axes : {2, 3}) {
    const auto k = static_cast<double>(axes);
    const std::pair<FrequencyLaw, double> bases[]{
        {FrequencyLaw::none, 1e4},
        {FrequencyLaw::linear, std::pow(1e4, 1 / k)},
        {FrequencyLaw::sqrt, axes == 2 ? 673.6 : 203.9},
        {FrequencyLaw::adaptive, std::pow(1e4, 2 / (k * 32))}};
    for (const auto& [law, base] : bases) {
      Rose rose(options_of(axes, law));
      zero(rose);
      CellGrid grid{std::vector<int64_t>(static_cast<size_t>(axes), 1),
                    std::vector<double>(static_cast<size_t>(axes), 1.0)};
      grid.sides.back() = 2;  // cell 1 is one step along the last axis
      const ops::Rotary tables = rose.tables(grid, at::zeros({1}, at::kDouble));
      // 2 heads turned of 4, 4 planes each; the last axis begins a share of the way round.
      const int64_t planes = 8, shift = (axes - 1) * planes / axes;
      for (int64_t p = 0; p < planes; ++p) {
        const double expected = std::pow(
            base, -static_cast<double>((p + shift) % planes) / static_cast<double>(planes));
        // The printed bases have four digits.
        EXPECT_NEAR(angle(tables, p / 4, 1, p % 4), expected, 2e-4 * expected + 1e-12);
      }
      EXPECT_EQ(tables.sin.select(1, 2).abs().max().item<double>(), 0.0);  // the last heads stay
      EXPECT_EQ(tables.sin.size(1), 4);
    }
  }
}

TEST(Rose, CellsOfAnAntiDiagonalDifferUnlessAxesAreEqual) {
  const CellGrid grid{{3, 3}, {1.0, 1.0}};
  for (const bool equal : {false, true}) {
    RoseOptions options = options_of(2, FrequencyLaw::sqrt);
    options.equal_axes = equal;
    Rose rose(options);
    zero(rose);
    const ops::Rotary tables = rose.tables(grid, at::zeros({1}, at::kDouble));
    const double apart =
        (tables.sin.select(2, 2) - tables.sin.select(2, 6)).abs().max().item<double>();
    if (equal) {
      EXPECT_LT(apart, 1e-12);
    } else {
      EXPECT_GT(apart, 0.1);
    }
  }
}

TEST(Rose, SpacingScalesAnglesFromTheirStart) {
  for (const auto& [start, factor] : {std::pair{SpacingScaling::none, 3.0},
                                      {SpacingScaling::identity, 3.0},
                                      {SpacingScaling::log, std::log(3.0)},
                                      {SpacingScaling::rope, 0.0}}) {
    RoseOptions options = options_of(2, FrequencyLaw::none);
    options.scaling = start;
    Rose rose(options);
    zero(rose);
    const ops::Rotary tables = rose.tables({{1, 2}, {3.0, 3.0}}, at::zeros({1}, at::kDouble));
    // Plane 4 of the column axis turns by theta^0 a unit.
    EXPECT_NEAR(angle(tables, 1, 1, 0), std::remainder(factor, 2 * M_PI), 1e-12);
    EXPECT_EQ(rose.named_parameters().size(), start == SpacingScaling::none ? 1u : 2u);
  }
}

TEST(Rose, FrequenciesAndSpacingAreLearned) {
  Rose rose(options_of(3, FrequencyLaw::linear));
  zero(rose);
  const ops::Rotary tables = rose.tables({{2, 3, 2}, {1.0, 2.0, 4.0}}, at::zeros({1}));
  (tables.cos.square().sum() + tables.sin.sum()).backward();
  for (const auto& parameter : rose.named_parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    EXPECT_GT(parameter.tensor.grad().abs().max().item<double>(), 0.0) << parameter.name;
  }
}

TEST(Rose, TablesOfSeveralGridsFollowOneAnother) {
  const Rose rose(options_of(2, FrequencyLaw::sqrt));
  const at::Tensor like = at::zeros({1});
  const ops::Rotary a = rose.tables({{2, 2}, {1.0, 1.0}}, like),
                    b = rose.tables({{1, 3}, {2.0, 2.0}}, like);
  const ops::Rotary both = joined({a, b});
  EXPECT_EQ(both.cos.sizes(), at::IntArrayRef({1, 4, 7, 4}));
  EXPECT_TRUE(at::equal(both.sin.slice(2, 4), b.sin));
}

TEST(Rose, RefusesOddHeads) {
  RoseOptions options = options_of(2, FrequencyLaw::sqrt);
  options.width = 12;
  EXPECT_THROW(Rose{options}, core::ConfigError);
}

}  // namespace
}  // namespace vitrail::nn
