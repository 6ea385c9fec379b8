#pragma once
/// From noise to data by a predictor of the noise: DDPM's ancestral sampling and DDIM, over all levels or some of them.
///
/// A step from level t to the next visited level s < t (alpha_bar_s = 1 after the last), with a = alpha_bar:
///   x_0 = (x - sqrt(1 - a_t) e(x, t)) / sqrt(a_t), kept inside the data's range when there is one
///   ddim  x <- sqrt(a_s) x_0 + sqrt(1 - a_s) e',   e' the noise that belongs to the kept x_0
///   ddpm  x <- (sqrt(a_s) b x_0 + sqrt(a_t / a_s) (1 - a_s) x) / (1 - a_t) + sigma z,   b = 1 - a_t / a_s,
///         sigma^2 = b (1 - a_s) / (1 - a_t) (posterior) or b (beta, as UCF-VIT's), no noise in the last step
/// Without a range and over all levels the ddpm mean is (x - beta_t / sqrt(1 - a_t) e) / sqrt(1 - beta_t).
/// Paper    Ho et al. 2020, arXiv:2006.11239, algorithm 2; Song et al. 2020, arXiv:2010.02502, eq. 12 with eta = 0;
///          subsets of levels: Nichol & Dhariwal 2021, arXiv:2102.09672.

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/models/noise_schedule.h"

namespace vitrail::models {

enum class SamplingMethod { ddpm, ddim };
enum class SamplingVariance { posterior, beta };

struct SamplerOptions {
  SamplingMethod method = SamplingMethod::ddim;
  SamplingVariance variance = SamplingVariance::posterior;  // ddpm
  int64_t steps = 50;
  /// Data's range, broadcastable to x; undefined = unlimited. With few steps, and at the first levels of the cosine
  /// schedule, x_0 is a small difference divided by a smaller number: without the range pictures burn out.
  at::Tensor low, high;
};

/// Predicted noise, like x, of samples x [B, ...] that are all at level t.
using NoisePredictor = std::function<at::Tensor(const at::Tensor& x, int64_t t)>;
/// Standard normal values like x for the step that starts at level t.
using StepNoise = std::function<at::Tensor(int64_t t)>;

/// Runs the sampler from x [B, ...] (standard normal, fp32) down to data.
/// throws ConfigError when options.steps is not in [1, T].
at::Tensor sample(const NoiseSchedule& schedule, const SamplerOptions& options, at::Tensor x,
                  const NoisePredictor& predict, const StepNoise& noise);

}  // namespace vitrail::models
