#include "vitrail/models/diffusion_sampler.h"

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp.h>

namespace vitrail::models {
namespace {

/// One step from level t to level s; alpha_bar_t and alpha_bar_s.
struct Levels {
  double from, to;
  double beta() const { return 1.0 - from / to; }
};

at::Tensor data_estimate(const Levels& level, const SamplerOptions& options, const at::Tensor& x,
                         const at::Tensor& e) {
  const at::Tensor x0 = (x - e * std::sqrt(1.0 - level.from)) / std::sqrt(level.from);
  return options.low.defined() ? at::clamp(x0, options.low, options.high) : x0;
}

at::Tensor ddim_step(const Levels& level, const at::Tensor& x, const at::Tensor& x0) {
  // Derived anew from the kept x_0, so that x stays on the path that leads to it.
  const at::Tensor e = (x - x0 * std::sqrt(level.from)) / std::sqrt(1.0 - level.from);
  return x0 * std::sqrt(level.to) + e * std::sqrt(1.0 - level.to);
}

at::Tensor ddpm_mean(const Levels& level, const at::Tensor& x, const at::Tensor& x0) {
  const double rest = 1.0 - level.from;
  return x0 * (std::sqrt(level.to) * level.beta() / rest) +
         x * (std::sqrt(level.from / level.to) * (1.0 - level.to) / rest);
}

double ddpm_deviation(const Levels& level, SamplingVariance variance) {
  if (variance == SamplingVariance::beta) return std::sqrt(level.beta());
  return std::sqrt(level.beta() * (1.0 - level.to) / (1.0 - level.from));
}

}  // namespace

at::Tensor sample(const NoiseSchedule& schedule, const SamplerOptions& options, at::Tensor x,
                  const NoisePredictor& predict, const StepNoise& noise) {
  const at::NoGradGuard no_grad;
  const std::vector<int64_t> visited = sampling_levels(schedule.num_timesteps(), options.steps);
  for (size_t i = 0; i < visited.size(); ++i) {
    const int64_t t = visited[i];
    const bool last = i + 1 == visited.size();
    const Levels level{schedule.alpha_bar(t), schedule.alpha_bar(last ? -1 : visited[i + 1])};
    const at::Tensor x0 = data_estimate(level, options, x, predict(x, t));
    if (options.method == SamplingMethod::ddim)
      x = ddim_step(level, x, x0);
    else
      x = ddpm_mean(level, x, x0);
    if (options.method == SamplingMethod::ddpm && !last)
      x = x + noise(t) * ddpm_deviation(level, options.variance);
  }
  return x;
}

}  // namespace vitrail::models
