#pragma once
/// How much noise a diffusion model mixes into an image at each of T levels.
///
///   x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) e,   alpha_bar_t = prod_{s <= t} (1 - beta_s),   t = 0 ... T-1
/// linear   beta from 1e-4 to 0.02 in equal steps, whatever T is, as UCF-VIT: with T well below 1000 the last level still
///          shows the image, so that sampling from pure noise needs T near 1000 or the cosine schedule.
/// cosine   alpha_bar(u) = cos^2((u + s) / (1 + s) pi / 2), s = 0.008; beta_t = 1 - alpha_bar((t+1)/T) / alpha_bar(t/T),
///          at most 0.999.
/// Paper    Ho et al. 2020, arXiv:2006.11239 (linear); Nichol & Dhariwal 2021, arXiv:2102.09672 (cosine).
/// Units    values are computed and kept in fp64; tensors get them in fp32.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vitrail/config/recipe.h"

namespace vitrail::models {

class NoiseSchedule {
 public:
  /// throws ConfigError when num_timesteps is below 1.
  explicit NoiseSchedule(const config::Model& options);

  int64_t num_timesteps() const { return static_cast<int64_t>(beta_.size()); }
  double beta(int64_t t) const { return beta_[static_cast<size_t>(t)]; }
  /// 1 for t = -1: no noise at all.
  double alpha_bar(int64_t t) const { return t < 0 ? 1.0 : alpha_bar_[static_cast<size_t>(t)]; }

  /// x_t of x_0 [B, ...], noise like it and timestep int64 [B]; fp32, no synchronisation.
  at::Tensor add_noise(const at::Tensor& x, const at::Tensor& noise,
                       const at::Tensor& timestep_B) const;

 private:
  std::vector<double> beta_, alpha_bar_;
  mutable at::Tensor signal_T_, noise_T_;  // the two factors, fp32, on the device of the last use
};

/// The `count` levels that a sampler visits out of `num_timesteps`, from the highest down:
/// round(T (count - i) / count) - 1, so the first is always T-1, where the image is (nearly) pure noise.
/// Paper    "trailing" in Lin et al. 2023, arXiv:2305.08891.
/// throws ConfigError when count is not in [1, num_timesteps].
std::vector<int64_t> sampling_levels(int64_t num_timesteps, int64_t count);

}  // namespace vitrail::models
