#pragma once
/// The dynamic factor of the loss in fp16, and the gradient's norm and clipping factor that undo it. One source for CPU
/// and GPU; whether a step overflowed is decided where the gradient is, so that the host never waits for it.
///
/// Paper    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; the state machine is that of DeepSpeed 0.16
///          (DynamicLossScaler), equal step by step.

#include <cmath>
#include <cstdint>

#include "vitrail/core/philox.h"  // VT_HOST_DEVICE

namespace vitrail::kernels {

struct LossScaleRules {
  int64_t window = 1000;  // steps without an overflow after which the factor doubles
  int64_t hysteresis = 2;
  double minimum = 1.0;
  bool consecutive_hysteresis = false;
  bool is_fixed = false;  // the factor never changes
};

struct LossScaleState {
  double scale = 65536.0;
  int64_t hysteresis = 2;      // overflows left before the factor is halved, itself included
  int64_t last_overflow = -1;  // step of the last overflow
  int64_t iteration = 0;       // steps done
  int64_t failed =
      0;  // 1: overflow at the minimum; nothing changes and no update is applied from here on

  bool operator==(const LossScaleState&) const = default;
};

/// The state after a step.
VT_HOST_DEVICE inline void advance(LossScaleState& state, const LossScaleRules& rules,
                                   bool overflow) {
  if (state.failed) return;
  if (rules.is_fixed) {
    if (overflow) state.last_overflow = state.iteration;
  } else if (overflow) {
    if (rules.hysteresis == 1 || state.hysteresis == 1) {
      if (state.scale <= rules.minimum) {
        state.failed = 1;
        return;
      }
      const double half = state.scale / 2;
      state.scale = half > rules.minimum ? half : rules.minimum;
    } else {
      --state.hysteresis;
    }
    state.last_overflow = state.iteration;
  } else {
    if (rules.consecutive_hysteresis) state.hysteresis = rules.hysteresis;
    if ((state.iteration - state.last_overflow) % rules.window == 0) {
      state.hysteresis = rules.hysteresis;
      state.scale *= 2;
    }
  }
  ++state.iteration;
}

/// What the step did, for the host: the factor its loss had, and whether the run has failed.
struct LossScaleReport {
  float scale, failed;
};

/// `sum`: squares of the gradient of the scaled loss over all ranks.
/// *norm = sqrt(sum) / scale, the norm of the gradient itself; *factor = 1 / (max(1, (norm + 1e-6) / max_norm) scale),
/// which undoes the scale and clips (max_norm <= 0: only undoes); 0, no update, when the norm is not finite or the run has
/// failed. Then the state advances, and *next_scale is the factor of the next loss.
VT_HOST_DEVICE inline void unscale(const double* sum, float max_norm, const LossScaleRules& rules,
                                   LossScaleState* state, float* norm, float* factor,
                                   float* next_scale, LossScaleReport* report) {
  const auto scale = static_cast<float>(state->scale);
  const auto unscaled = static_cast<float>(sqrt(*sum) / static_cast<double>(scale));
  const bool overflow = !std::isfinite(unscaled);
  advance(*state, rules, overflow);
  const double excess =
      max_norm > 0 ? (static_cast<double>(unscaled) + 1e-6) / static_cast<double>(max_norm) : 1.0;
  const double combined = (excess > 1.0 ? excess : 1.0) * static_cast<double>(scale);
  *norm = unscaled;
  *factor = overflow || state->failed ? 0.0f : static_cast<float>(1.0 / combined);
  *next_scale = static_cast<float>(state->scale);
  *report = {scale, state->failed ? 1.0f : 0.0f};
}

/// The same as one tiny kernel; all pointers are device memory.
void unscale_on_device(const double* sum, float max_norm, const LossScaleRules& rules,
                       LossScaleState* state, float* norm, float* factor, float* next_scale,
                       LossScaleReport* report, void* stream);

}  // namespace vitrail::kernels
