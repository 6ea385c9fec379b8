#include "vitrail/models/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include "vitrail/core/error.h"

namespace vitrail::models {
namespace {

constexpr double kFirstBeta = 1e-4, kLastBeta = 0.02;
constexpr double kCosineOffset = 0.008, kLargestBeta = 0.999;

double linear_beta(int64_t t, int64_t T) {
  if (T == 1) return kFirstBeta;
  return kFirstBeta +
         (kLastBeta - kFirstBeta) * static_cast<double>(t) / static_cast<double>(T - 1);
}

double cosine_alpha_bar(int64_t t, int64_t T) {
  const double u = static_cast<double>(t) / static_cast<double>(T);
  const double root =
      std::cos((u + kCosineOffset) / (1.0 + kCosineOffset) * std::numbers::pi / 2.0);
  return root * root;
}

double cosine_beta(int64_t t, int64_t T) {
  return std::min(kLargestBeta, 1.0 - cosine_alpha_bar(t + 1, T) / cosine_alpha_bar(t, T));
}

/// fp32 copy of sqrt(value) of every element.
template <class Value>
at::Tensor roots(int64_t count, Value value) {
  at::Tensor out = at::empty({count}, at::kFloat);
  for (int64_t t = 0; t < count; ++t)
    out.mutable_data_ptr<float>()[t] = static_cast<float>(std::sqrt(value(t)));
  return out;
}

}  // namespace

NoiseSchedule::NoiseSchedule(const config::Model& options) {
  const int64_t T = options.num_timesteps;
  VT_REQUIRE(ConfigError, T >= 1, "[config] model.num_timesteps must be at least 1 but got {}", T);
  double product = 1.0;
  for (int64_t t = 0; t < T; ++t) {
    beta_.push_back(options.beta_schedule == "cosine" ? cosine_beta(t, T) : linear_beta(t, T));
    alpha_bar_.push_back(product *= 1.0 - beta_.back());
  }
  signal_T_ = roots(T, [&](int64_t t) { return alpha_bar(t); });
  noise_T_ = roots(T, [&](int64_t t) { return 1.0 - alpha_bar(t); });
}

at::Tensor NoiseSchedule::add_noise(const at::Tensor& x, const at::Tensor& noise,
                                    const at::Tensor& timestep_B) const {
  if (signal_T_.device() != x.device()) {
    signal_T_ = signal_T_.to(x.device());
    noise_T_ = noise_T_.to(x.device());
  }
  std::vector<int64_t> per_sample(static_cast<size_t>(x.dim()), 1);
  per_sample[0] = x.size(0);
  return signal_T_.index_select(0, timestep_B).view(per_sample) * x.to(at::kFloat) +
         noise_T_.index_select(0, timestep_B).view(per_sample) * noise.to(at::kFloat);
}

std::vector<int64_t> sampling_levels(int64_t num_timesteps, int64_t count) {
  VT_REQUIRE(ConfigError, count >= 1 && count <= num_timesteps,
             "[sample] steps must be between 1 and model.num_timesteps = {} but got {}",
             num_timesteps, count);
  std::vector<int64_t> levels;
  for (int64_t i = 0; i < count; ++i) {
    const double end = static_cast<double>(num_timesteps) * static_cast<double>(count - i) /
                       static_cast<double>(count);
    levels.push_back(static_cast<int64_t>(std::llround(end)) - 1);
  }
  return levels;
}

}  // namespace vitrail::models
