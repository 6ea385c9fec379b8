#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/segmenter_cases.h"
#include "vitrail/core/error.h"
#include "vitrail/models/losses.h"
#include "vitrail/models/metrics.h"

namespace vitrail::models {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

config::Model regressor(const char* kind) {
  config::Model options = segmenter("unetr", {16, 16}, 8);
  options.kind.value = kind;
  options.loss.value = "mse";
  options.num_classes = 2;
  if (options.kind == "vit") options.pool.value = "avg";
  return options;
}

TEST(Regression, LossIsTheMeanSquaredErrorOverKnownValuesAndSoIsItsGradient) {
  const at::Tensor guess = at::tensor({1.0f, 2.0f, 5.0f, -1.0f}).view({2, 2});
  const at::Tensor truth = at::tensor({0.0f, kNone, 2.0f, -1.5f}).view({2, 2});
  at::Tensor x = guess.clone().set_requires_grad(true);
  const at::Tensor loss = values_loss(x, truth);
  loss.backward();
  EXPECT_FLOAT_EQ(loss.item<float>(), (1.0f + 9.0f + 0.25f) / 3);
  const std::vector<float> expected{2.0f / 3, 0.0f, 2.0f, 1.0f / 3};
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_FLOAT_EQ(x.grad().view(-1)[i].item<float>(), expected[static_cast<size_t>(i)]) << i;
}

TEST(Regression, NothingKnownGivesZeroAndNoGradient) {
  at::Tensor x = at::randn({2, 3}).set_requires_grad(true);
  const at::Tensor loss = values_loss(x, at::tensor({kNone}).expand({2, 3}));
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0);
  EXPECT_EQ(x.grad().abs().sum().item<float>(), 0);
}

TEST(Regression, RefusesTargetsOfAnotherShape) {
  EXPECT_THROW(values_loss(at::randn({2, 3}), at::randn({2, 1})), core::Error);
}

TEST(Regression, ModelsOfPixelsAndOfSamplesLearnValues) {
  for (const char* kind : {"vit", "unetr", "sap"}) {
    const config::Model options = regressor(kind);
    const auto model = make_model(options, 3);
    EXPECT_EQ(model->task(), Task::regression) << kind;
    data::Batch batch;
    batch.image = at::randn({3, options.in_channels, 16, 16});
    batch.sample_ids = at::tensor({0, 1, 2}, at::kLong);
    const bool of_samples = options.kind == "vit";
    batch.label = of_samples ? at::randn({3, 2}) : at::randn({3, 2, 16, 16});
    const Output output = model->forward(batch, {1, 0, batch.sample_ids, true});
    EXPECT_TRUE(output.output.sizes().equals(batch.label.sizes())) << kind;
    const double expected = (output.output - batch.label).square().mean().item<double>();
    EXPECT_NEAR(output.loss.item<double>(), expected, 1e-6 * expected) << kind;  // fp32 sums
  }
}

TEST(Regression, MetricsOfUnevenPartsAreThoseOfTheWhole) {
  config::Model options = regressor("vit");
  const at::Tensor guess = at::randn({5, 2}), truth = at::randn({5, 2});
  truth[3][1].fill_(kNone);
  const auto whole = make_tally(Task::regression, options);
  const auto parts = make_tally(Task::regression, options);
  const auto add = [&](Tally& tally, int64_t first, int64_t count) {
    data::Batch batch;
    batch.image = at::randn({count, 1});
    batch.label = truth.narrow(0, first, count);
    Output output;
    output.output = guess.narrow(0, first, count);
    tally.add(batch, output);
  };
  add(*whole, 0, 5);
  add(*parts, 0, 1);
  add(*parts, 1, 4);
  const at::Tensor known = truth.isnan().logical_not();
  const at::Tensor y = truth.masked_select(known).to(at::kDouble);
  const at::Tensor error = guess.masked_select(known).to(at::kDouble) - y;
  const double mse = error.square().mean().item<double>();
  const std::vector<std::pair<std::string, double>> expected{
      {"loss", mse},
      {"rmse", std::sqrt(mse)},
      {"mae", error.abs().mean().item<double>()},
      {"r2",
       1 - error.square().sum().item<double>() / (y - y.mean()).square().sum().item<double>()}};
  double worst = 0;
  for (const auto& [name, value] : expected) {
    worst = std::max(worst, std::abs(metric(whole->metrics(), name) - value));
    worst = std::max(worst, std::abs(metric(parts->metrics(), name) - value));
  }
  std::printf("worst difference of a metric: %.1e\n", worst);
  EXPECT_LT(worst, 1e-12);  // fp64 sums in another order
}

}  // namespace
}  // namespace vitrail::models
