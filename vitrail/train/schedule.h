#pragma once
/// Learning rate as a function of the step.

#include <cstdint>

#include "vitrail/config/recipe.h"

namespace vitrail::train {

class Schedule {
 public:
  /// `base` is the rate at the end of the warm-up; total_steps the length of the run, which the recipe's
  /// schedule.total_steps overrides.
  Schedule(const config::Schedule& options, double base, int64_t total_steps);
  /// Rate of update `step` (t, 0-based), with W warm-up steps, T in all, start and end rates.
  /// Warm-up, t < W: start + r (base - start), r = t / W or ln(t + 1) / ln(W).
  /// Then end + s (base - end); constant: base.
  /// vitrail   W of warmup_steps; s = 1 - p or (1 + cos(pi p)) / 2, p = (t - W) / (T - 1 - W) up to 1, so that the last
  ///           step has the end rate.
  /// deepspeed W = max(2, warmup_steps); s = (T - t) / (T - W) down to 0, or (1 + cos(pi (t - W + 1) / (T - W))) / 2 down
  ///           to its first 0: WarmupLR, WarmupDecayLR and WarmupCosineLR, where their scheduler counts t.
  double at(int64_t step) const;

 private:
  double risen(int64_t step) const;
  double remaining(int64_t step) const;

  config::Schedule options_;
  double base_;
  bool counts_as_deepspeed_;
  int64_t warmup_, total_;
};

}  // namespace vitrail::train
