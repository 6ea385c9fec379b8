#include "vitrail/models/noise_schedule.h"

#include <cmath>
#include <numbers>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/core/error.h"
#include "vitrail/models/diffusion_noise.h"
#include "vitrail/models/diffusion_sampler.h"

namespace vitrail::models {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

NoiseSchedule schedule(const std::string& kind, int64_t T) {
  config::Model options;
  options.beta_schedule.value = kind;
  options.num_timesteps = T;
  return NoiseSchedule(options);
}

TEST(NoiseSchedule, LinearHasTheEndsAndTheProductOfThePaper) {
  const NoiseSchedule linear = schedule("linear", 1000);
  EXPECT_DOUBLE_EQ(linear.beta(0), 1e-4);
  EXPECT_DOUBLE_EQ(linear.beta(999), 0.02);
  EXPECT_NEAR(linear.beta(500) - linear.beta(499), (0.02 - 1e-4) / 999, 1e-15);
  double log_sum = 0.0;
  for (int64_t t = 0; t < 1000; ++t)
    log_sum += std::log1p(-(1e-4 + (0.02 - 1e-4) * static_cast<double>(t) / 999.0));
  // A product of 1000 factors rounds by at most 1000 * 1.1e-16.
  EXPECT_NEAR(linear.alpha_bar(999) / std::exp(log_sum), 1.0, 1e-12);
  // torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[-1]
  EXPECT_NEAR(linear.alpha_bar(999), 4.0358297653756754e-05, 1e-15);
}

TEST(NoiseSchedule, CosineFollowsItsClosedFormUntilBetaIsCut) {
  const NoiseSchedule cosine = schedule("cosine", 1000);
  const auto bar = [](double u) {
    return std::pow(std::cos((u + 0.008) / 1.008 * std::numbers::pi / 2.0), 2);
  };
  double worst = 0.0;
  for (int64_t t = 0; t < 999; ++t)
    worst = std::max(worst, std::abs(cosine.alpha_bar(t) / (bar((t + 1) / 1000.0) / bar(0.0)) - 1));
  fmt::print("cosine alpha_bar: worst relative difference {:.1e}\n", worst);
  EXPECT_LT(worst, 1e-10);  // 1 - beta loses up to 3 digits near beta = 0.999, over 1000 factors
  EXPECT_DOUBLE_EQ(cosine.beta(999), 0.999);
}

TEST(NoiseSchedule, EveryLevelAddsNoiseWhateverTheirNumber) {
  for (const char* kind : {"linear", "cosine"})
    for (const int64_t T : {1, 2, 10, 1000}) {
      const NoiseSchedule levels = schedule(kind, T);
      for (int64_t t = 0; t < T; ++t) {
        EXPECT_LT(levels.alpha_bar(t), levels.alpha_bar(t - 1));
        EXPECT_GT(levels.alpha_bar(t), 0.0);
      }
    }
  EXPECT_THAT([] { schedule("linear", 0); },
              testing::ThrowsMessage<core::ConfigError>(HasSubstr("model.num_timesteps")));
}

TEST(NoiseSchedule, MixesEachSampleByItsOwnLevel) {
  const NoiseSchedule linear = schedule("linear", 100);
  const at::Tensor x = at::full({2, 1, 2, 2}, 3.0), noise = at::full({2, 1, 2, 2}, -2.0);
  const at::Tensor mixed = linear.add_noise(x, noise, at::tensor({0, 99}, at::kLong));
  for (const int64_t b : {0, 1}) {
    const double bar = linear.alpha_bar(b == 0 ? 0 : 99);
    EXPECT_NEAR(mixed[b][0][1][1].item<double>(), 3.0 * std::sqrt(bar) - 2.0 * std::sqrt(1 - bar),
                1e-6);  // fp32 numbers below 4
  }
}

TEST(SamplingLevels, BeginAtTheHighestAndVisitAllWhenAsked) {
  EXPECT_THAT(sampling_levels(1000, 4), ElementsAre(999, 749, 499, 249));
  EXPECT_THAT(sampling_levels(10, 3), ElementsAre(9, 6, 2));
  EXPECT_THAT(sampling_levels(3, 3), ElementsAre(2, 1, 0));
  EXPECT_THAT(sampling_levels(7, 1), ElementsAre(6));
  EXPECT_THAT([] { sampling_levels(10, 11); },
              testing::ThrowsMessage<core::ConfigError>(HasSubstr("between 1 and")));
  EXPECT_THROW(sampling_levels(10, 0), core::ConfigError);
}

TEST(DiffusionNoise, IsStandardNormalAndAFunctionOfPlace) {
  const core::DrawKey key{3, core::Stream::noise, 5, 0};
  const at::Tensor all = normal(key, at::tensor({4, 9, 2}, at::kLong), {3, 101, 99});
  EXPECT_TRUE(all[1].equal(normal(key, at::tensor({9}, at::kLong), {3, 101, 99})[0]));
  EXPECT_FALSE(all[0].equal(all[1]));
  const double n = static_cast<double>(all.numel()), mean = all.mean().item<double>(),
               second = all.square().mean().item<double>(),
               fourth = all.square().square().mean().item<double>();
  // Five standard errors of the first, second and fourth moment: sqrt(1, 2, 96) / sqrt(n).
  EXPECT_NEAR(mean, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(second, 1.0, 5.0 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth, 3.0, 5.0 * std::sqrt(96.0 / n));
  const at::Tensor odd = all.flatten().slice(0, 1, 89989, 2),
                   even = all.flatten().slice(0, 0, 89988, 2);
  EXPECT_NEAR((odd * even).mean().item<double>(), 0.0, 5.0 / std::sqrt(44994.0));
}

TEST(DiffusionNoise, LevelsAreUniform) {
  at::Tensor ids = at::ones({70000}, at::kLong).cumsum(0);
  const at::Tensor levels = uniform_levels({1, core::Stream::time, 2, 0}, ids, 7);
  for (int64_t t = 0; t < 7; ++t)  // five standard deviations of a count
    EXPECT_NEAR(levels.eq(t).sum().item<double>(), 10000.0, 5 * std::sqrt(10000.0 * 6 / 7));
}

/// Data N(mean, deviation^2), for which the best prediction of the noise is known: E[e | x_t].
struct Gaussian {
  double mean, deviation;
  at::Tensor noise(const at::Tensor& x, double bar) const {
    return (x - std::sqrt(bar) * mean) *
           (std::sqrt(1 - bar) / (bar * deviation * deviation + 1 - bar));
  }
};

/// Mean and deviation of what a sampler makes of N(0, 1), exactly: with a linear predictor all is linear, so one "sample"
/// with no randomness gives the mean, and one for each random number (set to 1, the others 0) its part of the variance.
std::pair<double, double> moments(const NoiseSchedule& levels, const SamplerOptions& options,
                                  const Gaussian& data) {
  const int64_t T = levels.num_timesteps();
  const at::Tensor unit =
      at::eye(T + 2, at::kDouble);  // row: sample; columns T: start, T + 1: none
  const at::Tensor out = sample(
      levels, options, unit.select(1, T).clone(),
      [&](const at::Tensor& x, int64_t t) { return data.noise(x, levels.alpha_bar(t)); },
      [&](int64_t t) { return unit.select(1, t); });
  const double mean = out[T + 1].item<double>();
  return {mean, std::sqrt((out - mean).square().sum().item<double>())};
}

TEST(Sampler, RecoversAGaussianFromItsExactNoise) {
  const Gaussian data{0.3, 0.4};
  for (const char* kind : {"linear", "cosine"})
    for (const SamplingMethod method : {SamplingMethod::ddim, SamplingMethod::ddpm}) {
      double before = 1.0;
      for (const int64_t steps : {50, 200, 1000}) {
        SamplerOptions options;
        options.method = method;
        options.steps = steps;
        const auto [mean, deviation] = moments(schedule(kind, 1000), options, data);
        const double error = std::max(std::abs(mean - 0.3), std::abs(deviation - 0.4));
        fmt::print("{} {} {} steps: mean {:.5f}, deviation {:.5f}\n", kind,
                   method == SamplingMethod::ddim ? "ddim" : "ddpm", steps, mean, deviation);
        // First-order integrators: a fifth of the step leaves about a fifth of the error, until the noise that the
        // schedule lacks at its end (linear: alpha_bar = 4e-5, 0.6 % of the mean) is all there is.
        EXPECT_LT(error, before);
        before = error + 1e-4;
      }
      EXPECT_LT(before, 0.01);
    }
}

TEST(Sampler, LargerVarianceOfAllLevelsAlsoRecoversAGaussian) {
  SamplerOptions options;
  options.method = SamplingMethod::ddpm;
  options.variance = SamplingVariance::beta;
  options.steps = 1000;
  const auto [mean, deviation] = moments(schedule("linear", 1000), options, {0.3, 0.4});
  fmt::print("beta variance: mean {:.5f}, deviation {:.5f}\n", mean, deviation);
  EXPECT_NEAR(mean, 0.3, 0.01);
  EXPECT_NEAR(deviation, 0.4, 0.01);
}

TEST(Sampler, DdpmOverAllLevelsIsTheUpdateOfThePaper) {
  const NoiseSchedule levels = schedule("linear", 20);
  SamplerOptions options{SamplingMethod::ddpm, SamplingVariance::beta, 20};
  const auto predict = [](const at::Tensor& x, int64_t t) {
    return x * (0.3 + 0.01 * static_cast<double>(t));
  };
  const auto noise = [](int64_t t) {
    return at::full({1}, std::sin(static_cast<double>(t)), at::kDouble);
  };
  double x = 0.7;
  for (int64_t t = 19; t >= 0; --t) {
    const double beta = levels.beta(t), e = x * (0.3 + 0.01 * static_cast<double>(t));
    x = (x - beta / std::sqrt(1 - levels.alpha_bar(t)) * e) / std::sqrt(1 - beta);
    if (t > 0) x += std::sqrt(beta) * std::sin(static_cast<double>(t));
  }
  const at::Tensor mine = sample(levels, options, at::full({1}, 0.7, at::kDouble), predict, noise);
  EXPECT_NEAR(mine.item<double>(), x, 1e-12);  // fp64; 20 steps of some roundings each
}

TEST(Sampler, KeepsDataInItsRange) {
  const NoiseSchedule levels = schedule("cosine", 100);
  SamplerOptions options;
  options.steps = 5;
  options.low = at::full({1, 1}, -1.0, at::kDouble);
  options.high = at::full({1, 1}, 1.0, at::kDouble);
  const auto predict = [](const at::Tensor& x, int64_t) { return x * 0.5; };
  const auto noise = [](int64_t) { return at::zeros({1, 1}, at::kDouble); };
  const at::Tensor start = at::full({1, 1}, 2.0, at::kDouble);
  EXPECT_LE(sample(levels, options, start, predict, noise).abs().item<double>(), 1.0);
  options.low = options.high = at::Tensor();
  EXPECT_GT(sample(levels, options, start, predict, noise).abs().item<double>(), 1.0);
}

}  // namespace
}  // namespace vitrail::models
