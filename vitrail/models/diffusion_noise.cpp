#include "vitrail/models/diffusion_noise.h"

#include <numbers>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <c10/util/accumulate.h>

#include "vitrail/ops/random.h"

namespace vitrail::models {

at::Tensor normal(const core::DrawKey& key, const at::Tensor& sample_ids, at::IntArrayRef shape) {
  const at::NoGradGuard no_grad;
  const int64_t B = sample_ids.size(0), count = c10::multiply_integers(shape),
                pairs = (count + 1) / 2;
  const at::Tensor uniforms =
      ops::uniform(key, sample_ids, 2 * pairs).to(at::kDouble).view({B, pairs, 2});
  // 1 - u is in (0, 1], so that its logarithm is finite.
  const at::Tensor radius = uniforms.select(2, 0).mul(-1.0).add(1.0).log().mul(-2.0).sqrt();
  const at::Tensor angle = uniforms.select(2, 1).mul(2.0 * std::numbers::pi);
  const at::Tensor both = at::stack({radius * angle.cos(), radius * angle.sin()}, 2);
  std::vector<int64_t> full{B};
  full.insert(full.end(), shape.begin(), shape.end());
  return both.view({B, 2 * pairs}).narrow(1, 0, count).to(at::kFloat).reshape(full);
}

at::Tensor uniform_levels(const core::DrawKey& key, const at::Tensor& sample_ids, int64_t T) {
  const at::Tensor uniforms = ops::uniform(key, sample_ids, 1).view(-1).to(at::kDouble);
  return uniforms.mul(static_cast<double>(T)).floor().to(at::kLong).clamp(0, T - 1);
}

}  // namespace vitrail::models
