#include "vitrail/models/probe.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/random.h"

namespace vitrail::models {
namespace {

#include "golden_probe.inc"

/// The formulas of tools/golden/losses.py: 4 features in 3 classes that overlap.
Features formula_rows(int64_t first, int64_t count) {
  const at::Tensor i = at::arange(first, first + count, at::kDouble);
  const at::Tensor label = (at::arange(first, first + count, at::kLong) * 7).remainder(3);
  std::vector<at::Tensor> noise;
  for (int64_t j = 0; j < 4; ++j)
    noise.push_back((12.9898 * i * static_cast<double>(j + 1) + static_cast<double>(j)).sin() *
                    1.5);
  const at::Tensor centre =
      at::stack({label.eq(0).to(at::kDouble), label.eq(1).to(at::kDouble) * 2.0,
                 label.to(at::kDouble) * 0.5, at::zeros({count}, at::kDouble)},
                1);
  const at::Tensor scale = at::tensor(std::vector<float>{1.0F, 10.0F, 0.1F, 3.0F});
  const at::Tensor x = (at::stack(noise, 1) + centre).to(at::kFloat).to(at::kDouble);
  return {(x * scale.to(at::kDouble)).to(at::kFloat), label};
}

Features random_rows(int64_t count, int64_t classes, uint16_t layer) {
  const core::DrawKey key{9, core::Stream::test, 0, layer};
  const at::Tensor x =
      ops::uniform(key, at::zeros({1}, at::kLong), count * 6).view({count, 6}) - 0.5;
  return {x, at::arange(count, at::kLong).remainder(classes)};
}

TEST(LinearProbe, ReachesTheOptimumOfTorchsLbfgs) {
  LinearProbeOptions options;
  options.l2 = 1e-2;
  options.tolerance = 1e-9;
  const LinearProbe probe = linear_probe(formula_rows(0, 300), formula_rows(300, 60), 3, options);
  EXPECT_TRUE(probe.converged);
  EXPECT_LE(probe.gradient, 1e-9);
  // The objective is flat at its optimum: the square of a gradient of 1e-9. Parameters lie within
  // gradient / curvature, 1e-9 / 1e-2, for both; the bias is free up to a constant.
  const at::Tensor weight = at::tensor(golden_weight, at::kDouble).view({3, 4});
  const at::Tensor bias = at::tensor(golden_bias, at::kDouble);
  const double far = std::max(
      (probe.weight_CD - weight).abs().max().item<double>(),
      (probe.bias_C - probe.bias_C.mean() - (bias - bias.mean())).abs().max().item<double>());
  std::printf(
      "%d iterations, gradient %.1e, objective off by %.1e (allowed 1e-12), parameters by "
      "%.1e (allowed 1e-6)\n",
      static_cast<int>(probe.iterations), probe.gradient,
      std::abs(probe.objective - golden_objective), far);
  EXPECT_NEAR(probe.objective, golden_objective, 1e-12);
  EXPECT_LE(far, 1e-6);
  EXPECT_DOUBLE_EQ(metric(probe.metrics, "accuracy"), golden_linear_accuracy);
}

TEST(LinearProbe, IsTheSameEveryTimeAndIgnoresUnlabelledRows) {
  const Features train = formula_rows(0, 200), test = formula_rows(200, 50);
  const LinearProbe first = linear_probe(train, test, 3), second = linear_probe(train, test, 3);
  EXPECT_TRUE(at::equal(first.weight_CD, second.weight_CD));
  const Features more{at::cat({train.x_ND, at::full({5, 4}, 1e3)}),
                      at::cat({train.label_N, at::full({5}, -1, at::kLong)})};
  const LinearProbe third = linear_probe(more, test, 3);
  EXPECT_TRUE(at::equal(first.weight_CD, third.weight_CD));
  EXPECT_EQ(first.metrics, third.metrics);
}

TEST(LinearProbe, DoesNotMindScalesOffsetsAndConstantFeatures) {
  const Features train = formula_rows(0, 200), test = formula_rows(200, 50);
  const auto moved = [](const Features& rows) {
    const at::Tensor constant = at::full({rows.x_ND.size(0), 1}, 0.1F);
    return Features{at::cat({rows.x_ND * 64.0 + 1024.0, constant}, 1), rows.label_N};
  };
  LinearProbeOptions options;
  options.tolerance = 1e-8;
  const LinearProbe plain = linear_probe(train, test, 3, options);
  const LinearProbe shifted = linear_probe(moved(train), moved(test), 3, options);
  // The offset costs fp32 features some digits: 1024 / 64 beside values of 1 is 1e-6 relative.
  EXPECT_NEAR(plain.objective, shifted.objective, 1e-5);
  EXPECT_EQ(shifted.deviation_D[4].item<double>(), 1);
  EXPECT_LE(shifted.weight_CD.select(1, 4).abs().max().item<double>(), 1e-9);
}

TEST(LinearProbe, SeparableRowsAreLearntAndStopAtTheIterationLimit) {
  Features rows = random_rows(60, 3, 1);
  rows.x_ND = rows.x_ND * 0.1;
  for (int64_t c = 0; c < 3; ++c) rows.x_ND.select(1, c).add_(rows.label_N.eq(c).to(at::kFloat));
  LinearProbeOptions options;
  options.l2 = 0;  // no finite optimum
  options.tolerance = 0;
  options.max_iterations = 20;
  const LinearProbe probe = linear_probe(rows, rows, 3, options);
  EXPECT_FALSE(probe.converged);
  EXPECT_LE(probe.iterations, 20);
  EXPECT_EQ(metric(probe.metrics, "accuracy"), 1);
}

/// Votes of the k nearest rows, one row after another.
std::vector<double> plain_votes(const Features& train, const at::Tensor& x, int64_t classes,
                                int64_t k, double temperature) {
  const auto unit = [](const at::Tensor& row) { return row / row.norm(); };
  std::vector<double> close;
  for (int64_t i = 0; i < train.x_ND.size(0); ++i)
    close.push_back((unit(train.x_ND[i]) * unit(x)).sum().item<double>());
  std::vector<int64_t> order(close.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return close[a] > close[b]; });
  std::vector<double> votes(classes);
  for (int64_t i = 0; i < std::min<int64_t>(k, static_cast<int64_t>(order.size())); ++i)
    votes[train.label_N[order[i]].item<int64_t>()] += std::exp(close[order[i]] / temperature);
  return votes;
}

TEST(NearestNeighborProbe, IsThePlainLoop) {
  const Features train = random_rows(90, 8, 2),
                 test = random_rows(300, 8, 3);  // two rounds of rows
  for (const int64_t k : {1, 7, 90, 1000}) {
    double right = 0, among_five = 0;
    for (int64_t i = 0; i < 300; ++i) {
      const std::vector<double> votes = plain_votes(train, test.x_ND[i], 8, k, 0.07);
      const double mine = votes[test.label_N[i].item<int64_t>()];
      int64_t above = 0;
      for (int64_t c = 0; c < 8; ++c)
        above += votes[c] > mine || (votes[c] == mine && c < test.label_N[i].item<int64_t>());
      right += above == 0, among_five += above < 5;
    }
    const MetricList metrics = nearest_neighbor_probe(train, test, 8, {k, 0.07});
    EXPECT_DOUBLE_EQ(metric(metrics, "accuracy"), right / 300) << k;
    EXPECT_DOUBLE_EQ(metric(metrics, "top5_accuracy"), among_five / 300) << k;
    EXPECT_THROW(metric(metrics, "loss"), core::Error);
  }
}

TEST(NearestNeighborProbe, IsDinosOnTheGoldenRows) {
  EXPECT_DOUBLE_EQ(
      metric(nearest_neighbor_probe(formula_rows(0, 300), formula_rows(300, 60), 3, {10, 0.07}),
             "accuracy"),
      golden_neighbor_accuracy);
}

TEST(NearestNeighborProbe, OfEqualSimilaritiesTheLowerRowIsNearerAndOfEqualVotesTheLowerClassWins) {
  // Unit vectors along axes: similarities are exactly 1 or 0.
  const auto axis = [](std::vector<int64_t> places) {
    at::Tensor x = at::zeros({static_cast<int64_t>(places.size()), 3});
    for (size_t i = 0; i < places.size(); ++i) x[static_cast<int64_t>(i)][places[i]].fill_(1);
    return x;
  };
  const auto labels = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  const auto accuracy = [&](std::vector<int64_t> known, int64_t truth, int64_t k) {
    const Features train{axis({0, 0, 0, 1}), labels(std::move(known))};
    return metric(nearest_neighbor_probe(train, {axis({0}), labels({truth})}, 3, {k, 0.07}),
                  "accuracy");
  };
  EXPECT_EQ(accuracy({2, 1, 0, 0}, 2, 1), 1);  // row 0 of three equally near ones
  EXPECT_EQ(accuracy({2, 1, 0, 0}, 1, 2), 1);  // rows 0 and 1 vote alike; class 1 is lower
  EXPECT_EQ(accuracy({2, 1, 1, 0}, 1, 3), 1);
}

TEST(Probes, RefuseWhatDoesNotFit) {
  const Features train = random_rows(10, 3, 4);
  const Features none{train.x_ND, at::full({10}, -1, at::kLong)};
  const Features high{train.x_ND, at::full({10}, 3, at::kLong)};
  const Features narrow{train.x_ND.narrow(1, 0, 5), train.label_N};
  const Features broken{train.x_ND / 0.0, train.label_N};
  EXPECT_THROW(nearest_neighbor_probe(none, train, 3), core::DataError);
  EXPECT_THROW(nearest_neighbor_probe(train, high, 3), core::DataError);
  EXPECT_THROW(linear_probe(high, train, 3), core::DataError);
  EXPECT_THROW(linear_probe(broken, train, 3), core::DataError);
  EXPECT_THROW(linear_probe(narrow, train, 3), core::Error);
  EXPECT_THROW(linear_probe({train.x_ND, train.label_N.narrow(0, 0, 9)}, train, 3), core::Error);
  EXPECT_THROW(nearest_neighbor_probe(train, train, 3, {0, 0.07}), core::ConfigError);
  EXPECT_THROW(nearest_neighbor_probe(train, train, 3, {1, 0.0}), core::ConfigError);
  LinearProbeOptions options;
  options.l2 = -1;
  EXPECT_THROW(linear_probe(train, train, 3, options), core::ConfigError);
  EXPECT_TRUE(std::isnan(metric(nearest_neighbor_probe(train, none, 3), "accuracy")));
}

}  // namespace
}  // namespace vitrail::models
