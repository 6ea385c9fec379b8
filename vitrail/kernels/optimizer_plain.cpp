// The updates as plain loops, element by element: what the vectorised and CUDA forms are tested
// against.

#include <cmath>

#include "vitrail/kernels/bf16.h"
#include "vitrail/kernels/optimizer.h"

namespace vitrail::kernels {

void adamw_plain(const Arena& arena, const AdamwStep& step, const float* scale) {
  if (*scale == 0.0f) return;
  const AdamwFactors f = factors(step);
  for (int64_t i = 0; i < arena.count; ++i) {
    const float g = *scale * arena.gradient[i];
    float p = arena.master[i];
    if (arena.decay[i / kFlagGroup]) p *= f.keep;
    const float m = arena.first[i] + f.one_minus_beta1 * (g - arena.first[i]);
    const float v = f.beta2 * arena.second[i] + f.one_minus_beta2 * g * g;
    p -= f.step_size * m / (std::sqrt(v) / f.root_correction + f.eps);
    arena.master[i] = p;
    arena.first[i] = m;
    arena.second[i] = v;
    if (arena.ema) arena.ema[i] += f.one_minus_ema * (p - arena.ema[i]);
    if (arena.weights_bf16) arena.weights_bf16[i] = to_bf16(p);
  }
}

void sgd_plain(const Arena& arena, const SgdStep& step, const float* scale) {
  if (*scale == 0.0f) return;
  const auto learning_rate = static_cast<float>(step.learning_rate);
  const auto momentum = static_cast<float>(step.momentum);
  const auto weight_decay = static_cast<float>(step.weight_decay);
  const auto one_minus_ema = static_cast<float>(1.0 - step.ema_decay);
  for (int64_t i = 0; i < arena.count; ++i) {
    float p = arena.master[i];
    float g = *scale * arena.gradient[i];
    if (arena.decay[i / kFlagGroup]) g += weight_decay * p;
    const float b = momentum * arena.first[i] + g;
    p -= learning_rate * b;
    arena.master[i] = p;
    arena.first[i] = b;
    if (arena.ema) arena.ema[i] += one_minus_ema * (p - arena.ema[i]);
    if (arena.weights_bf16) arena.weights_bf16[i] = to_bf16(p);
  }
}

}  // namespace vitrail::kernels
